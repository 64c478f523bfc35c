package filedriver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// A message is not lost if its dead letter cannot be stored because the topic
// for dead letters is full. Its group keeps it, even when all members end, and
// it becomes a dead letter when there is room.
func TestDeadLettersThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	inFile := func() (driver.Conn, *nats.Conn, error) {
		c, err := Open(testContext(t), dir, natsdriver.Lease(deadLease))
		if err != nil {
			return nil, nil, err
		}
		return c, c.Client(), nil
	}
	for name, open := range map[string]func() (driver.Conn, *nats.Conn, error){"file": inFile, "server": overTCP(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			conn, client, err := open()
			if err != nil {
				t.Fatal(err)
			}
			fillDeadLetters(t, client)
			bus, failed := failing(t, conn, "one")
			for range 2 { // the message is kept and tried again
				wait(t, failed)
			}
			if s := groupOf(bus); s.Name != "g" || s.Dead+s.Dropped != 0 {
				t.Errorf("got %+v, want neither dead nor dropped", s)
			}
			now, cancel := context.WithCancel(ctx)
			cancel() // otherwise Close waits until the dead letter is written
			if err := bus.Close(now); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}

			if conn, client, err = open(); err != nil {
				t.Fatal(err)
			}
			bus, failed = failing(t, conn)
			wait(t, failed)
			dead, err := conn.OpenTopic(ctx, driver.TopicConfig{Name: "orders.dead", Stored: &driver.StoredConfig{Existing: true}})
			if err != nil {
				t.Fatal(err)
			}
			letters, err := dead.Subscribe(ctx, driver.SubscribeConfig{Window: 8})
			if err != nil {
				t.Fatal(err)
			}
			makeRoom(t, client)
			if rs, err := letters.Receive(ctx, 1); err != nil || string(rs[0].Data) != `"one"` {
				t.Fatalf("got %v, %v; want the message", rs, err)
			}
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for groupOf(bus).Dead == 0 {
				select {
				case <-tick.C:
				case <-ctx.Done():
					t.Fatalf("not counted: %+v", groupOf(bus))
				}
			}
			if err := bus.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// deadLease is the time after which a message is delivered again that was in
// hand when its bus was closed without waiting.
const deadLease = 2 * time.Second

// overTCP starts a server that keeps its files until the test ends, and returns
// a function that connects to it.
func overTCP(t *testing.T) func() (driver.Conn, *nats.Conn, error) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return func() (driver.Conn, *nats.Conn, error) {
		c, err := natsdriver.Open(testContext(t), s.ClientURL(), natsdriver.Lease(deadLease))
		if err != nil {
			return nil, nil, err
		}
		return c, c.Client(), nil
	}
}

// deadStream is the stream that holds the dead letters of topic orders.
const deadStream = "hark-topic-orders=dead"

// fillDeadLetters creates a topic for dead letters that holds one message, and
// fills it.
func fillDeadLetters(t *testing.T, client *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(client)
	if err == nil {
		_, err = js.CreateStream(testContext(t), jetstream.StreamConfig{
			Name: deadStream, Subjects: []string{"orders.dead", "$HARK.k.orders.dead.*"}, MaxMsgs: 1, Discard: jetstream.DiscardNew,
		})
	}
	if err == nil {
		_, err = js.Publish(testContext(t), "orders.dead", []byte(`"in the way"`))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func makeRoom(t *testing.T, client *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(client)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(testContext(t), deadStream)
	if err == nil {
		err = stream.Purge(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// failures receives a value when a handler has failed.
type failures chan struct{}

func (f failures) OnFail(hark.FailEvent) {
	select {
	case f <- struct{}{}:
	default:
	}
}

// failing publishes orders on a bus where a group's handler fails every message
// permanently.
func failing(t *testing.T, conn driver.Conn, orders ...string) (*hark.Bus, failures) {
	t.Helper()
	failed := make(failures, 1)
	bus := hark.Over(conn, hark.WithHooks(failed))
	topic, err := hark.NewTopic[string](bus, "orders", hark.Stored(hark.Retention{Durability: hark.Relaxed}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = topic.Subscribe(func(context.Context, *hark.Message[string]) error { return errors.New("never") },
		hark.Group("g"), hark.FromStart(), hark.MaxAttempts(1), hark.Backoff(hark.BackoffPolicy{Max: 10 * time.Millisecond}))
	for _, order := range orders {
		err = errors.Join(err, topic.Publish(testContext(t), order))
	}
	if err != nil {
		t.Fatal(err)
	}
	return bus, failed
}

func wait(t *testing.T, failed failures) {
	t.Helper()
	select {
	case <-failed:
	case <-testContext(t).Done():
		t.Fatal("nothing failed")
	}
}

// groupOf returns the statistics of the group.
func groupOf(bus *hark.Bus) hark.SubscriptionStats {
	for _, topic := range bus.Stats().Topics {
		for _, s := range topic.Subscriptions {
			if s.Name == "g" {
				return s
			}
		}
	}
	return hark.SubscriptionStats{}
}
