package natsdriver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/harkbus/hark/driver"
)

// localDelivery delivers messages of ephemeral topics within the connection: if its own
// subscriptions are the only ones that receive a message, it is handed to them and not
// sent to the server. It needs the option Listened.
//
// A message that is handed over must not overtake those that were sent before. The client
// adds these to the channel of a subscription in the order of the connection, before it
// reports the server's answer to a flush. So once there has been a flush, and what is in
// the channel then has been moved to the queue, they have arrived. Until then messages
// are parked.
type localDelivery struct {
	conn *Conn
	// known is the epoch of the connection in which a flush has shown that the server
	// knows its subscriptions.
	known    atomic.Uint64
	learning atomic.Bool // learn is at work
	flushes  sync.Map    // the flushes of topics that are under way; see localTopic

	// mu guards topics and the subscriptions in them. Publishing holds it for reading:
	// once a subscription has been added, what was published without it has been sent.
	mu     sync.RWMutex
	topics map[string]*localTopic
}

// localTopic is a topic to which the connection has subscriptions without a group.
type localTopic struct {
	subs []*subscription // copied when it loses one

	mu sync.Mutex // held while a message is handed over or sent; guards the fields below
	// behind says that messages were sent after the last flush began, or before the
	// first.
	behind bool
	// flushed is closed when the flush under way has ended; nil if none is. Until then
	// what is handed over is parked.
	flushed chan struct{}
}

func newLocalDelivery(c *Conn) *localDelivery {
	l := &localDelivery{conn: c, topics: map[string]*localTopic{}}
	l.known.Store(c.state.epoch()) // there are no subscriptions yet
	return l
}

// add adds a subscription to one topic, without a group, that the server knows.
func (l *localDelivery) add(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[s.local]
	if t == nil {
		t = &localTopic{}
		l.topics[s.local] = t
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.behind = true // it waits for what was sent without it
	t.subs = append(t.subs, s)
}

// remove removes a subscription, before the server forgets it. It gets nothing more, and
// what is parked for it is dropped.
func (l *localDelivery) remove(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.topics[s.local]; t != nil {
		if t.subs = slices.DeleteFunc(slices.Clone(t.subs), func(o *subscription) bool { return o == s }); len(t.subs) == 0 {
			delete(l.topics, s.local)
		}
	}
	s.queue.dropParked()
}

// deliver delivers a message, unless it must be sent: then it returns false.
func (l *localDelivery) deliver(topic string, m *driver.Message) (delivered bool, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t := l.topics[topic]
	if t == nil {
		if l.conn.opts.listened(topic, 0) || !l.sound() {
			return false, nil
		}
		return true, l.conn.sendable(topic, m)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.conn.opts.listened(topic, len(t.subs)) || !l.sound() || t.behind && !l.flush(t) {
		return false, nil
	}
	return true, l.hand(t, topic, m)
}

// send calls f, which sends a message. It waits while messages before it are parked.
func (l *localDelivery) send(ctx context.Context, topic string, f func() error) error {
	for {
		flushed, err := l.trySend(topic, f)
		if flushed == nil {
			return err
		}
		select {
		case <-flushed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// trySend is send, but returns what to wait for.
func (l *localDelivery) trySend(topic string, f func() error) (flushed <-chan struct{}, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t := l.topics[topic]
	if t == nil {
		return nil, f()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flushed != nil && slices.ContainsFunc(t.subs, func(s *subscription) bool { return s.queue.hasParked() }) {
		return t.flushed, nil
	}
	t.behind = true
	return nil, f()
}

// sound reports whether what listened has said before holds: the connection has not been
// lost, and since it was restored the server has learned of the subscriptions. If the
// server has lost it and the client has not noticed, what is sent is lost as well.
func (l *localDelivery) sound() bool {
	if !l.conn.nc.IsConnected() {
		return false
	}
	if l.conn.state.epoch() == l.known.Load() {
		return true
	}
	if l.learning.CompareAndSwap(false, true) && !l.conn.spawn(l.learn) {
		l.learning.Store(false)
	}
	return false
}

// learn waits until the server knows the subscriptions.
func (l *localDelivery) learn() {
	defer l.learning.Store(false)
	var epoch uint64
	err := l.conn.state.do(context.Background(), func(ctx context.Context) error {
		epoch = l.conn.state.epoch()
		return l.conn.nc.FlushWithContext(ctx)
	})
	if err == nil {
		l.known.Store(epoch)
	}
}

// flush begins a flush for a topic whose mutex is held. It returns false if one is under
// way that does not cover all that was sent, or if the connection is being closed.
func (l *localDelivery) flush(t *localTopic) bool {
	if t.flushed != nil || !l.conn.spawn(func() { l.finishFlush(t) }) {
		return false
	}
	t.behind, t.flushed = false, make(chan struct{})
	l.flushes.Store(t.flushed, nil)
	return true
}

func (l *localDelivery) finishFlush(t *localTopic) {
	err := l.conn.flush(context.Background()) // ends with the connection
	for _, s := range l.subscriptions(t) {
		_ = s.arrived(context.Background()) // ends with the subscription
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.subs {
		s.queue.release()
	}
	t.behind = t.behind || err != nil
	close(t.flushed)
	l.flushes.Delete(t.flushed)
	t.flushed = nil
}

func (l *localDelivery) subscriptions(t *localTopic) []*subscription {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return t.subs
}

// settle waits until nothing is parked that was published before the call.
func (l *localDelivery) settle(ctx context.Context) (err error) {
	l.flushes.Range(func(flushed, _ any) bool {
		select {
		case <-flushed.(chan struct{}):
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		return err == nil
	})
	return err
}

// hand hands a message to the subscriptions of a topic whose mutex is held. Each gets what
// it would have received from the server, with memory of its own.
func (l *localDelivery) hand(t *localTopic, topic string, m *driver.Message) error {
	c := l.conn
	if c.surelyFits(topic, m) && c.arrivesAsIs(topic, m) {
		for _, s := range t.subs {
			s.queue.put(c.arrived(topic, m), t.flushed != nil)
		}
		return nil
	}
	b := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(b)
	msg, err := b.writeFitting(c, topic, m)
	if err != nil {
		return err
	}
	for _, s := range t.subs {
		r := new(driver.Received)
		msg.Data = append([]byte{}, m.Data...)
		c.decodeInto(r, msg, topic)
		s.queue.put(r, t.flushed != nil)
	}
	return nil
}

// arrivesAsIs reports whether what a subscription receives of a message is what was
// published, so that the headers need not be written and read. The message has no headers
// of its own.
func (c *Conn) arrivesAsIs(topic string, m *driver.Message) bool {
	year := m.Time.UTC().Year()
	return !m.Bare && m.ID != "" && m.Expires.IsZero() && year >= 0 && year <= 9999 &&
		utf8.ValidString(m.ID) && utf8.ValidString(m.Key) && utf8.ValidString(m.ContentType) && utf8.ValidString(topic) && utf8.ValidString(c.opts.source)
}

// arrived returns what a subscription receives of such a message.
func (c *Conn) arrived(topic string, m *driver.Message) *driver.Received {
	r := &driver.Received{Topic: topic, Deliveries: 1}
	r.ID, r.Time, r.ContentType, r.Data = m.ID, m.Time.UTC(), m.ContentType, append([]byte{}, m.Data...)
	if m.HasKey {
		r.Key, r.HasKey = m.Key, true
	}
	if c.opts.attributes {
		r.Headers = map[string]string{ceType: topic, ceSource: c.opts.source}
	}
	return r
}
