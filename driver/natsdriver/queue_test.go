package natsdriver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// large returns n numbers, each followed by blanks.
func large(n, size int) []string {
	all := numbered(0, n)
	for i := range all {
		all[i] += strings.Repeat(" ", size)
	}
	return all
}

// However large messages are, those that wait are bounded, whether they are sent or handed
// over, and a subscription shares the bound with the others of its connection.
func TestMaxWaiting(t *testing.T) {
	const n, size, each = 40, 100 << 10, 1 << 20
	s := startServer(t)
	var others atomic.Bool
	c := s.open(t, MaxWaiting(each, each), Listened(func(string, int) bool { return others.Load() }))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	pattern := func() driver.Subscription {
		sub, err := c.SubscribePattern(testContext(t), "other.*", driver.SubscribeConfig{Window: 10})
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	lost := uint64(0)
	for _, tt := range []struct {
		name   string
		sent   bool
		beside int // other subscriptions
	}{
		{"handed over", false, 0}, {"sent", true, 0}, {"handed over, of two", false, 1}, {"sent, of two", true, 1}, {"sent, of twenty", true, 19},
	} {
		var beside []driver.Subscription
		for range tt.beside {
			beside = append(beside, pattern())
		}
		others.Store(tt.sent)
		all := large(n, size)
		publish(t, topic, all...)
		if err := c.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
		lag, err := sub.Lag(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		room := uint64(max(each/(tt.beside+1)/(size+arrivalBytes+20), 1)) // the subject counts, too
		if want := (driver.Lag{Waiting: room, Lost: lost + n - room, Members: 1}); lag != want {
			t.Errorf("%s: got %+v, want %+v", tt.name, lag, want)
		}
		lost = lag.Lost
		if got := texts(receive(t, sub, int(lag.Waiting))); !slices.Equal(got, all[:len(got)]) {
			t.Errorf("%s: got other messages than the first %d", tt.name, len(got))
		}
		for _, sub := range beside {
			if err := sub.Close(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		others.Store(false)
		publish(t, topic, "begins a flush")
		eventually(t, "the flush", func() bool { return flushing(c, "orders") == nil })
		receive(t, sub, 1)
	}
}

// Whatever a message is large by counts, also if it is handed over.
func TestAllOfAMessageCounts(t *testing.T) {
	const each = 1 << 20
	c := startServer(t).open(t, MaxWaiting(each, each), Listened(func(string, int) bool { return false }))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	text := strings.Repeat("x", each/2)
	for name, m := range map[string]driver.Message{
		"data": {ID: "1", Data: []byte(text)}, "key": {ID: "1", Key: text, HasKey: true}, "ID": {ID: text}, "content type": {ID: "1", ContentType: text},
		"headers": {ID: "1", Headers: map[string]string{"a": text}},
	} {
		before, err := sub.Lag(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := topic.Publish(testContext(t), []*driver.Message{new(m)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
		lag, err := sub.Lag(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if lag.Waiting != 1 || lag.Lost != before.Lost+2 {
			t.Errorf("%s: got %+v after %+v, want one that waits and two more lost", name, lag, before)
		}
		receive(t, sub, 1)
	}
}

func TestMaxWaitingIsChecked(t *testing.T) {
	for _, o := range []Option{MaxWaiting(0, 1), MaxWaiting(2, 1)} {
		if _, err := makeOptions([]Option{o}); err == nil || !strings.Contains(err.Error(), "MaxWaiting") {
			t.Errorf("got %v, want an error that names the option", err)
		}
	}
}

// Messages of a pattern come on several subjects, and keep their order.
func TestOrderOfQueuedPattern(t *testing.T) {
	const n = 300
	s := startServer(t)
	c := s.open(t, MaxWaiting(1<<20, 1<<20))
	sub, err := c.SubscribePattern(testContext(t), "a.*", driver.SubscribeConfig{Window: n})
	if err != nil {
		t.Fatal(err)
	}
	nc := s.open(t).Client()
	for i, text := range numbered(0, n) {
		m := &nats.Msg{Subject: "a.b", Data: []byte(text)}
		if i%2 > 0 {
			m.Subject, m.Reply = keyedPrefix+"a.b.7", nc.NewInbox()+"."+ackToken+text
		}
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(receive(t, sub, n)); !slices.Equal(got, numbered(0, n)) {
		t.Errorf("got another order: %v", got)
	}
}

// What was sent before Flush can be received when it returns, though another goroutine
// moves it.
func TestFlushWaitsForWhatIsMoved(t *testing.T) {
	c := startServer(t).open(t, MaxWaiting(1<<20, 1<<20))
	topic := openTopic(t, c, "orders", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{}).(*subscription)
	now, cancel := context.WithCancel(testContext(t))
	cancel()
	for round := range 200 {
		publish(t, topic, numbered(0, 5)...)
		if err := c.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if rs, err := sub.Receive(now, 10); err != nil || len(rs) != 5 {
			t.Fatalf("round %d: got %d messages, %v, want 5", round, len(rs), err)
		}
	}
	if rs, err := sub.Receive(now, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("got %d messages, %v, want none", len(rs), err)
	}
}
