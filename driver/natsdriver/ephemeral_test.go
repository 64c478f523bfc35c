package natsdriver

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

func TestEphemeral(t *testing.T) {
	s := startServer(t)
	pub, sub := s.open(t), s.open(t)
	out, in := openTopic(t, pub, "orders.placed", nil), openTopic(t, sub, "orders.placed", nil)
	all := subscribe(t, in, driver.SubscribeConfig{})
	pattern, err := sub.SubscribePattern(testContext(t), "orders.*", driver.SubscribeConfig{Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, out, numbered(0, 5)...)
	for name, s := range map[string]driver.Subscription{"plain": all, "pattern": pattern} {
		rs := receive(t, s, 5)
		if got := texts(rs); !slices.Equal(got, numbered(0, 5)) {
			t.Errorf("%s: got %v", name, got)
		}
		if rs[0].Topic != "orders.placed" || rs[0].Seq != 0 || rs[0].Deliveries != 1 {
			t.Errorf("%s: got %+v", name, rs[0])
		}
	}
}

// A message that nobody listens to is not sent, but is refused exactly as if it
// were.
func TestListened(t *testing.T) {
	s := startServer(t)
	var listened atomic.Bool
	c := s.open(t, Listened(func(subject string, own int) bool {
		if subject != "orders" || own != 0 {
			t.Errorf("asked for %s beside %d", subject, own)
		}
		return listened.Load()
	}))
	topic := openTopic(t, c, "orders", nil)
	sub := subscribe(t, openTopic(t, s.open(t), "orders", nil), driver.SubscribeConfig{})
	publish(t, topic, "not sent")
	for _, sent := range []bool{false, true} {
		listened.Store(sent)
		var some driver.PartialError
		err := topic.Publish(testContext(t), []*driver.Message{{Headers: map[string]string{"Nats-Msg-Id": "1"}}})
		if !errors.As(err, &some) || !strings.Contains(err.Error(), "are reserved for the server") {
			t.Errorf("sent %v: got %v, want the header to be refused", sent, err)
		}
	}
	publish(t, topic, "sent")
	if got := texts(receive(t, sub, 1)); !slices.Equal(got, []string{"sent"}) {
		t.Errorf("got %v, want what was sent alone", got)
	}
}

func TestEphemeralGroup(t *testing.T) {
	s := startServer(t)
	topic := openTopic(t, s.open(t), "jobs", nil)
	members := []driver.Subscription{
		subscribe(t, topic, driver.SubscribeConfig{Group: "a b%"}), subscribe(t, topic, driver.SubscribeConfig{Group: "a b%"}),
	}
	const n = 200
	publish(t, topic, numbered(0, n)...)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			for {
				rs, err := m.Receive(ctx, 10)
				if err != nil {
					return
				}
				mu.Lock()
				if got = append(got, texts(rs)...); len(got) >= n {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(got)
	if want := numbered(0, n); len(got) != n || len(slices.Compact(got)) != len(want) {
		t.Errorf("got %d messages, %d different, want %d", len(got), len(slices.Compact(got)), n)
	}
}

func TestWindowDropsTheNewestAndCounts(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	topic := openTopic(t, c, "t", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{Window: 10})
	publish(t, topic, numbered(0, 25)...)
	if err := c.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	lag, err := sub.Lag(testContext(t))
	if want := (driver.Lag{Waiting: 10, Lost: 15, Members: 1}); err != nil || lag != want {
		t.Errorf("got %+v, %v, want %+v", lag, err, want)
	}
	if got := texts(receive(t, sub, 10)); !slices.Equal(got, numbered(0, 10)) {
		t.Errorf("got %v", got)
	}
	if err := sub.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	if lag, _ := sub.Lag(testContext(t)); lag.Lost != 15 {
		t.Errorf("after Close: got %+v", lag)
	}
}

func TestDrainAndCloseOfEphemeral(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	topic := openTopic(t, c, "t", nil)
	drained, closed := subscribe(t, topic, driver.SubscribeConfig{}), subscribe(t, topic, driver.SubscribeConfig{})
	publish(t, topic, numbered(0, 100)...)
	if err := drained.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	publish(t, topic, "late")
	if err := c.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, drained, 100)); !slices.Equal(got, numbered(0, 100)) {
		t.Errorf("got %v", got)
	}
	for _, sub := range []driver.Subscription{drained, closed} {
		if _, err := sub.Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
			t.Errorf("got %v, want ErrEnded", err)
		}
	}
}

// A pattern for everything must not receive requests, replies and the server's own
// messages.
func TestPatternsGetTopicsOnly(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	sub, err := c.SubscribePattern(testContext(t), ">", driver.SubscribeConfig{Window: 100})
	if err != nil {
		t.Fatal(err)
	}
	nc := c.Client()
	for _, m := range []*nats.Msg{
		{Subject: "quote", Reply: nc.NewInbox()},
		{Subject: nc.NewInbox()},
		{Subject: "$JS.EVENT.x"},
		{Subject: "stored", Reply: nc.NewInbox() + "." + ackToken + "1"},
		{Subject: keyedPrefix + "a.stored.7", Reply: nc.NewInbox() + "." + ackToken + "2"},
		{Subject: "plain"},
	} {
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := sub.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		rs, err := sub.Receive(testContext(t), 100)
		if err != nil {
			break
		}
		for _, r := range rs {
			got = append(got, r.Topic)
		}
	}
	// The message with a key arrived on both subjects of the pattern, but counts
	// once.
	if want := []string{"stored", "a.stored", "plain"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTooLarge(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	topic := openTopic(t, c, "t", nil)
	err := topic.Publish(testContext(t), []*driver.Message{{Data: make([]byte, c.Info().MaxPayload), Headers: map[string]string{"a": "b"}, Bare: true}})
	if !errors.Is(err, driver.ErrFull) || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("got %v, want ErrFull that names the limit", err)
	}
}

func TestPublishWaitsForTheConnection(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	type change struct {
		up     bool
		reason error
	}
	changes := make(chan change, 10)
	c.Watch(func(up bool, reason error) { changes <- change{up, reason} })
	topic := openTopic(t, c, "t", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{})

	s.stop()
	if ch := <-changes; ch.up || ch.reason == nil {
		t.Errorf("got %+v, want down with a reason", ch)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if err := topic.Publish(ctx, bare("lost")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	published := make(chan error, 1)
	go func() { published <- topic.Publish(testContext(t), bare("kept")) }()
	s.start()
	if ch := <-changes; !ch.up || ch.reason != nil {
		t.Errorf("got %+v, want up", ch)
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, sub, 1)); got[0] != "kept" {
		t.Errorf("got %v", got)
	}
}

func TestCloseWhileDisconnected(t *testing.T) {
	s := startServer(t)
	c, err := Open(testContext(t), s.url())
	if err != nil {
		t.Fatal(err)
	}
	down := make(chan struct{})
	c.Watch(func(bool, error) { close(down) })
	topic := openTopic(t, c, "t", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{})
	s.stop()
	<-down
	publishing := make(chan error, 1)
	go func() { publishing <- topic.Publish(context.Background(), bare("x")) }()
	ctx := testContext(t)
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := c.Close(ctx); err != nil {
		t.Errorf("close again: %v", err)
	}
	if err := <-publishing; !errors.Is(err, driver.ErrClosed) {
		t.Errorf("publish: got %v, want ErrClosed", err)
	}
	if _, err := sub.Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("receive: got %v, want ErrEnded", err)
	}
	if _, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "u"}); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("open: got %v, want ErrClosed", err)
	}
}

func TestNewLeavesTheClientAlone(t *testing.T) {
	s := startServer(t)
	nc, err := nats.Connect(s.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c, err := New(testContext(t), nc)
	if err != nil {
		t.Fatal(err)
	}
	before := nc.NumSubscriptions()
	topic := openTopic(t, c, "t", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{})
	publish(t, topic, "x")
	receive(t, sub, 1)
	closeConn(t, c)
	if !nc.IsConnected() || nc.NumSubscriptions() != before {
		t.Errorf("connected %v with %d subscriptions, want true and %d", nc.IsConnected(), nc.NumSubscriptions(), before)
	}
	if err := topic.Publish(testContext(t), bare("x")); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("publish: got %v, want ErrClosed", err)
	}
}

func TestWithoutJetStream(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	if info := c.Info(); info.Has(driver.Stored) || info.Server == "" || info.MaxPayload != 1<<20 {
		t.Errorf("got %+v", info)
	}
	_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{}})
	if !errors.Is(err, driver.ErrUnsupported) {
		t.Fatalf("got %v, want ErrUnsupported", err)
	}
	for _, part := range []string{"nats", c.Info().Server, "stored"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // clients can connect, and nobody accepts or says anything
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, "nats://u:secret@"+silent.Addr().String()); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want the end of the context", err)
	}
	if _, err := Open(testContext(t), "nats://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v, want one that names the server", err)
	}
}
