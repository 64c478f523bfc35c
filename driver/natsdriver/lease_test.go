package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// TestLeasesOfWaitingMessages has a handler that is quick at first, so that the client
// asks for much ahead, and then takes longer than the lease, with more messages in its
// process behind it: none is given out again, neither the one it handles nor those that
// wait, while another member of the group has nothing to do.
func TestLeasesOfWaitingMessages(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		t.Run(fmt.Sprintf("keyed %v", keyed), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withJetStream)
			const n, slowFrom = 2000, 1000
			handled := make(chan int, 2*n)
			subscribe := func(hold bool) (*hark.Topic[int], *hark.Subscription) {
				topic := openNumbers(t, s, keyed)
				sub, err := topic.Subscribe(func(ctx context.Context, m *hark.Message[int]) error {
					if hold && m.Value == slowFrom {
						held, cancel := context.WithTimeout(ctx, 5*testLease/2)
						defer cancel()
						<-held.Done()
					}
					if m.Attempt() != 1 {
						t.Errorf("%d was given out %d times", m.Value, m.Attempt())
					}
					handled <- m.Value
					return nil
				}, hark.Group("g"))
				if err != nil {
					t.Fatal(err)
				}
				return topic, sub
			}
			topic, slow := subscribe(true)
			all := make([]int, n)
			for i := range all {
				all[i] = i
			}
			if err := topic.PublishAll(testContext(t), all); err != nil {
				t.Fatal(err)
			}
			times := make([]int, n)
			ctx := testContext(t)
			next := func() {
				select {
				case i := <-handled:
					times[i]++
				case <-ctx.Done():
					t.Fatal("a message is missing")
				}
			}
			for range slowFrom {
				next()
			}
			_, idle := subscribe(false)
			for range n - slowFrom {
				next()
			}
			for i, k := range times {
				if k != 1 {
					t.Errorf("%d was handled %d times", i, k)
				}
			}
			for _, sub := range []*hark.Subscription{slow, idle} {
				if s := sub.Stats(); s.Redelivered != 0 {
					t.Errorf("%d messages were given out again", s.Redelivered)
				}
			}
		})
	}
}

// A member whose handler is slow from the beginning has no more messages than its window
// allows: the others get the rest.
func TestSlowMemberLeavesTheRest(t *testing.T) {
	s := startServer(t, withJetStream)
	const n, window = 400, 64
	topic := openNumbers(t, s, false)
	all := make([]int, n)
	if err := topic.PublishAll(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	if _, err := topic.Subscribe(func(context.Context, *hark.Message[int]) error {
		begin()
		<-end
		return nil
	}, hark.Group("g"), hark.FromStart()); err != nil {
		t.Fatal(err)
	}
	defer close(end)
	<-begun
	got := make(chan struct{}, n)
	if _, err := openNumbers(t, s, false).Subscribe(func(context.Context, *hark.Message[int]) error {
		got <- struct{}{}
		return nil
	}, hark.Group("g")); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	for i := range n - window {
		select {
		case <-got:
		case <-ctx.Done():
			t.Fatalf("the other member got %d messages, want at least %d", i, n-window)
		}
	}
}

// What a member has asked for beyond its window lapses when no more messages come.
func TestAskedAheadLapses(t *testing.T) {
	s := startServer(t, withJetStream)
	const n, window = 20_000, 64
	topic := openTopic(t, s.open(t), "t", &driver.StoredConfig{Durability: driver.DurableMemory})
	sub := subscribe(t, topic, driver.SubscribeConfig{Group: "g", Window: window})
	publish(t, topic, numbered(0, n)...)
	receive := func(ctx context.Context) (int, error) {
		rs, err := sub.Receive(ctx, window)
		if err == nil {
			err = sub.Ack(ctx, rs)
		}
		return len(rs), err
	}
	m := sub.(*member)
	most := int64(0)
	for got := 0; got < n; {
		k, err := receive(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		got += k
		most = max(most, m.puller.asked.Load())
	}
	if most <= window || most > maxAhead {
		t.Errorf("up to %d messages were asked for, want more than %d and at most %d", most, window, maxAhead)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := receive(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Receive returned %v", err)
		}
	})
	eventually(t, "what was asked for ahead lapses", func() bool { return m.puller.asked.Load() <= window })
	cancel()
	waiting.Wait()
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	for _, step := range []struct {
		after   time.Duration
		handled int64
		want    int
	}{
		{0, 10, 0}, // in all the time before
		{paceTime, 64, 64 * int(aheadTime/paceTime)},
		{paceTime / 2, 1, 64 * int(aheadTime/paceTime)}, // too soon to tell
		{paceTime / 2, 1000, maxAhead},
		{time.Second, 1, 0},
	} {
		now = now.Add(step.after)
		p.handled.Add(step.handled)
		if got := p.ahead(now); got != step.want {
			t.Errorf("after %+v: %d ahead", step, got)
		}
	}
}

// openNumbers opens a stored topic over a connection of its own, with leases that end
// soon. If keyed is true, all its messages have one key.
func openNumbers(t *testing.T, s *testServer, keyed bool) *hark.Topic[int] {
	t.Helper()
	c, err := Open(testContext(t), s.url(), Lease(testLease))
	if err != nil {
		t.Fatal(err)
	}
	bus := hark.Over(c)
	t.Cleanup(func() { closeBus(t, bus) })
	opts := []hark.TopicOption{hark.Stored(hark.Retention{Durability: hark.Memory})}
	if keyed {
		opts = append(opts, hark.KeyBy(func(int) string { return "one" }))
	}
	topic, err := hark.NewTopic[int](bus, "numbers", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// A message whose acknowledgement fails comes again when its lease ends, although the
// member goes on to extend what it has.
func TestLeaseEndsIfAckFails(t *testing.T) {
	l := openBrittle(t)
	topic := openTopic(t, l.conn, "t", &driver.StoredConfig{Durability: driver.DurableRelaxed})
	sub := subscribe(t, topic, driver.SubscribeConfig{Group: "g"})
	publish(t, topic, "m")
	ms := receive(t, sub, 1)
	l.cut(t)
	ended, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := sub.Ack(ended, ms); !errors.Is(err, context.Canceled) {
		t.Errorf("Ack without a connection: got %v, want %v", err, context.Canceled)
	}
	l.mend(t)
	ctx, cancel := context.WithCancel(testContext(t))
	var extending sync.WaitGroup
	defer extending.Wait()
	defer cancel()
	extending.Go(func() {
		tick := time.NewTicker(testLease / 5)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := sub.Extend(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("Extend: %v", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	if again := receive(t, sub, 1)[0]; again.Deliveries != 2 {
		t.Errorf("delivery %d came, want the second", again.Deliveries)
	}
}
