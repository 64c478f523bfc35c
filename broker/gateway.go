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

// gateway is the door for programs that speak HTTP: they publish with requests, and
// receive as a stream of events.
type gateway struct {
	conn   engineConn
	topics topicTable
	fans   *fanout
	bodies *budget      // of what requests carry
	open   atomic.Int64 // streams
	// patience is how long a client may take to take what it is sent.
	patience time.Duration
}

const (
	// bodiesSize is how large the bodies of all requests that publish may be
	// together; more wait until others are done.
	bodiesSize = 256 << 20
	// bodyFactor is how much memory a body takes with what is made of it.
	bodyFactor = 2
	// bodyStep is how much room a body is given at first.
	bodyStep = 64 << 10
)

func newGateway(b *Broker, conn engineConn) *gateway {
	return &gateway{
		conn: conn, topics: topicTable{conn: conn, known: map[string]*knownTopic{}}, bodies: newBudget(bodiesSize),
		patience: streamPatience,
		fans:     newFanout(conn, "/"+b.config.Load().Name, b.log.With("part", "gateway")),
	}
}

func (g *gateway) close() { g.fans.close() }

// maxStreams is how many clients may follow topics over HTTP at once. Each has a
// goroutine and the buffers of its connection, and up to packSize while it catches up.
const maxStreams = 20_000

// enter counts one more stream until release is called.
func (g *gateway) enter() (release func(), err error) {
	if g.open.Add(1) > maxStreams {
		g.open.Add(-1)
		return nil, refused(http.StatusServiceUnavailable, "%d clients follow topics, and more may not", maxStreams).but("try again later")
	}
	return func() { g.open.Add(-1) }, nil
}

// topicTable knows which topics are stored.
type topicTable struct {
	conn engineConn

	mu    sync.Mutex // guards known
	known map[string]*knownTopic
}

// knownTopic is a topic as it was found.
type knownTopic struct {
	topic  driver.Topic
	stored bool
	at     time.Time
}

const (
	// knownFor is how long a topic that was not stored is taken to be none; that
	// one is not any more is found when it is used.
	knownFor = time.Second
	// knownMost is how many topics are remembered.
	knownMost = 4096
)

// open returns a topic, or the topics that match a pattern, and whether they are stored: a
// pattern is if one store keeps all of it, and has no topic otherwise. What has become stored
// in the last second, made by another client, may still be taken for what is not.
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
	if len(t.known) >= knownMost {
		clear(t.known) // they are found again
	}
	t.known[name] = k
	return k, nil
}

func (t *topicTable) find(ctx context.Context, name string) (topic driver.Topic, stored bool, err error) {
	c := driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true, Dedup: time.Minute}} // as it is there; IDs are sent
	if names.IsPattern(name) {
		if topic, err = t.conn.OpenTopic(ctx, c); errors.Is(err, driver.ErrUnsupported) { // no store keeps all of it
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

// forget makes open look again.
func (t *topicTable) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, name)
}
