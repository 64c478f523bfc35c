package broker

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

// gateway serves programs that speak HTTP: they publish with requests, and receive
// streams of events.
type gateway struct {
	conn   engineConn
	topics topicTable
	fans   *fanout
	bodies *budget      // memory for request bodies
	open   atomic.Int64 // open streams
	// timeout is how long a client may take to read what it is sent.
	timeout time.Duration
}

const (
	// bodiesSize is how large the bodies of all publishing requests may be
	// together; further requests wait until others are done.
	bodiesSize = 256 << 20
	// bodyFactor is how much memory a body takes, including what is decoded from
	// it, as a multiple of its size.
	bodyFactor = 2
	// bodyStep is how much room a body gets at first.
	bodyStep = 64 << 10
)

func newGateway(b *Broker, conn engineConn) *gateway {
	return &gateway{
		conn: conn, topics: topicTable{conn: conn, known: map[string]*knownTopic{}}, bodies: newBudget(bodiesSize),
		timeout: streamTimeout,
		fans:    newFanout(conn, "/"+b.config.Load().Name, b.log.With("part", "gateway")),
	}
}

func (g *gateway) close() { g.fans.close() }

// maxStreams is how many clients may follow topics over HTTP at once. Each has a
// goroutine and the buffers of its connection, and up to maxFrameBatchBytes more while it
// catches up.
const maxStreams = 20_000

// enter counts one more stream until release is called.
func (g *gateway) enter() (release func(), err error) {
	if g.open.Add(1) > maxStreams {
		g.open.Add(-1)
		return nil, refused(http.StatusServiceUnavailable, "%d clients follow topics, which is the limit", maxStreams).but("try again later")
	}
	return func() { g.open.Add(-1) }, nil
}

// topicTable remembers which topics are stored.
type topicTable struct {
	conn engineConn

	mu    sync.Mutex // guards known
	known map[string]*knownTopic
}

// knownTopic is a topic in the state in which it was found.
type knownTopic struct {
	topic  driver.Topic
	stored bool
	at     time.Time
}

const (
	// knownFor is how long a topic found not to be stored counts as such. That a
	// topic is no longer stored shows when it is used.
	knownFor = time.Second
	// maxKnownTopics is how many topics are remembered.
	maxKnownTopics = 4096
)

// open returns a topic, or the topics that match a pattern, and whether they are
// stored. A pattern is stored if one store keeps all of it; otherwise it has no
// topic. A topic that another client made stored within the last second may still
// count as not stored.
func (t *topicTable) open(ctx context.Context, name string) (*knownTopic, error) {
	t.mu.Lock()
	k := t.known[name]
	t.mu.Unlock()
	if k != nil && (k.stored || time.Since(k.at) < knownFor) {
		return k, nil
	}
	topic, stored, err := t.find(ctx, name)
	if err != nil {
		return nil, err
	}
	k = &knownTopic{topic, stored, time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxKnownTopics {
		clear(t.known) // they are looked up again
	}
	t.known[name] = k
	return k, nil
}

func (t *topicTable) find(ctx context.Context, name string) (topic driver.Topic, stored bool, err error) {
	c := driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true, Dedup: time.Minute}} // takes the topic as it exists; IDs are sent
	if names.IsPattern(name) {
		if topic, err = t.conn.OpenTopic(ctx, c); errors.Is(err, driver.ErrUnsupported) { // no single store keeps all of it
			return nil, false, nil
		}
		return topic, err == nil, err
	}
	if stored, err = t.conn.HasTopic(ctx, name); err != nil {
		return nil, false, err
	}
	if !stored {
		c.Stored = nil
	}
	topic, err = t.conn.OpenTopic(ctx, c)
	return topic, stored, err
}

// forget makes open look up a topic again.
func (t *topicTable) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, name)
}
