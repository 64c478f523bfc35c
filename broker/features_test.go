package broker

import (
	"errors"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestFeaturesForUsers checks over NATS the permissions that docs/security.md lists for
// each kind of object, with a user who is limited to some topics and one who may
// publish and subscribe to everything.
func TestFeaturesForUsers(t *testing.T) {
	b := start(t, config(t, `
users:
  - {name: some, token: "`+HashToken("secret-some")+`", publish: [orders.stored.dead, ask], subscribe: [orders.stored, live.>]}
  - {name: full, token: "`+HashToken("secret-full")+`", publish: ">", subscribe: ">"}
topics: [{name: orders.stored}, {name: orders.stored.dead}]
`))
	some, full := dial(t, b, "some:secret-some@"), dial(t, b, "full:secret-full@")
	ctx := testContext(t)
	shared := []struct {
		what string
		try  func(c *natsdriver.Conn) error
	}{
		{"delay", func(c *natsdriver.Conn) error {
			topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "orders.stored.dead", Stored: &driver.StoredConfig{Existing: true}})
			if err != nil {
				t.Fatal(err)
			}
			m := keyed(1, "", `"later"`)
			m.Due = time.Now().Add(time.Hour)
			return topic.Publish(ctx, []*driver.Message{m})
		}},
		{"channel", func(c *natsdriver.Conn) error {
			_, err := c.OpenChan(ctx, driver.ChanConfig{Name: "jobs", Capacity: 1, Durability: driver.DurableRelaxed})
			return err
		}},
		{"value", func(c *natsdriver.Conn) error {
			_, err := c.OpenValue(ctx, "v", []byte("1"))
			return err
		}},
		{"notifications and latches", func(c *natsdriver.Conn) error {
			err := c.Listen(ctx, func(driver.Signal) int { return 0 })
			if err == nil {
				err = c.Latch(ctx, "ready", true)
			}
			return err
		}},
		{"a topic that is not declared", func(c *natsdriver.Conn) error {
			_, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "new", Stored: &driver.StoredConfig{Durability: driver.DurableRelaxed}})
			return err
		}},
	}
	for _, s := range shared {
		if err := s.try(full); err != nil {
			t.Errorf("%s, for who may do everything: %v", s.what, err)
		}
		if err := s.try(some); !errors.Is(err, natsdriver.ErrNotAllowed) && !errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("%s, for a user of some topics: %v", s.what, err)
		}
	}

	group, err := storedTopic(t, some, "orders.stored").Subscribe(ctx, driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	publishTo(t, storedTopic(t, full, "orders.stored"), keyed(2, "k", `"a"`))
	if err := group.Ack(ctx, receive(t, group, 1)); err != nil {
		t.Error(err)
	}
	if _, err := group.Lag(ctx); err != nil {
		t.Error(err)
	}
	publishTo(t, storedTopic(t, some, "orders.stored.dead"), keyed(3, "k", `"dead"`))
	listen(t, some, "live.*")
	answers, err := full.Respond(ctx, "ask", 1)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		calls, err := answers.Receive(ctx, 1)
		if err == nil {
			err = calls[0].Answer(ctx, &driver.Message{Data: []byte("yes")})
		}
		if err != nil {
			t.Errorf("answer: %v", err)
		}
	}()
	if m, err := some.Request(ctx, "ask", &driver.Message{Data: []byte("?")}); err != nil || string(m.Data) != "yes" {
		t.Errorf("request: %v", err)
	}
}
