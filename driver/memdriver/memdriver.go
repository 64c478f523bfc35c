// Package memdriver is an engine in memory: the smallest that fulfils the whole
// contract of package driver for topics, requests and signals, to read before
// writing another, and to test package hark without a server. Programs that want to
// stay in their process use hark.New, which encodes nothing and is faster by
// far.
package memdriver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// Engine is what all connections to it share. Make one with New.
type Engine struct {
	mu         sync.Mutex // guards everything in the engine except the queues
	topics     map[string]*topic
	patterns   map[*subscription]string
	responders map[string][]*responder
	turns      map[string]int // whose turn it is to respond
	chans      map[string]*channel
	values     map[string]*value

	signals signals
}

// New returns an engine that holds nothing.
func New() *Engine {
	return &Engine{
		topics:   map[string]*topic{},
		patterns: map[*subscription]string{}, responders: map[string][]*responder{}, turns: map[string]int{},
		chans: map[string]*channel{}, values: map[string]*value{},
		signals: signals{listeners: map[*conn]*listener{}, latches: map[string]bool{}},
	}
}

// Connect returns a connection to the engine.
func (e *Engine) Connect() driver.Conn {
	return &conn{engine: e, subs: map[*subscription]struct{}{}, responders: map[*responder]struct{}{}}
}

// lease is how long a message of a group may be in flight. Members in one process
// do not vanish without a Close, so lease matters only for Extend.
const lease = 30 * time.Second

// conn is a connection.
type conn struct {
	engine *Engine

	mu         sync.Mutex // guards the fields below
	subs       map[*subscription]struct{}
	responders map[*responder]struct{}
	chans      []*chanHandle
	closed     bool
}

var errClosed = fmt.Errorf("connection %w", driver.ErrClosed)

// Info implements driver.Conn.
func (c *conn) Info() driver.Info {
	return driver.Info{
		Engine: "memory", Lease: lease,
		Can: []driver.Capability{driver.Stored, driver.Dedup, driver.KeyOrder, driver.Memory, driver.Latches},
	}
}

func (c *conn) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	return nil
}

// OpenTopic implements driver.Conn.
func (c *conn) OpenTopic(ctx context.Context, config driver.TopicConfig) (driver.Topic, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.topicLocked(config.Name)
	switch want := config.Stored; {
	case want == nil:
	case want.Durability != driver.DurableMemory || want.MaxBytes > 0:
		return nil, fmt.Errorf("%w: engine memory: nothing outlives the process, and nothing is limited by size", driver.ErrUnsupported)
	case t.stored == nil:
		t.stored = want
	case !want.Existing && !t.stored.DeadLetters && !same(*t.stored, *want):
		return nil, fmt.Errorf("%w: %+v, not %+v", driver.ErrConflict, *t.stored, *want)
	}
	return openTopic{t, c}, nil
}

// same reports whether two configurations are the same. There is one class of
// durability.
func same(a, b driver.StoredConfig) bool {
	return a.MaxMessages == b.MaxMessages && a.MaxAge == b.MaxAge && a.Dedup == b.Dedup
}

func (e *Engine) topicLocked(name string) *topic {
	t := e.topics[name]
	if t == nil {
		t = &topic{engine: e, name: name, first: 1, groups: map[string]*group{}, ids: map[string]time.Time{}}
		e.topics[name] = t
	}
	return t
}

// SubscribePattern implements driver.Conn.
func (c *conn) SubscribePattern(ctx context.Context, pattern string, config driver.SubscribeConfig) (driver.Subscription, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	s := newSubscription(c, config)
	s.pattern = pattern
	e.patterns[s] = pattern
	c.add(s)
	return s, nil
}

// Flush implements driver.Conn. What is published is received at once.
func (c *conn) Flush(ctx context.Context) error { return c.check(ctx) }

// Watch implements driver.Conn. The connection is never lost.
func (c *conn) Watch(func(bool, error)) {}

// Close implements driver.Conn.
func (c *conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	subs, responders, chans := c.subs, c.responders, c.chans
	c.subs, c.responders, c.chans = nil, nil, nil
	c.mu.Unlock()
	c.engine.signals.leave(c)
	for s := range subs {
		_ = s.Close(ctx) // Close never fails
	}
	for r := range responders {
		_ = r.Close(ctx)
	}
	for _, h := range chans {
		h.leave()
	}
	return nil
}

func (c *conn) add(s *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs != nil {
		c.subs[s] = struct{}{}
	}
}

// queue holds items that wait to be received.
type queue[E any] struct {
	mu    sync.Mutex // guards the fields below
	items []E
	news  chan struct{} // holds a token if there are items or the queue has ended
	ended bool          // nothing more is added
}

func newQueue[E any]() *queue[E] { return &queue[E]{news: make(chan struct{}, 1)} }

func (q *queue[E]) tell() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// put adds an item and reports whether the queue had room for it.
func (q *queue[E]) put(e E, most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || len(q.items) >= most {
		return false
	}
	q.items = append(q.items, e)
	q.tell()
	return true
}

// take waits for items and returns at most the given number of them.
func (q *queue[E]) take(ctx context.Context, most int) ([]E, error) {
	for {
		q.mu.Lock()
		n := min(most, len(q.items))
		items := slices.Clone(q.items[:n])
		clear(q.items[:n])
		q.items = q.items[n:]
		if len(q.items) > 0 || q.ended {
			q.tell()
		}
		ended := q.ended
		q.mu.Unlock()
		switch {
		case n > 0:
			return items, nil
		case ended:
			return nil, driver.ErrEnded
		}
		select {
		case <-q.news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// end prevents further items from being added. If drop is true, it also
// discards those that are there.
func (q *queue[E]) end(drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	if drop {
		q.items = nil
	}
	q.tell()
}

func (q *queue[E]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}
