package hark_test

import (
	"context"
	"testing"

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
