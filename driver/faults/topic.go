package faults

import (
	"context"
	"slices"
	"sync"

	"github.com/harkbus/hark/driver"
)

// OpenTopic implements driver.Conn.
func (c *Conn) OpenTopic(ctx context.Context, config driver.TopicConfig) (driver.Topic, error) {
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	t, err := c.Conn.OpenTopic(ctx, config)
	if err != nil {
		return nil, err
	}
	return &topic{Topic: t, conn: c, stored: config.Stored != nil}, nil
}

// SubscribePattern implements driver.Conn.
func (c *Conn) SubscribePattern(ctx context.Context, pattern string, config driver.SubscribeConfig) (driver.Subscription, error) {
	if err := c.pass(ctx); err != nil {
		return nil, err
	}
	s, err := c.Conn.SubscribePattern(ctx, pattern, config)
	if err != nil {
		return nil, err
	}
	return &subscription{Subscription: s, conn: c, pattern: true}, nil
}

type topic struct {
	driver.Topic
	conn   *Conn
	stored bool
}

// Publish implements driver.Topic.
func (t *topic) Publish(ctx context.Context, ms []*driver.Message) error {
	if err := t.conn.pass(ctx); err != nil {
		return err
	}
	return t.Topic.Publish(ctx, ms)
}

// Stats implements driver.Topic.
func (t *topic) Stats(ctx context.Context) (driver.TopicStats, error) {
	if err := t.conn.pass(ctx); err != nil {
		return driver.TopicStats{}, err
	}
	return t.Topic.Stats(ctx)
}

// Subscribe implements driver.Topic.
func (t *topic) Subscribe(ctx context.Context, config driver.SubscribeConfig) (driver.Subscription, error) {
	if err := t.conn.pass(ctx); err != nil {
		return nil, err
	}
	s, err := t.Topic.Subscribe(ctx, config)
	if err != nil {
		return nil, err
	}
	return &subscription{Subscription: s, conn: t.conn, group: t.stored && config.Group != "" && !config.Keyed}, nil
}

// subscription is a subscription with faults.
type subscription struct {
	driver.Subscription
	conn    *Conn
	group   bool // messages may be dropped and repeated
	pattern bool

	mu      sync.Mutex         // guards the fields below
	arrived []*driver.Received // received from the engine but not yet returned by Receive
	repeat  []*driver.Received // to be delivered again
	wake    context.CancelFunc // ends the engine's Receive; nil if none is running
}

// repeated is the token of a repeated message, which the engine does not know.
type repeated struct{}

// Receive implements driver.Subscription.
func (s *subscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	for !s.hasArrived() {
		turn, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		if s.wake = cancel; len(s.repeat) > 0 { // added since hasArrived looked
			cancel()
		}
		s.mu.Unlock()
		ms, err := s.Subscription.Receive(turn, most)
		woken := turn.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && woken {
			continue
		}
		if err != nil {
			return nil, err
		}
		ms = s.reorder(s.drop(ctx, ms))
		s.mu.Lock()
		s.arrived = append(s.arrived, ms...)
		s.mu.Unlock()
	}
	if err := s.conn.pass(ctx); err != nil { // messages that have arrived are kept
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(most, len(s.arrived))
	ms := s.arrived[:n:n]
	s.arrived = s.arrived[n:]
	return ms, nil
}

// hasArrived reports whether Receive has something to return.
func (s *subscription) hasArrived() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.arrived) == 0 {
		s.arrived, s.repeat = s.repeat, nil
	}
	return len(s.arrived) > 0
}

// drop returns the dropped messages to the engine, which delivers them again.
func (s *subscription) drop(ctx context.Context, ms []*driver.Received) []*driver.Received {
	if !s.group {
		return ms
	}
	return slices.DeleteFunc(ms, func(m *driver.Received) bool {
		return s.conn.hit(s.conn.config.Drop, func(n *Counts) *int { return &n.Drops }) &&
			s.Subscription.Return(ctx, []*driver.Received{m}) == nil
	})
}

// reorder changes the order between topics.
func (s *subscription) reorder(ms []*driver.Received) []*driver.Received {
	if !s.pattern || !s.conn.config.Reorder {
		return ms
	}
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ms[:max(len(ms)-1, 0)] {
		if ms[i].Topic != ms[i+1].Topic && c.random.IntN(2) == 0 {
			ms[i], ms[i+1] = ms[i+1], ms[i]
			c.counts.Reorders++
		}
	}
	return ms
}

// known returns the messages that the engine knows.
func known(ms []*driver.Received) []*driver.Received {
	return slices.DeleteFunc(slices.Clone(ms), func(m *driver.Received) bool { return m.Token == repeated{} })
}

// Ack implements driver.Subscription.
func (s *subscription) Ack(ctx context.Context, ms []*driver.Received) error {
	if err := s.conn.pass(ctx); err != nil {
		return err
	}
	ms = known(ms)
	if err := s.Subscription.Ack(ctx, ms); err != nil || !s.group {
		return err
	}
	for _, m := range ms {
		if s.conn.hit(s.conn.config.Repeat, func(n *Counts) *int { return &n.Repeats }) {
			again := *m
			again.Token = repeated{}
			again.Deliveries++
			s.mu.Lock()
			s.repeat = append(s.repeat, &again)
			if s.wake != nil {
				s.wake()
			}
			s.mu.Unlock()
		}
	}
	return nil
}

// Extend implements driver.Subscription.
func (s *subscription) Extend(ctx context.Context) error {
	if err := s.conn.pass(ctx); err != nil {
		return err
	}
	return s.Subscription.Extend(ctx)
}

// Return implements driver.Subscription.
func (s *subscription) Return(ctx context.Context, ms []*driver.Received) error {
	if err := s.conn.pass(ctx); err != nil {
		return err
	}
	return s.Subscription.Return(ctx, known(ms))
}

// Drain implements driver.Subscription.
func (s *subscription) Drain(ctx context.Context) error {
	if err := s.conn.pass(ctx); err != nil {
		return err
	}
	return s.Subscription.Drain(ctx)
}

// Lag implements driver.Subscription. It includes the messages that wait in s.
func (s *subscription) Lag(ctx context.Context) (driver.Lag, error) {
	if err := s.conn.pass(ctx); err != nil {
		return driver.Lag{}, err
	}
	lag, err := s.Subscription.Lag(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	lag.Waiting += uint64(len(s.arrived) + len(s.repeat))
	return lag, err
}

// CaughtUp implements driver.Subscription.
func (s *subscription) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	if err := s.conn.pass(ctx); err != nil {
		return false, err
	}
	done, err := s.Subscription.CaughtUp(ctx, seq)
	s.mu.Lock()
	defer s.mu.Unlock()
	return done && len(s.arrived)+len(s.repeat) == 0, err
}
