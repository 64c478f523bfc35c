package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
)

const (
	// hubFrames is how many frames a hub keeps for clients that are behind, and
	// hubSize how large they may be together.
	hubFrames = 4096
	hubSize   = 8 << 20
	// fanoutSize is how large the frames of all hubs may be together, but for one
	// frame that each may keep.
	fanoutSize = 256 << 20
	// openTimeout is how long it may take to subscribe.
	openTimeout = 10 * time.Second
)

// fanout has a hub for each topic and pattern that clients over HTTP follow, while
// they do.
type fanout struct {
	conn  engineConn
	log   *slog.Logger
	maker frameMaker
	// work ends when the broker stops.
	work context.Context
	cut  context.CancelFunc

	readers chan struct{} // holds one for each client that reads the store

	count atomic.Int64 // hubs

	mu    sync.Mutex // guards what follows, and hub.clients
	hubs  map[hubKey]*hub
	tasks sync.WaitGroup
	over  bool
}

// engineConn is what the gateway needs of a connection to an engine.
type engineConn interface {
	Info() driver.Info
	OpenTopic(ctx context.Context, c driver.TopicConfig) (driver.Topic, error)
	SubscribePattern(ctx context.Context, pattern string, c driver.SubscribeConfig) (driver.Subscription, error)
	HasTopic(ctx context.Context, name string) (bool, error)
}

// hubKey says what a hub follows.
type hubKey struct {
	topic  string // or pattern
	stored bool
}

func newFanout(conn engineConn, source string, log *slog.Logger) *fanout {
	f := &fanout{conn: conn, log: log, hubs: map[hubKey]*hub{}, readers: make(chan struct{}, maxStoreReaders)}
	prefix, count := rand.Text()[:10], new(atomic.Uint64)
	f.maker = frameMaker{source: source, made: func() string { return prefix + "-" + strconv.FormatUint(count.Add(1), 36) }}
	f.work, f.cut = context.WithCancel(context.Background())
	return f
}

// share returns how much one hub may keep.
func (f *fanout) share() (count, size int) {
	return hubFrames, min(hubSize, fanoutSize/int(max(f.count.Load(), 1)))
}

// close ends all hubs.
func (f *fanout) close() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.cut()
	f.tasks.Wait()
}

// enter returns the hub of a topic or pattern, opened if need be, for one more
// client. The topic is nil for a pattern that is in no store.
func (f *fanout) enter(ctx context.Context, key hubKey, topic driver.Topic) (*hub, error) {
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		return nil, ErrStopped
	}
	h := f.hubs[key]
	if h == nil {
		set, err := filter.NewSet[*lane]()
		if err != nil {
			f.mu.Unlock()
			return nil, err
		}
		h = &hub{owner: f, topic: key.topic, stored: key.stored, set: set, lanes: map[string]*lane{}, ready: make(chan struct{})}
		f.hubs[key] = h
		f.count.Add(1)
		f.tasks.Go(func() { f.serve(key, h, topic) })
	}
	h.clients++
	f.mu.Unlock()
	select {
	case <-h.ready:
	case <-ctx.Done():
		f.leave(key, h)
		return nil, context.Cause(ctx)
	}
	if h.failed != nil {
		f.leave(key, h)
		return nil, h.failed
	}
	return h, nil
}

// leave is called for each client that has entered. A hub without clients ends.
func (f *fanout) leave(key hubKey, h *hub) {
	f.mu.Lock()
	h.clients--
	last, open := h.clients == 0, false
	if last && f.hubs[key] == h {
		delete(f.hubs, key)
	}
	select {
	case <-h.ready:
		open = h.failed == nil
	default: // serve finds that nobody is there
	}
	f.mu.Unlock()
	if last && open {
		_ = h.sub.Close(f.work) // it is over for everybody
	}
}

// retire ends a hub whose topic was created again: whoever comes gets another one.
func (f *fanout) retire(key hubKey, h *hub) {
	f.mu.Lock()
	if f.hubs[key] == h {
		delete(f.hubs, key)
	}
	f.mu.Unlock()
	h.end(errTopicReplaced)
}

// serve runs a hub until it ends.
func (f *fanout) serve(key hubKey, h *hub, topic driver.Topic) {
	defer f.count.Add(-1)
	ctx, cancel := context.WithTimeout(f.work, openTimeout)
	err := h.open(ctx, topic)
	cancel()
	f.mu.Lock()
	if err == nil && h.clients == 0 { // they have not waited
		err = errNobody
	}
	h.failed = err
	close(h.ready)
	f.mu.Unlock()
	if err == nil {
		err = h.run(f.work)
	}
	f.mu.Lock()
	if f.hubs[key] == h { // whoever comes gets another one
		delete(f.hubs, key)
	}
	f.mu.Unlock()
	if h.sub != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(f.work), openTimeout)
		defer cancel()
		_ = h.sub.Close(ctx) // idempotent, and nothing is acknowledged
	}
	h.end(err)
}

var errNobody = errors.New("no client waits for it any more")

// open subscribes.
func (h *hub) open(ctx context.Context, topic driver.Topic) (err error) {
	cfg := driver.SubscribeConfig{Window: liveWindow}
	switch {
	case h.stored:
		var s driver.TopicStats
		if s, err = topic.Stats(ctx); err == nil {
			h.made, h.mark = s.Created, markOf(s.Created)
			h.taken, h.passed = s.Last, s.Last
			h.sub, err = topic.Subscribe(ctx, driver.SubscribeConfig{From: driver.FromSeq, Seq: s.Last + 1, Window: liveWindow})
		}
	case names.IsPattern(h.topic):
		h.sub, err = h.owner.conn.SubscribePattern(ctx, h.topic, cfg)
	default:
		h.sub, err = topic.Subscribe(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("follow %s: %w", h.topic, err)
	}
	return nil
}
