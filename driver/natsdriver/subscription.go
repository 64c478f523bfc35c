package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// inlet receives the messages of subjects from the client. The channel is its
// buffer; the client drops messages that find it full, and counts them.
type inlet struct {
	conn *Conn
	subs []*nats.Subscription
	msgs chan *nats.Msg

	// urgent says that somebody waits for each message, so that next does not let
	// the client run to find more.
	urgent bool

	taken []*nats.Msg // what next last returned

	once  sync.Once
	ended chan struct{} // closed once no more messages are added to msgs
	lost  uint64        // final count; read it only after ended is closed
}

func newInlet(c *Conn, window int) inlet {
	return inlet{conn: c, msgs: make(chan *nats.Msg, window), ended: make(chan struct{})}
}

// begin subscribes, and returns once the server has processed that.
func (in *inlet) begin(ctx context.Context, subjects []string, group string) error {
	err := in.conn.permitted(ctx, subjects, func() error {
		for _, subject := range subjects {
			sub, err := in.conn.nc.ChanQueueSubscribe(subject, queueName(group), in.msgs)
			if err != nil {
				return kind(err)
			}
			in.subs = append(in.subs, sub)
		}
		return nil
	}, func() {
		for _, sub := range in.subs {
			_ = sub.Unsubscribe() // nothing to do if the connection is closed
		}
		in.subs = nil
	})
	if err != nil {
		in.end()
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// end stops taking messages.
func (in *inlet) end() {
	in.once.Do(func() {
		in.lost = in.dropped()
		for _, sub := range in.subs {
			_ = sub.Unsubscribe() // nothing to do if the connection is closed
		}
		close(in.ended)
	})
}

// dropped returns how many messages found the buffer full.
func (in *inlet) dropped() uint64 {
	select {
	case <-in.ended:
		return in.lost
	default:
	}
	var n uint64
	for _, sub := range in.subs {
		if d, err := sub.Dropped(); err == nil { // otherwise it has just ended
			n += uint64(d)
		}
	}
	return n
}

// next returns between 1 and most messages, in a slice that the next call reuses.
// It must be called by one goroutine at a time.
func (in *inlet) next(ctx context.Context, most int) ([]*nats.Msg, error) {
	first, err := in.first(ctx)
	if err != nil {
		return nil, err
	}
	clear(in.taken)
	in.taken = append(in.taken[:0], first)
	for len(in.taken) < most {
		m := in.more()
		if m == nil {
			break
		}
		in.taken = append(in.taken, m)
	}
	return in.taken, nil
}

// first waits for a message.
func (in *inlet) first(ctx context.Context) (m *nats.Msg, err error) {
	if m = in.more(); m != nil {
		return m, nil
	}
	select {
	case m = <-in.msgs:
		if !in.urgent {
			runtime.Gosched() // lets the client run, which has read more than one
		}
	case <-in.ended:
		if m = in.more(); m == nil {
			return nil, driver.ErrEnded
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return m, nil
}

// more returns a message that has come, or nil.
func (in *inlet) more() *nats.Msg {
	select {
	case m := <-in.msgs:
		return m
	default:
		return nil
	}
}

// sent returns how many messages have been added to the buffer.
func (in *inlet) sent() (n uint64) {
	for _, sub := range in.subs {
		if d, err := sub.Delivered(); err == nil { // otherwise it has ended
			n += uint64(d)
		}
	}
	return n
}

// subscription receives what is published to subjects while it exists.
type subscription struct {
	inlet
	inbox string // prefix of reply subjects; empty if no replies can come
	come  arrivals

	topic string // empty for a pattern
	local string // the topic whose messages may be handed over; empty for none
	// queue has what is handed over, and what its goroutine moves to it from the buffer
	// of the inlet. It is nil if nothing is handed over and no bytes are counted; then
	// Receive takes from that buffer.
	queue *queue

	// Room for the messages that Receive returns, and the slice for them; nil while
	// those returned last may be in use. Both belong to the goroutine that calls
	// Receive and Recycle.
	room  []driver.Received
	spare []*driver.Received
}

// subscribe starts to receive what is published to a topic, or to the topics that
// match a pattern.
func (c *Conn) subscribe(ctx context.Context, topics string, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	if cfg.From != driver.FromNow {
		return nil, errors.New("messages of an ephemeral topic are not stored, so a subscription cannot start in the past")
	}
	s := &subscription{inlet: newInlet(c, cfg.Window)}
	subjects := []string{topics}
	if isPattern(topics) {
		subjects = append(subjects, keyedSubjects(topics), storeSubjects(topics))
		s.inbox = inboxRoot(c.nc)
	} else {
		s.topic = topics
	}
	if err := s.begin(ctx, subjects, cfg.Group); err != nil {
		return nil, err
	}
	local := c.local != nil && cfg.Group == "" && !isPattern(topics)
	if local || c.bounds.all > 0 {
		s.queue = newQueue(cfg.Window, &c.bounds)
		if !c.spawn(s.move) {
			s.end()
			return nil, errConnClosed
		}
	}
	if local {
		s.local = topics
		c.local.add(s)
	}
	if err := c.add(s); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// move moves messages to the queue, until the subscription ends. It hardly waits for
// anything, so the buffer of the inlet, which has no bound in bytes, stays nearly empty.
func (s *subscription) move() {
	defer s.queue.end(false)
	for {
		select {
		case m := <-s.msgs:
			s.queue.move(m, s.msgs)
		case <-s.ended:
			for len(s.msgs) > 0 {
				s.queue.move(<-s.msgs, s.msgs)
			}
			return
		}
	}
}

// arrived waits until the queue has what the client has received by now.
func (s *subscription) arrived(ctx context.Context) error { return s.queue.await(ctx, s.sent()) }

// settleQueues waits for that in all subscriptions.
func (c *Conn) settleQueues(ctx context.Context) error {
	if c.bounds.queues.Load() == 0 {
		return nil
	}
	var some []*subscription
	c.mu.Lock()
	for e := range c.ends {
		if s, ok := e.(*subscription); ok && s.queue != nil && s.behind() > 0 {
			some = append(some, s)
		}
	}
	c.mu.Unlock()
	for _, s := range some {
		if err := s.arrived(ctx); err != nil {
			return err
		}
	}
	return nil
}

// behind returns how many messages have still to be moved.
func (s *subscription) behind() uint64 {
	_, moved, _ := s.queue.count()
	return max(s.sent(), moved) - moved
}

// end stops taking messages.
func (s *subscription) end() {
	if s.local != "" {
		s.conn.local.remove(s)
	}
	s.inlet.end()
}

// Receive implements driver.Subscription.
func (s *subscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	for {
		rs, err := s.receive(ctx, most)
		if err != nil || len(rs) > 0 {
			return rs, err
		}
		s.spare = rs
	}
}

// receive is Receive, but returns nothing if nothing that has come is a message.
func (s *subscription) receive(ctx context.Context, most int) ([]*driver.Received, error) {
	if s.queue == nil {
		m, err := s.first(ctx)
		if err != nil {
			return nil, err
		}
		n := min(most, 1+len(s.msgs))
		rs := s.begun(n)
		for ; m != nil; m = s.more() {
			rs = s.read(rs, m)
			if n--; n == 0 {
				break
			}
		}
		return rs, nil
	}
	as, err := s.queue.take(ctx, most)
	if err != nil {
		return nil, err
	}
	rs := s.begun(len(as))
	for _, a := range as {
		if a.handed != nil {
			rs = append(rs, a.handed)
		} else {
			rs = s.read(rs, a.msg)
		}
	}
	return rs, nil
}

// begun returns a slice for n messages.
func (s *subscription) begun(n int) []*driver.Received {
	rs := s.spare
	if s.spare = nil; cap(rs) < n {
		s.room = nil
		rs = make([]*driver.Received, 0, n)
	}
	return rs
}

// read appends a message that the server has sent.
func (s *subscription) read(rs []*driver.Received, m *nats.Msg) []*driver.Received {
	if s.room == nil {
		s.room = make([]driver.Received, cap(rs))
	}
	topic, ok := s.topicOf(m)
	if !ok || s.come.repeats(m.Reply) {
		return rs
	}
	n := len(rs)
	r := &s.room[n]
	s.conn.decodeInto(r, m, topic)
	if rs = rs[:n+1]; rs[n] != r { // it is, if the slice was recycled
		rs[n] = r
	}
	return rs
}

// Recycle implements driver.Recycler.
func (s *subscription) Recycle(ms []*driver.Received) {
	for _, r := range ms {
		if m := &r.Message; m.Bare && m.Headers == nil && !m.HasKey && m.Expires.IsZero() {
			m.Data = nil // decodeInto resets the rest
		} else {
			*r = driver.Received{}
		}
	}
	s.spare = ms[:0]
}

// MaxHeld implements driver.Bounded. What is done may take as much until it is freed.
func (s *subscription) MaxHeld() int {
	if s.conn.bounds.all == 0 {
		return 0
	}
	return max(s.conn.bounds.share()/2, 1)
}

// topicOf returns the topic to which m was published. It returns false if there is
// none because m is a request, or traffic between servers and clients.
func (s *subscription) topicOf(m *nats.Msg) (string, bool) {
	if m.Reply != "" && !isAckSubject(m.Reply) {
		return "", false
	}
	if s.inbox == "" {
		if m.Subject == s.topic { // the messages need not keep their own
			return s.topic, true
		}
		return m.Subject, true
	}
	switch m.Sub {
	case s.subs[1]:
		return keyedTopic(m.Subject)
	case s.subs[2]:
		return storedTopic(m.Subject)
	}
	return m.Subject, m.Subject[0] != '$' && !strings.HasPrefix(m.Subject, s.inbox)
}

// Ack implements driver.Subscription.
func (s *subscription) Ack(context.Context, []*driver.Received) error { return nil }

// Extend implements driver.Subscription.
func (s *subscription) Extend(context.Context) error { return nil }

// Return implements driver.Subscription.
func (s *subscription) Return(context.Context, []*driver.Received) error { return nil }

// Drain implements driver.Subscription.
func (s *subscription) Drain(ctx context.Context) error {
	// Then everything published before has arrived.
	if err := s.conn.Flush(ctx); err != nil {
		return err
	}
	s.end()
	return nil
}

// Lag implements driver.Subscription.
func (s *subscription) Lag(context.Context) (driver.Lag, error) {
	if s.queue == nil {
		return driver.Lag{Waiting: uint64(len(s.msgs)), Lost: s.dropped(), Members: 1}, nil
	}
	behind := s.behind() // first: what is moved meanwhile counts twice, and not never
	waiting, _, lost := s.queue.count()
	return driver.Lag{Waiting: uint64(waiting) + behind, Lost: s.dropped() + lost, Members: 1}, nil
}

// CaughtUp implements driver.Subscription.
func (s *subscription) CaughtUp(ctx context.Context, _ uint64) (bool, error) {
	lag, err := s.Lag(ctx)
	return lag.Waiting == 0, err
}

// Close implements driver.Subscription.
func (s *subscription) Close(context.Context) error {
	s.end()
	s.conn.remove(s)
	if s.queue != nil {
		s.queue.end(true)
		return nil
	}
	for {
		select {
		case <-s.msgs: // so that Receive ends promptly
		default:
			return nil
		}
	}
}
