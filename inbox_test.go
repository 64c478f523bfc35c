package hark_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/memdriver"
)

// lagConn is a connection that calls onLag before a subscription is asked for
// its lag.
type lagConn struct {
	driver.Conn
	onLag func()
}

func (c lagConn) OpenTopic(ctx context.Context, cfg driver.TopicConfig) (driver.Topic, error) {
	topic, err := c.Conn.OpenTopic(ctx, cfg)
	return lagTopic{topic, c.onLag}, err
}

type lagTopic struct {
	driver.Topic
	onLag func()
}

func (t lagTopic) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	sub, err := t.Topic.Subscribe(ctx, cfg)
	return lagSubscription{sub, t.onLag}, err
}

type lagSubscription struct {
	driver.Subscription
	onLag func()
}

func (s lagSubscription) Lag(ctx context.Context) (driver.Lag, error) {
	s.onLag()
	return s.Subscription.Lag(ctx)
}

// gatedText waits at a gate while it is decoded.
type gatedText struct{}

type decodeGate struct{ at, open chan struct{} }

var textGate decodeGate

func (gatedText) MarshalText() ([]byte, error) { return []byte("text"), nil }

func (*gatedText) UnmarshalText([]byte) error {
	textGate.at <- struct{}{}
	<-textGate.open
	return nil
}

// A message on its way from an engine to its handler is counted wherever it is,
// even if it moves on while Stats counts.
func TestStatsMissNothingOnItsWay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []hark.TopicOption
		moves   bool // the message moves on while the engine is asked
	}{
		{"ephemeral, being decoded", nil, false},
		{"stored, being decoded", []hark.TopicOption{hark.Stored(hark.Retention{})}, false},
		{"ephemeral, handled meanwhile", nil, true},
		{"stored, handled meanwhile", []hark.TopicOption{hark.Stored(hark.Retention{})}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			textGate = decodeGate{make(chan struct{}), make(chan struct{})}
			begun, finish := make(chan struct{}), make(chan struct{})
			move := func() {}
			bus := hark.Over(lagConn{memdriver.New().Connect(), func() { move() }})
			topic, err := hark.NewTopic[gatedText](bus, "texts", tt.options...)
			if err != nil {
				t.Fatal(err)
			}
			sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[gatedText]) error {
				close(begun)
				<-finish
				return nil
			})
			mustPublish(t, topic, gatedText{})
			<-textGate.at
			if tt.moves {
				move = func() {
					move = func() {}
					close(textGate.open)
					<-begun
				}
			}
			s := sub.Stats()
			if n := s.Waiting + uint64(s.InFlight); n == 0 || n > 1 && !tt.moves {
				t.Errorf("%d waiting, %d in flight, want one in all", s.Waiting, s.InFlight)
			}
			if !tt.moves {
				close(textGate.open)
			}
			close(finish)
			closeBus(t, bus)
			if s := sub.Stats(); s.Waiting != 0 || s.Delivered != 1 {
				t.Errorf("at the end: %d waiting, %d delivered", s.Waiting, s.Delivered)
			}
		})
	}
}

// anewConn is a connection to an engine that forgets everything when it is started
// anew, and numbers what it stores from 1 again.
type anewConn struct {
	driver.Conn
	later   driver.Conn     // the engine after its start
	restart context.Context // ends when the engine is started anew
	gate    chan struct{}   // closed when messages may arrive again
}

func (c *anewConn) OpenTopic(ctx context.Context, cfg driver.TopicConfig) (driver.Topic, error) {
	before, err := c.Conn.OpenTopic(ctx, cfg)
	if err != nil {
		return nil, err
	}
	later, err := c.later.OpenTopic(ctx, cfg)
	return &anewTopic{before, later, c}, err
}

type anewTopic struct {
	driver.Topic
	later driver.Topic
	conn  *anewConn
}

func (t *anewTopic) now() driver.Topic {
	if t.conn.restart.Err() != nil {
		return t.later
	}
	return t.Topic
}

func (t *anewTopic) Publish(ctx context.Context, ms []*driver.Message) error {
	return t.now().Publish(ctx, ms)
}

func (t *anewTopic) Stats(ctx context.Context) (driver.TopicStats, error) { return t.now().Stats(ctx) }

func (t *anewTopic) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	before, err := t.Topic.Subscribe(ctx, cfg)
	if err != nil {
		return nil, err
	}
	later, err := t.later.Subscribe(ctx, cfg)
	return &anewSubscription{before, later, t.conn}, err
}

type anewSubscription struct {
	driver.Subscription
	later driver.Subscription
	conn  *anewConn
}

func (s *anewSubscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	if s.conn.restart.Err() == nil {
		before, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.conn.restart, cancel)()
		if ms, err := s.Subscription.Receive(before, most); err == nil || s.conn.restart.Err() == nil {
			return ms, err
		}
	}
	select {
	case <-s.conn.gate:
		return s.later.Receive(ctx, most)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *anewSubscription) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	if s.conn.restart.Err() == nil {
		return s.Subscription.CaughtUp(ctx, seq)
	}
	return s.later.CaughtUp(ctx, seq)
}

// Higher sequences, received from a topic before its engine forgot it, do not pass
// for what is stored in it now.
func TestSettleAfterTopicIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		restart, begin := context.WithCancel(t.Context())
		conn := &anewConn{memdriver.New().Connect(), memdriver.New().Connect(), restart, make(chan struct{})}
		bus := hark.Over(conn)
		topic, err := hark.NewTopic[int](bus, "numbers", hark.Stored(hark.Retention{}))
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			got = append(got, m.Value)
			return nil
		})
		settle := func() {
			if err := bus.Settle(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for i := range 3 {
			mustPublish(t, topic, i)
		}
		settle()
		begin()
		mustPublish(t, topic, 3)
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			settle()
		}()
		synctest.Wait()
		select {
		case <-settled:
			t.Errorf("settled with %v, and 3 has not arrived", got)
		default:
		}
		close(conn.gate)
		<-settled
		if !slices.Equal(got, []int{0, 1, 2, 3}) {
			t.Errorf("settled with %v", got)
		}
		closeBus(t, bus)
	})
}

// brokenConn is a connection whose subscriptions return what receive does, after
// their first message.
type brokenConn struct {
	driver.Conn
	receive func(context.Context) error
}

func (c brokenConn) OpenTopic(ctx context.Context, cfg driver.TopicConfig) (driver.Topic, error) {
	topic, err := c.Conn.OpenTopic(ctx, cfg)
	return brokenTopic{topic, c.receive}, err
}

type brokenTopic struct {
	driver.Topic
	receive func(context.Context) error
}

func (t brokenTopic) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	sub, err := t.Topic.Subscribe(ctx, cfg)
	return &brokenSubscription{Subscription: sub, receive: t.receive}, err
}

type brokenSubscription struct {
	driver.Subscription
	receive func(context.Context) error
	begun   bool // used only by the caller of Receive
}

func (s *brokenSubscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	if s.begun {
		return nil, s.receive(ctx)
	}
	s.begun = true
	return s.Subscription.Receive(ctx, 1)
}

// A loop with UntilNow does not pass off a part of what is stored as all of it, when its
// subscription is lost (ITR-6) or its bus closed (ITR-2).
func TestUntilNowWithoutTheRest(t *testing.T) {
	lost := errors.New("the topic is gone")
	for _, tt := range []struct {
		name    string
		receive func(context.Context) error
		closes  bool
		want    error
	}{
		{"lost", func(context.Context) error { return lost }, false, lost},
		{"closed", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, true, hark.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bus := hark.Over(brokenConn{memdriver.New().Connect(), tt.receive})
			topic, err := hark.NewTopic[int](bus, "numbers", hark.Stored(hark.Retention{}))
			if err != nil {
				t.Fatal(err)
			}
			mustPublish(t, topic, 1)
			mustPublish(t, topic, 2)
			var got []int
			var last error
			closed := make(chan error, 1)
			for m, err := range topic.Messages(t.Context(), hark.FromStart(), hark.UntilNow()) {
				if last = err; err == nil {
					got = append(got, m.Value)
				}
				if tt.closes && err == nil {
					over, cancel := context.WithCancel(t.Context())
					cancel()
					go func() { closed <- bus.Close(over) }()
				}
			}
			if !tt.closes {
				closed <- bus.Close(t.Context())
			}
			<-closed
			if !slices.Equal(got, []int{1}) || !errors.Is(last, tt.want) {
				t.Errorf("got %v and the error %v, want [1] and %v", got, last, tt.want)
			}
		})
	}
}
