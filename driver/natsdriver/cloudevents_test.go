package natsdriver

import (
	"bytes"
	"context"
	"testing"
	"time"

	sdk "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

type placed struct {
	Order string `json:"order"`
	Total int    `json:"total"`
}

// connect returns a plain client of the server, closed when the test ends.
func (s *testServer) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// openPlaced opens a topic, stored or not.
func openPlaced(t *testing.T, bus *hark.Bus, stored bool) *hark.Topic[placed] {
	t.Helper()
	var opts []hark.TopicOption
	if stored {
		opts = append(opts, hark.Stored(hark.Retention{Durability: hark.Relaxed}))
	}
	topic, err := hark.NewTopic[placed](bus, "orders.placed", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// An event that the CloudEvents SDK writes, in binary or structured mode, arrives
// as a message with the event's attributes and data.
func TestCloudEventsSDKPublishes(t *testing.T) {
	for name, mode := range map[string]binding.Encoding{"binary": binding.EncodingBinary, "structured": binding.EncodingStructured} {
		for _, stored := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", ephemeral", true: ", stored"}[stored], func(t *testing.T) {
				s := startServer(t, withJetStream)
				ctx := testContext(t)
				topic := openPlaced(t, s.openBus(t), stored)
				type received struct {
					value                 placed
					id, key, source, kind string
					time                  time.Time
				}
				got := make(chan received, 1)
				if _, err := topic.Subscribe(func(_ context.Context, m *hark.Message[placed]) error {
					h := m.Headers()
					got <- received{m.Value, m.ID(), m.Key(), h["ce-source"], h["ce-type"], m.Time().UTC()}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				e := event.New()
				e.SetID("an id")
				e.SetSource("/shop")
				e.SetType("com.example.placed")
				e.SetTime(time.Date(2026, 11, 24, 10, 11, 12, 131415000, time.UTC))
				e.SetExtension("partitionkey", "customer-7")
				if err := e.SetData(event.ApplicationJSON, placed{"o-1", 42}); err != nil {
					t.Fatal(err)
				}
				msg := nats.NewMsg("orders.placed")
				modeCtx := binding.WithForceBinary(ctx)
				if mode == binding.EncodingStructured {
					modeCtx = binding.WithForceStructured(ctx)
				}
				var body bytes.Buffer
				header, err := sdk.WriteMsg(modeCtx, binding.ToMessage(&e), &body)
				if err != nil {
					t.Fatal(err)
				}
				if msg.Data = body.Bytes(); header != nil {
					msg.Header = header
				}
				if mode == binding.EncodingStructured { // the SDK omits the content type that the binding asks for
					msg.Header["content-type"] = []string{event.ApplicationCloudEventsJSON}
				}
				if err := s.connect(t).PublishMsg(msg); err != nil {
					t.Fatal(err)
				}
				select {
				case m := <-got:
					if want := (received{placed{"o-1", 42}, e.ID(), "customer-7", e.Source(), e.Type(), e.Time()}); m != want {
						t.Errorf("got %+v, want %+v", m, want)
					}
				case <-ctx.Done():
					t.Fatal("nothing came")
				}
			})
		}
	}
}

// A message published by hark is an event for the SDK.
func TestCloudEventsSDKReads(t *testing.T) {
	for _, stored := range []bool{false, true} {
		s := startServer(t, withJetStream)
		ctx := testContext(t)
		bus := s.openBus(t)
		topic := openPlaced(t, bus, stored)
		nc := s.connect(t)
		msgs, err := nc.SubscribeSync("orders.placed")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.FlushWithContext(ctx); err != nil {
			t.Fatal(err)
		}
		before := time.Now().Add(-time.Millisecond)
		if err := topic.Publish(ctx, placed{"o-2", 7}, hark.ID("größer 100 %"), hark.Header("ce-tenant", "blue"), hark.Header("trace", "1")); err != nil {
			t.Fatal(err)
		}
		msg, err := msgs.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m := sdk.NewMessage(msg)
		if mode := m.ReadEncoding(); mode != binding.EncodingBinary {
			t.Errorf("the SDK finds the mode %v, want binary", mode)
		}
		e, err := binding.ToEvent(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil {
			t.Errorf("the SDK finds the event invalid: %v", err)
		}
		var data placed
		if err := e.DataAs(&data); err != nil || data != (placed{"o-2", 7}) {
			t.Errorf("the SDK reads %+v, %v", data, err)
		}
		// The SDK does not undo the percent-encoding that the binding asks for.
		if e.ID() != "gr%C3%B6%C3%9Fer%20100%20%25" || e.Type() != "orders.placed" || e.Time().Before(before) || e.Extensions()["tenant"] != "blue" {
			t.Errorf("the SDK reads %v", e)
		}
		if msg.Header["trace"][0] != "1" {
			t.Errorf("headers: %v", msg.Header)
		}
	}
}

// A plain client can publish and read bare bytes.
func TestPlainClient(t *testing.T) {
	s := startServer(t, withJetStream)
	nc := s.connect(t)
	topic := openTopic(t, s.open(t), "plain", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{})
	if err := nc.Publish("plain", []byte(`{"order":"o-3"}`)); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, sub, 1)); got[0] != `{"order":"o-3"}` {
		t.Errorf("got %q", got)
	}
	msgs, err := nc.SubscribeSync("plain")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	publish(t, topic, "bare")
	if msg, err := msgs.NextMsgWithContext(testContext(t)); err != nil || string(msg.Data) != "bare" || len(msg.Header) > 0 {
		t.Errorf("got %v, %v", msg, err)
	}
}
