package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// brittle is a connection that can be cut, beside one that stays.
type brittle struct {
	proxy   *proxy
	conn    *Conn
	beside  *Conn
	changes chan bool // up or not
}

func openBrittle(t *testing.T) *brittle {
	t.Helper()
	s := startServer(t, withSync)
	l := &brittle{proxy: s.startProxy(t), beside: s.open(t, SyncAlways()), changes: make(chan bool, 100)}
	var err error
	if l.conn, err = Open(testContext(t), l.proxy.url(), SyncAlways(), Lease(time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, l.conn) })
	l.conn.Watch(func(up bool, _ error) { l.changes <- up })
	return l
}

// cut cuts the connection, and returns once the loss is known.
func (l *brittle) cut(t *testing.T) {
	t.Helper()
	l.proxy.cut()
	l.await(t, false)
}

// mend restores the connection, and returns once it is back.
func (l *brittle) mend(t *testing.T) {
	t.Helper()
	l.proxy.mend()
	l.await(t, true)
}

func (l *brittle) await(t *testing.T, up bool) {
	t.Helper()
	select {
	case got := <-l.changes:
		if got != up {
			t.Fatalf("told of up = %v, want %v", got, up)
		}
	case <-testContext(t).Done():
		t.Fatalf("nobody says that up = %v", up)
	}
}

// The topics with which connections are lost; each kind is published to in its own
// way.
var lostTopics = []struct {
	name   string
	config *driver.StoredConfig
}{
	{"ephemeral", nil},
	{"stored", &driver.StoredConfig{Durability: driver.DurableRelaxed}},
	{"gathered", &driver.StoredConfig{Durability: driver.DurableStrict}},
}

// While the connection is lost, publishing waits in its context. A message whose
// context ended is not sent later; those still waiting are, in the order of each
// publisher.
func TestPublishWhileTheConnectionIsLost(t *testing.T) {
	for _, tt := range lostTopics {
		t.Run(tt.name, func(t *testing.T) {
			l := openBrittle(t)
			topic := openTopic(t, l.conn, "t", tt.config)
			sub := subscribe(t, openTopic(t, l.beside, "t", tt.config), driver.SubscribeConfig{})
			publish(t, topic, "before")
			if got := texts(receive(t, sub, 1)); got[0] != "before" { // otherwise the cut may take it
				t.Fatalf("got %v", got)
			}
			l.cut(t)
			var giveUp sync.WaitGroup
			for range 20 {
				giveUp.Go(func() {
					ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
					defer cancel()
					for _, ms := range [][]*driver.Message{bare("late"), bare("late", "late")} {
						if err := topic.Publish(ctx, ms); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("publish: %v, want the end of its context", err)
						}
					}
				})
			}
			giveUp.Wait()
			const publishers, each = 3, 5
			var waiting sync.WaitGroup
			for p := range publishers {
				waiting.Go(func() {
					for i := range each {
						if err := topic.Publish(testContext(t), bare(fmt.Sprintf("%d %d", p, i))); err != nil {
							t.Errorf("publish: %v", err)
						}
					}
				})
			}
			l.mend(t)
			waiting.Wait()
			publish(t, topic, "after")
			got := texts(receive(t, sub, publishers*each+1))
			if got[len(got)-1] != "after" {
				t.Fatalf("got %v, want nothing behind what was published last", got)
			}
			for p := range publishers {
				last := -1
				for _, text := range got {
					var from, n int
					if k, _ := fmt.Sscanf(text, "%d %d", &from, &n); k == 2 && from == p {
						if n != last+1 {
							t.Errorf("got %v: %d of publisher %d after %d", got, n, p, last)
						}
						last = n
					}
				}
			}
			if slices.Contains(got, "late") {
				t.Errorf("got %v, and what nobody waited for", got)
			}
		})
	}
}

// Subscriptions go on where they were; those of an ephemeral topic receive what is
// published once the connection is back.
func TestSubscriptionsAfterTheConnectionWasLost(t *testing.T) {
	l := openBrittle(t)
	stored := &driver.StoredConfig{Durability: driver.DurableRelaxed}
	out, in := openTopic(t, l.beside, "s", stored), openTopic(t, l.conn, "s", stored)
	follower := subscribe(t, in, driver.SubscribeConfig{})
	group := subscribe(t, in, driver.SubscribeConfig{Group: "g", Window: 4})
	ephemeral, news := openTopic(t, l.beside, "e", nil), subscribe(t, openTopic(t, l.conn, "e", nil), driver.SubscribeConfig{})
	pattern, err := l.conn.SubscribePattern(testContext(t), "*", driver.SubscribeConfig{Window: 1024})
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]bool{} // by the group
	var want []string
	for round := range 3 {
		for i := range 10 {
			if i == 5 {
				l.cut(t)
			}
			text := strconv.Itoa(10*round + i)
			want = append(want, text)
			publish(t, out, text)
		}
		publish(t, ephemeral, "missed "+strconv.Itoa(round))
		l.mend(t)
		if got := texts(receive(t, follower, 10)); !slices.Equal(got, want[10*round:]) {
			t.Errorf("round %d: a follower got %v, want %v", round, got, want[10*round:])
		}
		for len(taken) < len(want) { // messages in flight when the connection was lost come again
			rs := receive(t, group, 1)
			taken[string(rs[0].Data)] = true
			if err := group.Ack(testContext(t), rs); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.conn.Flush(testContext(t)); err != nil { // the server knows the subscriptions again
			t.Fatal(err)
		}
		text := "new " + strconv.Itoa(round)
		publish(t, ephemeral, text)
		if got := texts(receive(t, news, 1)); got[0] != text {
			t.Errorf("round %d: a subscription got %v, want %q", round, got, text)
		}
		for got := ""; got != text; { // it also received the stored messages
			got = texts(receive(t, pattern, 1))[0]
		}
	}
}

// The hook is told once that the connection is lost and once that it is back.
func TestHookOfLostConnections(t *testing.T) {
	s := startServer(t)
	p := s.startProxy(t)
	conn, err := Open(testContext(t), p.url())
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan hark.ConnEvent, 100)
	bus := hark.Over(conn, hark.WithHooks(connHook(func(e hark.ConnEvent) { events <- e })))
	for range 3 {
		p.cut()
		if e := <-events; e.Up || e.Err == nil || e.Engine != "nats" {
			t.Errorf("got %+v, want that it is lost, and why", e)
		}
		p.mend()
		if e := <-events; !e.Up || e.Err != nil {
			t.Errorf("got %+v, want that it is back", e)
		}
	}
	closeBus(t, bus)
	select {
	case e := <-events:
		t.Errorf("told of %+v besides", e)
	default:
	}
}

type connHook func(hark.ConnEvent)

func (f connHook) OnConn(e hark.ConnEvent) { f(e) }

// The pauses between attempts to reconnect double up to the maximum. Each is a
// random part of that, so that the clients of a returning server do not all
// reconnect at once.
func TestReconnectBacksOff(t *testing.T) {
	want := 50 * time.Millisecond
	for round := range 20 {
		seen := map[time.Duration]bool{}
		for range 20 {
			d := reconnectPause(round)
			if d < want/2 || d >= want {
				t.Errorf("round %d: %v, want from %v to %v", round, d, want/2, want)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("round %d: only %d different pauses", round, len(seen))
		}
		want = min(2*want, maxReconnectPause)
	}
}

// Close ends within its context while the connection is lost, and so does
// everything that waits for the connection, including messages to be stored.
func TestCloseWhilePublishesWait(t *testing.T) {
	for _, tt := range lostTopics {
		t.Run(tt.name, func(t *testing.T) {
			l := openBrittle(t)
			topic := openTopic(t, l.conn, "t", tt.config)
			sub := subscribe(t, topic, driver.SubscribeConfig{})
			l.cut(t)
			publishing, receiving := make(chan error, 2), make(chan error, 1)
			for range 2 {
				go func() { publishing <- topic.Publish(context.Background(), bare("x")) }()
			}
			go func() {
				_, err := sub.Receive(context.Background(), 1)
				receiving <- err
			}()
			ctx, cancel := context.WithTimeout(testContext(t), patience/2)
			defer cancel()
			if err := l.conn.Close(ctx); err != nil || ctx.Err() != nil {
				t.Errorf("close: %v, and its context: %v", err, ctx.Err())
			}
			for range 2 {
				if err := <-publishing; !errors.Is(err, driver.ErrClosed) {
					t.Errorf("publish: %v, want ErrClosed", err)
				}
			}
			if err := <-receiving; !errors.Is(err, driver.ErrEnded) {
				t.Errorf("receive: %v, want ErrEnded", err)
			}
		})
	}
}

// A message whose answer was lost is sent again. A pattern receives it once, and its
// publisher is not told that somebody had published it before.
func TestPatternGetsRepeatsOnce(t *testing.T) {
	l := openBrittle(t)
	topic := openTopic(t, l.conn, "t", relaxed())
	pattern, err := l.beside.SubscribePattern(testContext(t), "*", driver.SubscribeConfig{Window: 1024})
	if err != nil {
		t.Fatal(err)
	}
	m := func(id string) []*driver.Message { return []*driver.Message{{ID: id, Data: []byte(id)}} }
	beside := openTopic(t, l.beside, "t", relaxed())
	stored := func(n uint64) bool {
		stats, err := beside.Stats(testContext(t))
		return err == nil && stats.Stored == n
	}
	send := func(id string) {
		t.Helper()
		if err := topic.Publish(testContext(t), m(id)); err != nil {
			t.Fatal(err)
		}
	}
	send("first") // it asks for answers
	release := l.proxy.hold()
	defer release()
	published := make(chan error, 1)
	go func() {
		places, err := topic.(driver.Placer).PublishPlaced(testContext(t), m("a"))
		if err == nil && places[0] != (driver.Place{Seq: 2}) {
			err = fmt.Errorf("its place is %+v, want 2, and that nobody repeated it", places[0])
		}
		published <- err
	}()
	eventually(t, "it is stored", func() bool { return stored(2) })
	l.cut(t)
	release()
	l.mend(t)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	send("b")
	if got, want := texts(receive(t, pattern, 3)), []string{"first", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !stored(3) {
		t.Error("something was stored twice")
	}
}

// deletion calls before when a consumer is first deleted.
type deletion struct {
	jetstream.JetStream
	before func()
}

func (d *deletion) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	if before := d.before; before != nil {
		d.before = nil
		before()
	}
	return d.JetStream.DeleteConsumer(ctx, stream, consumer)
}

// A consumer that has to be recreated is there again although the connection is lost in
// between.
func TestConsumerIsRemade(t *testing.T) {
	l := openBrittle(t)
	topic := openTopic(t, l.beside, "t", relaxed()).(*stored)
	name := subscribe(t, topic, driver.SubscribeConfig{Group: "g"}).(*member).consumer
	look := func() (jetstream.Consumer, error) { return l.beside.js.Consumer(testContext(t), topic.stream, name) }
	before, err := look()
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan func(), 1)
	l.conn.js = &deletion{l.conn.js, func() { held <- l.proxy.hold() }}
	remade := make(chan error, 1)
	go func() { remade <- l.conn.remakeConsumer(testContext(t), topic.stream, before.CachedInfo().Config) }()
	eventually(t, "the consumer is deleted", func() bool {
		_, err := look()
		return errors.Is(err, jetstream.ErrConsumerNotFound)
	})
	release := <-held
	l.cut(t)
	release()
	l.mend(t)
	if err := <-remade; err != nil {
		t.Fatal(err)
	}
	if after, err := look(); err != nil || after.CachedInfo().Config.DeliverPolicy != jetstream.DeliverAllPolicy {
		t.Errorf("got %+v, %v, want a consumer of all messages", after, err)
	}
}
