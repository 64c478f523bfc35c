package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// shortLease is a lease for tests that outlast it.
const shortLease = 2 * time.Second

// TestLeasesOfSlowClient has a member of a group over HTTP that reads one event and then
// nothing for longer than the lease. Nothing that waits for it is delivered again.
func TestLeasesOfSlowClient(t *testing.T) {
	t.Parallel()
	s := start(t, config(t, "topics: [{name: orders, durability: memory}]"))
	b := startBesideWith(t, s, shortLease.String(), "topics: [{name: orders, durability: memory}]")
	b.gateway.timeout = patience // it is not to be cut off
	const n = 160                // more than the connection and the window hold
	fill := strings.Repeat("x", 256<<10)
	orders := storedTopic(t, s.conn, "orders")
	for i := range n {
		publishTo(t, orders, keyed(i, "", fmt.Sprintf(`{"n":%d,"fill":"%s"}`, i, fill)))
	}
	seen := map[uint64]bool{}
	note := func(seq uint64, deliveries int) {
		if deliveries > 1 || seen[seq] {
			t.Errorf("message %d was delivered again (delivery %d)", seq, deliveries)
		}
		seen[seq] = true
	}
	slow := newWebClient(t, b).follow("orders/events?group=g&from=start")
	next := func() {
		e, err := slow.next()
		if err != nil {
			t.Fatal(err)
		}
		note(e.data.Seq, e.data.Deliveries)
	}
	next()
	other, err := natsdriver.Open(testContext(t), "nats://"+s.Addr().String(), natsdriver.Lease(shortLease))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(testContext(t))
	quick, err := storedTopic(t, other, "orders").Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", Window: n})
	if err != nil {
		t.Fatal(err)
	}
	defer keepLeases(other, quick, slog.New(slog.DiscardHandler))()
	ctx, cancel := context.WithTimeout(testContext(t), 5*shortLease/2)
	defer cancel()
	for {
		ms, err := quick.Receive(ctx, n)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			note(m.Seq, m.Deliveries)
		}
		if err := quick.Ack(testContext(t), ms); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) > n-groupWindow {
		t.Fatalf("%d of %d messages have been received, so nothing waits for the slow client", len(seen), n)
	}
	for len(seen) < n {
		next()
	}
}

// TestLeasesOfStuckRoute has a route whose target accepts nothing for longer than the
// lease. What it has is not delivered again.
func TestLeasesOfStuckRoute(t *testing.T) {
	t.Parallel()
	s := start(t, config(t, ""))
	b := startBesideWith(t, s, shortLease.String(), stuckTopics+"routes: [{name: r, from: in, to: full}]")
	fillUp(t, s)
	publishTo(t, storedTopic(t, s.conn, "in"), &driver.Message{ID: "without-key", Data: []byte(`{}`)})
	js := jetStreamOf(t, connectTo(t, s.Addr().String()))
	for until := time.Now().Add(5 * shortLease / 2); time.Now().Before(until); awaitTick(t) {
		for info := range js.Consumers("hark-topic-in") {
			if info.NumRedelivered > 0 {
				t.Fatal("the message was delivered again")
			}
		}
	}
	if g, err := b.conn.GroupInfo(testContext(t), "in", routesGroup); err != nil || g.InFlight != 1 {
		t.Errorf("got %+v, %v, want one message in flight", g, err)
	}
	if _, err := s.conn.PurgeTopic(testContext(t), "full", 0, 0); err != nil { // there is room for it
		t.Fatal(err)
	}
}

// TestPollOfGroupEnds polls a busy topic with a filter that nothing matches, or only the
// first message.
func TestPollOfGroupEnds(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders, durability: memory}]"))
	web := newWebClient(t, b)
	orders := storedTopic(t, dial(t, b, ""), "orders")
	ctx, stop := context.WithCancel(t.Context())
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		ms := make([]*driver.Message, 256)
		for i := 0; ctx.Err() == nil; {
			for j := range ms {
				ms[j] = keyed(i, "", fmt.Sprintf(`{"n":%d}`, i))
				i++
			}
			_ = orders.Publish(ctx, ms)
		}
	}()
	defer func() { stop(); <-flooded }()
	for filter, want := range map[string]int{"data.n < 0": 0, "data.n == 0": 1} {
		lines, _ := web.poll(fmt.Sprintf("orders/events?group=g%d&from=start&wait=1s&where=%s", want, url.QueryEscape(filter)))
		if len(lines) != want {
			t.Errorf("%s: got %d events, want %d", filter, len(lines), want)
		}
	}
}

// TestPingsOfFilteredMember has a member of a group over a WebSocket whose filter nothing
// matches. The broker does not wait for its answer to a ping for each window of messages.
func TestPingsOfFilteredMember(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders, durability: memory}]"))
	orders := storedTopic(t, b.conn, "orders")
	const n = 1000
	for i := range n {
		publishTo(t, orders, keyed(i, "", `{"n":1}`))
	}
	var pings atomic.Int64
	conn, _, err := websocket.Dial(testContext(t), "ws://"+b.HTTPAddr().String()+"/v1/topics/orders/events?group=g&from=start&where="+url.QueryEscape("data.n < 0"), &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.CloseRead(testContext(t)) // it answers pings
	for ctx := testContext(t); ; awaitTick(t) {
		g, err := b.conn.GroupInfo(ctx, "orders", "g")
		if err != nil {
			t.Fatal(err)
		}
		if g.Waiting == 0 && g.InFlight == 0 {
			break
		}
	}
	if pings.Load() > 2 {
		t.Errorf("%d pings for %d messages", pings.Load(), n)
	}
}
