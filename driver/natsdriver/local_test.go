package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// openLocal opens a connection that is told that others listen if they do, and when the
// test says so.
func openLocal(t *testing.T, s *testServer) (c *Conn, others *atomic.Bool) {
	t.Helper()
	others = new(atomic.Bool)
	account := s.srv.GlobalAccount()
	return s.open(t, Listened(func(subject string, own int) bool { return others.Load() || account.Interest(subject) != own })), others
}

// sent returns how many messages a connection has sent to the server.
func sent(c *Conn) uint64 { return c.nc.Stats().OutMsgs }

// openDirect returns a topic whose messages are handed over to its subscription.
func openDirect(t *testing.T, c *Conn, cfg driver.SubscribeConfig) (driver.Topic, *subscription) {
	t.Helper()
	topic := openTopic(t, c, "orders", nil)
	sub := subscribe(t, topic, cfg).(*subscription)
	publish(t, topic, "first")
	eventually(t, "the flush", func() bool { return flushing(c, "orders") == nil })
	receive(t, sub, 1)
	return topic, sub
}

// flushing returns what is closed when the flush of a topic ends; nil if none is under
// way.
func flushing(c *Conn, topic string) chan struct{} {
	c.local.mu.RLock()
	defer c.local.mu.RUnlock()
	t := c.local.topics[topic]
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flushed
}

// holdFlush makes a topic park its messages until release is called.
func holdFlush(c *Conn, topic string) (release func()) {
	t := c.local.topics[topic]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flushed = make(chan struct{})
	c.local.flushes.Store(t.flushed, nil)
	return func() { c.local.finishFlush(t) }
}

func TestLocalDelivery(t *testing.T) {
	c, others := openLocal(t, startServer(t))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	second := subscribe(t, topic, driver.SubscribeConfig{})
	publish(t, topic, "second")
	eventually(t, "the flush", func() bool { return flushing(c, "orders") == nil })
	before := sent(c)
	data := []byte("handed over")
	if err := topic.Publish(testContext(t), []*driver.Message{{Data: data, Bare: true}}); err != nil {
		t.Fatal(err)
	}
	copy(data, "overwritten")
	if n := sent(c) - before; n != 0 {
		t.Errorf("%d messages were sent, want none", n)
	}
	others.Store(true)
	publish(t, topic, "sent")
	if n := sent(c) - before; n != 1 {
		t.Errorf("%d messages were sent, want 1", n)
	}
	a, b := receive(t, sub, 3), receive(t, second, 3)
	for _, rs := range [][]*driver.Received{a, b} {
		if got := texts(rs); !slices.Equal(got, []string{"second", "handed over", "sent"}) {
			t.Errorf("got %q", got)
		}
	}
	a[1].Data[0] = 'x'
	if string(b[1].Data) != "handed over" {
		t.Error("two subscriptions share the data of a message")
	}
}

// What is handed over is refused exactly as what is sent.
func TestLocalDeliveryRefuses(t *testing.T) {
	c, others := openLocal(t, startServer(t))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	for _, send := range []bool{false, true} {
		others.Store(send)
		err := topic.Publish(testContext(t), []*driver.Message{{Data: make([]byte, c.Info().MaxPayload+1), Bare: true}})
		if !errors.Is(err, driver.ErrTooLarge) {
			t.Errorf("sent %v, too large: got %v", send, err)
		}
		err = topic.Publish(testContext(t), []*driver.Message{{Headers: map[string]string{"Nats-Msg-Id": "1"}}})
		if err == nil || !strings.Contains(err.Error(), "are reserved for the server") {
			t.Errorf("sent %v, header: got %v", send, err)
		}
		if err := topic.Publish(testContext(t), []*driver.Message{{Due: time.Now().Add(time.Hour)}}); !errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("sent %v, delayed: got %v", send, err)
		}
	}
	others.Store(false)
	closeConn(t, c)
	if err := topic.Publish(testContext(t), bare("x")); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if rs, err := sub.Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("got %v, %v, want ErrEnded", rs, err)
	}
}

// FuzzLocalDelivery publishes a message once through the server and once not.
func FuzzLocalDelivery(f *testing.F) {
	f.Add("id", "key", true, int64(1), int64(0), "application/json", []byte(`{}`), "name", "value", false, false)
	f.Add("", "", false, int64(0), int64(5), "", []byte(nil), "", "", true, true)
	f.Add("a b%ä\n", "\x00", true, int64(-1), int64(1<<62), "text/plain; charset=utf-8", []byte("x"), "ce-Subject", " ä\r\n", false, true)
	f.Add("1", "", true, int64(1), int64(0), "application/cloudevents+json", []byte(`{"specversion":"1.0","id":"2","data":1}`), "content-type", "application/cloudevents+json", true, false)
	f.Add("1", "", false, int64(1), int64(0), "", []byte(`x`), "ce-type", "other", false, true)
	f.Add("1", "", false, int64(1), int64(0), "", []byte(`x`), "hark-encoded", "x", true, true)
	f.Add("1", "", false, int64(1), int64(0), "", []byte(`x`), `"`, "x", true, false)
	for _, id := range []string{"1", `"a ä\"%`, "\xff"} { // without headers of its own
		f.Add(id, id, true, int64(1), int64(0), "application/json", []byte(`{}`), "", "", false, true)
		f.Add(id, "", false, int64(0), int64(0), "", []byte(nil), "", "", false, false)
		f.Add("1", id, true, int64(1), int64(0), "", []byte(nil), "", "", false, true)
		f.Add("1", "", false, int64(1), int64(0), id, []byte(nil), "", "", false, true)
		f.Add(id, id, true, int64(1), int64(7), "", []byte(nil), "", "", false, true)
		f.Add(id, id, true, int64(1), int64(0), "", []byte(nil), "", "", true, true)
	}
	type side struct {
		conn   *Conn
		others *atomic.Bool
		topic  driver.Topic
		sub    driver.Subscription
	}
	topicName := func(attributes bool) string { return "orders." + strconv.FormatBool(attributes) }
	s := startServer(f)
	sides := map[bool]*side{}
	for _, attributes := range []bool{false, true} {
		l := &side{others: new(atomic.Bool)}
		opts := []Option{Listened(func(string, int) bool { return l.others.Load() }), Source("/source")}
		if attributes {
			opts = append(opts, Attributes())
		}
		var err error
		if l.conn, err = Open(f.Context(), s.url(), opts...); err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = l.conn.Close(context.Background()) })
		if l.topic, err = l.conn.OpenTopic(f.Context(), driver.TopicConfig{Name: topicName(attributes)}); err == nil {
			l.sub, err = l.topic.Subscribe(f.Context(), driver.SubscribeConfig{Window: 10})
		}
		if err != nil {
			f.Fatal(err)
		}
		sides[attributes] = l
	}
	f.Fuzz(func(t *testing.T, id, key string, hasKey bool, at, expires int64, contentType string, data []byte, name, value string, bare, attributes bool) {
		l := sides[attributes]
		m := driver.Message{ID: id, Key: key, HasKey: hasKey, ContentType: contentType, Data: data, Bare: bare}
		if at != 0 {
			m.Time = time.Unix(0, at)
		}
		if expires != 0 {
			m.Expires = time.Unix(expires, 7)
		}
		if name != "" {
			m.Headers = map[string]string{name: value, "other": value}
		}
		var got [2]*driver.Received
		var errs [2]error
		for i, others := range []bool{true, false} {
			l.others.Store(others)
			if !others {
				publish(t, l.topic, "begins a flush")
				receive(t, l.sub, 1)
				eventually(t, "the flush", func() bool { return flushing(l.conn, topicName(attributes)) == nil })
			}
			before := sent(l.conn)
			if errs[i] = l.topic.Publish(t.Context(), []*driver.Message{&m}); errs[i] != nil {
				continue
			}
			if went := sent(l.conn) > before; went != others {
				t.Fatalf("sent to the server: got %v, want %v", went, others)
			}
			got[i] = receive(t, l.sub, 1)[0]
			if id == "" {
				got[i].ID, got[i].Time = "", time.Time{} // made up for each
			}
		}
		if fmt.Sprint(errs[0]) != fmt.Sprint(errs[1]) {
			t.Fatalf("sent: %v\nhanded over: %v", errs[0], errs[1])
		}
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("sent:\n%#v\nhanded over:\n%#v", got[0], got[1])
		}
	})
}

// Messages that are handed over do not overtake those that were sent, and all
// subscriptions see the same order, while others come and go.
func TestLocalDeliveryOrder(t *testing.T) {
	const publishers, n = 3, 400
	c, others := openLocal(t, startServer(t))
	topic := openTopic(t, c, "orders", nil)
	subs := []driver.Subscription{
		subscribe(t, topic, driver.SubscribeConfig{Window: publishers * n}), subscribe(t, topic, driver.SubscribeConfig{Window: publishers * n}),
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var busy, beside sync.WaitGroup
	beside.Go(func() { // subscriptions that come and go
		for ctx.Err() == nil {
			s, err := topic.Subscribe(ctx, driver.SubscribeConfig{Window: 10})
			if err == nil {
				err = s.Close(ctx)
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for p := range publishers {
		busy.Go(func() {
			for i := range n {
				if rand.IntN(4) == 0 {
					others.Store(rand.IntN(2) == 0)
				}
				if err := topic.Publish(ctx, bare(strconv.Itoa(p)+" "+strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	busy.Wait()
	cancel()
	beside.Wait()
	first := texts(receive(t, subs[0], publishers*n))
	if second := texts(receive(t, subs[1], publishers*n)); !slices.Equal(first, second) {
		t.Error("two subscriptions saw different orders")
	}
	next := [publishers]int{}
	for _, text := range first {
		var p, i int
		if _, err := fmt.Sscan(text, &p, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[p] {
			t.Fatalf("publisher %d: got message %d, want %d", p, i, next[p])
		}
		next[p]++
	}
}

// A subscription that begins while a topic is published to gets what is published after
// Subscribe has returned, and what it gets of the rest comes in order, too.
func TestLocalDeliveryToNewSubscriptions(t *testing.T) {
	const n, rounds = 200, 10
	c, others := openLocal(t, startServer(t))
	topic := openTopic(t, c, "orders", nil)
	for range rounds {
		var published atomic.Int64
		var busy sync.WaitGroup
		busy.Go(func() {
			for i := range n {
				others.Store(i%8 == 0)
				if err := topic.Publish(testContext(t), bare(strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
				published.Store(int64(i + 1))
			}
		})
		sub := subscribe(t, topic, driver.SubscribeConfig{})
		promised := int(published.Load()) // one more may have been published, and not counted
		busy.Wait()
		publish(t, topic, strconv.Itoa(n))
		for last := -1; last < n; {
			got, err := strconv.Atoi(string(receive(t, sub, 1)[0].Data))
			if err != nil {
				t.Fatal(err)
			}
			if got <= last || got > max(last, promised)+1 {
				t.Fatalf("got message %d after %d, want all from %d on in order", got, last, promised+1)
			}
			last = got
		}
		if err := sub.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocalDeliveryDropsTheNewestAndCounts(t *testing.T) {
	c, others := openLocal(t, startServer(t))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{Window: 10})
	for _, parked := range []bool{false, true} {
		release := func() {}
		before, err := sub.Lag(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if parked {
			release = holdFlush(c, "orders")
		}
		publish(t, topic, numbered(0, 25)...)
		for range 2 {
			lag, err := sub.Lag(testContext(t))
			if want := (driver.Lag{Waiting: 10, Lost: before.Lost + 15, Members: 1}); err != nil || lag != want {
				t.Errorf("parked %v: got %+v, %v, want %+v", parked, lag, err, want)
			}
			release()
			release = func() {}
		}
		if got := texts(receive(t, sub, 10)); !slices.Equal(got, numbered(0, 10)) {
			t.Errorf("parked %v: got %v", parked, got)
		}
	}
	// What is parked takes room that what the server sends meanwhile does not have.
	release := holdFlush(c, "orders")
	publish(t, topic, numbered(0, 8)...)
	for range 5 {
		if err := c.nc.Publish("orders", []byte("other")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	release()
	if got, want := texts(receive(t, sub, 10)), append(slices.Repeat([]string{"other"}, 2), numbered(0, 8)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if lag, err := sub.Lag(testContext(t)); err != nil || lag.Lost != 33 || lag.Waiting != 0 {
		t.Errorf("got %+v, %v, want 33 lost", lag, err)
	}
	others.Store(true)
	if err := sub.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if lag, _ := sub.Lag(testContext(t)); lag.Lost != 33 {
		t.Errorf("after Close: got %+v", lag)
	}
}

// A message that must be sent waits for those that are parked, in its context.
func TestSendingWaitsForWhatIsParked(t *testing.T) {
	c, others := openLocal(t, startServer(t))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	release := holdFlush(c, "orders")
	publish(t, topic, "parked")
	if ok, err := sub.CaughtUp(testContext(t), 0); ok || err != nil {
		t.Errorf("caught up: got %v, %v, want false while a message is parked", ok, err)
	}
	others.Store(true)
	ended, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := topic.Publish(ended, bare("never")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	done := make(chan error, 1)
	go func() { done <- topic.Publish(testContext(t), bare("sent")) }()
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, sub, 2)); !slices.Equal(got, []string{"parked", "sent"}) {
		t.Errorf("got %q", got)
	}
}

// What was published before Flush can be received when it returns.
func TestFlushWaitsForWhatIsParked(t *testing.T) {
	c, _ := openLocal(t, startServer(t))
	topic, sub := openDirect(t, c, driver.SubscribeConfig{})
	release := holdFlush(c, "orders")
	publish(t, topic, "parked")
	ended, cancel := context.WithTimeout(testContext(t), time.Millisecond)
	defer cancel()
	if err := c.Flush(ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Flush(testContext(t)) }()
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	now, cancel := context.WithCancel(testContext(t))
	cancel()
	if rs, err := sub.Receive(now, 1); err != nil || len(rs) != 1 {
		t.Errorf("got %d messages, %v, want the one that was parked", len(rs), err)
	}
}

func TestDrainAndCloseWithParkedMessages(t *testing.T) {
	c, _ := openLocal(t, startServer(t))
	topic, drained := openDirect(t, c, driver.SubscribeConfig{})
	closed := subscribe(t, topic, driver.SubscribeConfig{})
	publish(t, topic, "before")
	eventually(t, "the flush", func() bool { return flushing(c, "orders") == nil })
	release := holdFlush(c, "orders")
	publish(t, topic, "parked")
	if err := closed.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- drained.Drain(testContext(t)) }()
	if got := texts(receive(t, drained, 1)); !slices.Equal(got, []string{"before"}) {
		t.Errorf("got %q", got)
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	publish(t, topic, "late")
	if got := texts(receive(t, drained, 1)); !slices.Equal(got, []string{"parked"}) {
		t.Errorf("got %q", got)
	}
	for _, s := range []driver.Subscription{drained, closed} {
		if rs, err := s.Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
			t.Errorf("got %q, %v, want ErrEnded", texts(rs), err)
		}
		if lag, err := s.Lag(testContext(t)); err != nil || lag.Waiting != 0 {
			t.Errorf("got %+v, %v, want nothing that waits", lag, err)
		}
	}
}

// When the connection is restored the server learns of its subscriptions anew. Until a
// flush has shown that it has, others can be mistaken for the connection's own, and the
// own for nobody.
func TestNothingIsHandedOverUntilTheServerKnows(t *testing.T) {
	s := startServer(t)
	c := s.open(t, Listened(func(string, int) bool { return false }))
	changes := make(chan bool, 10)
	c.Watch(func(up bool, _ error) { changes <- up })
	followed, sub := openDirect(t, c, driver.SubscribeConfig{})
	for _, topic := range []driver.Topic{followed, openTopic(t, c, "unheard", nil)} {
		s.stop()
		if <-changes {
			t.Fatal("up, want down")
		}
		s.start()
		if !<-changes {
			t.Fatal("down, want up")
		}
		before := sent(c)
		publish(t, topic, "sent")
		if n := sent(c) - before; n != 1 {
			t.Errorf("%d messages were sent, want 1", n)
		}
		eventually(t, "the server knows", func() bool {
			before := sent(c)
			publish(t, topic, "x")
			return sent(c) == before
		})
	}
	if got := texts(receive(t, sub, 2)); !slices.Equal(got, []string{"sent", "x"}) {
		t.Errorf("got %q", got)
	}
}

// A connection that has not been lost sends nothing for nobody.
func TestNothingIsSentForNobody(t *testing.T) {
	c, _ := openLocal(t, startServer(t))
	topic := openTopic(t, c, "orders", nil)
	before := sent(c)
	publish(t, topic, "x")
	if n := sent(c) - before; n != 0 {
		t.Errorf("%d messages were sent, want none", n)
	}
}

// BenchmarkLocalDelivery hands over messages with the attributes of an event, as the
// gateway of the broker does.
func BenchmarkLocalDelivery(b *testing.B) {
	c, err := Open(b.Context(), startServer(b).url(), Listened(func(string, int) bool { return false }), Source("/source"), Attributes())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.Background()) })
	topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "orders"})
	if err != nil {
		b.Fatal(err)
	}
	sub, err := topic.Subscribe(b.Context(), driver.SubscribeConfig{Window: 10})
	if err != nil {
		b.Fatal(err)
	}
	ms := []*driver.Message{{ID: "1", Time: time.Now(), ContentType: "application/json", Data: []byte(`{"region":"eu","customer":"ada","total":7}`)}}
	b.ReportAllocs()
	for b.Loop() {
		if err := topic.Publish(b.Context(), ms); err != nil {
			b.Fatal(err)
		}
		if _, err := sub.Receive(b.Context(), 1); err != nil {
			b.Fatal(err)
		}
	}
}
