package hark_test

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/memdriver"
)

// noteConn is a connection that notes which messages its subscriptions receive and
// acknowledge, by their sequences.
type noteConn struct {
	driver.Conn
	mu              sync.Mutex
	received, acked []uint64
}

func (c *noteConn) note(list *[]uint64, ms []*driver.Received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range ms {
		*list = append(*list, m.Seq)
	}
}

func (c *noteConn) noted() (received, acked []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.received), slices.Clone(c.acked)
}

func (c *noteConn) OpenTopic(ctx context.Context, cfg driver.TopicConfig) (driver.Topic, error) {
	topic, err := c.Conn.OpenTopic(ctx, cfg)
	return noteTopic{topic, c}, err
}

type noteTopic struct {
	driver.Topic
	conn *noteConn
}

func (t noteTopic) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	sub, err := t.Topic.Subscribe(ctx, cfg)
	return noteSubscription{sub, t.conn}, err
}

type noteSubscription struct {
	driver.Subscription
	conn *noteConn
}

func (s noteSubscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	ms, err := s.Subscription.Receive(ctx, most)
	s.conn.note(&s.conn.received, ms)
	return ms, err
}

func (s noteSubscription) Ack(ctx context.Context, ms []*driver.Received) error {
	s.conn.note(&s.conn.acked, ms)
	return s.Subscription.Ack(ctx, ms)
}

// startNoted opens a bus over such a connection, with a stored topic.
func startNoted(t *testing.T) (*noteConn, *hark.Bus, *hark.Topic[int]) {
	t.Helper()
	conn := &noteConn{Conn: memdriver.New().Connect()}
	bus := hark.Over(conn)
	topic, err := hark.NewTopic[int](bus, "numbers", hark.Stored(hark.Retention{}))
	if err != nil {
		t.Fatal(err)
	}
	return conn, bus, topic
}

// While a handler blocks, what was done before it is acknowledged, and more messages
// are received.
func TestBlockedHandlerHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, bus, topic := startNoted(t)
		gate := make(chan struct{})
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			if m.Value == 2 {
				<-gate
			}
			return nil
		}, hark.Group("g"))
		if err := topic.PublishAll(t.Context(), []int{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the handler is blocked
		mustPublish(t, topic, 4)
		time.Sleep(30 * time.Millisecond) // until the feeder has looked
		received, acked := conn.noted()
		if want := []uint64{1, 2, 3, 4}; !slices.Equal(received, want) {
			t.Errorf("while a handler blocks, %v are received, want %v", received, want)
		}
		if want := []uint64{1}; !slices.Equal(acked, want) {
			t.Errorf("while a handler blocks, %v are acknowledged, want %v", acked, want)
		}
		close(gate)
		synctest.Wait()
		mustPublish(t, topic, 5)
		synctest.Wait()
		if _, acked := conn.noted(); len(acked) != 5 {
			t.Errorf("%v are acknowledged, want all five", acked)
		}
		closeBus(t, bus)
	})
}

// A handler that ends its goroutine ends no subscription over an engine.
func TestGoexitOverEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, bus, topic := startNoted(t)
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			if m.Attempt() == 1 {
				runtime.Goexit()
			}
			return nil
		}, hark.Group("g"))
		for n := range 5 {
			mustPublish(t, topic, n)
			time.Sleep(time.Minute)
		}
		if _, acked := conn.noted(); !slices.Equal(acked, []uint64{1, 2, 3, 4, 5}) {
			t.Errorf("%v are acknowledged, want 1 to 5", acked)
		}
		closeBus(t, bus)
	})
}

// Messages that cannot be decoded, anywhere in a burst of bare ones, disturb no others.
func TestUndecodableInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memdriver.New()
		in, out := hark.Over(server.Connect()), hark.Over(server.Connect())
		numbers, err := hark.NewTopic[int](in, "numbers", hark.Bare())
		if err != nil {
			t.Fatal(err)
		}
		texts, err := hark.NewTopic[[]byte](out, "numbers", hark.Bare())
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		sub := mustSubscribe(t, numbers, func(_ context.Context, m *hark.Message[int]) error {
			got = append(got, m.Value)
			return nil
		}, hark.NoDeadLetter())
		var want []int
		var burst [][]byte
		for i := range 1000 {
			text := strconv.Itoa(i)
			if i%100 == 0 || i%256 > 253 || i == 999 {
				text = "none"
			} else {
				want = append(want, i)
			}
			burst = append(burst, []byte(text))
		}
		if err := texts.PublishAll(t.Context(), burst); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if s := sub.Stats(); s.Delivered != uint64(len(want)) || s.Dropped != uint64(len(burst)-len(want)) || s.Waiting+s.InFlight != 0 {
			t.Errorf("of %d messages %d can be decoded: %+v", len(burst), len(want), s)
		}
		closeBus(t, out)
		closeBus(t, in)
	})
}
