package drivertest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var overflowClauses = []Clause{
	{"BUF-1", "Block: Publish waits for room until its context ends", testBUF1},
	{"BUF-2", "DropOldest keeps the newest, and counts", testBUF2},
	{"BUF-3", "DropNewest keeps the oldest, and counts", testBUF3},
	{"BUF-4", "Latest keeps the newest message only", testBUF4},
	{"BUF-5", "Fail: the publisher gets ErrFull and nobody gets the message", testBUF5},
	{"BUF-6", "a subscription that gives way takes nothing from others", testBUF6},
	{"BUF-7", "an unbounded subscription never makes a publisher wait", testBUF7},
	{"BUF-8", "options that contradict each other are refused", testBUF8},
	{"BUF-9", "a publisher that waits goes on when the one it waits for leaves", testBUF9},
	{"BUF-10", "a draining subscription loses nothing to later messages", testBUF10},
}

// stalled subscribes with a handler that blocks on the first message, 0, until
// the gate opens.
func stalled(ctx context.Context, t *testing.T, topic *hark.Topic[int], opts ...hark.SubscribeOption) (*hark.Subscription, *recorder[int], *gate) {
	t.Helper()
	g, w := newGate(t), newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 0 {
			if err := g.pass(ctx); err != nil {
				return hark.Drop(err)
			}
		}
		return w.handle(ctx, m)
	}, opts...)
	publish(ctx, t, topic, 0)
	g.reached(ctx, t, 1)
	return sub, w, g
}

// arrived waits until a stalled subscription has dropped and still holds the
// given numbers of messages.
func arrived(ctx context.Context, t *testing.T, sub *hark.Subscription, dropped, waiting uint64) {
	t.Helper()
	until(ctx, t, fmt.Sprintf("%d are dropped, %d wait and 1 is in flight", dropped, waiting), func() bool {
		s := sub.Stats()
		return s.Dropped == dropped && s.Waiting == waiting && s.InFlight == 1
	})
}

func testBUF1(t *testing.T, open Opener) {
	for _, n := range []int{1, 2, 4, 100} {
		ctx, bus := start(t, open)
		needs(t, bus, driver.Backpressure)
		topic := newTopic[int](t, bus, "a")
		other := newRecorder[int]()
		subscribe(t, topic, other.handle)
		_, w, g := stalled(ctx, t, topic, hark.Buffer(n))
		publish(ctx, t, topic, count(1, n+1)...)
		why := errors.New("waited long enough")
		short, cancel := context.WithCancelCause(ctx)
		failed := make(chan error, 1)
		go func() { failed <- topic.Publish(short, -1) }()
		select {
		case err := <-failed:
			t.Fatalf("Buffer(%d): the publisher did not wait: %v", n, err)
		default:
		}
		cancel(why)
		if err := <-failed; !errors.Is(err, why) {
			t.Errorf("got %v, want the cause", err)
		}
		blocked := make(chan error, 1)
		go func() { blocked <- topic.Publish(ctx, n+1) }()
		g.release()
		if err := <-blocked; err != nil {
			t.Error(err)
		}
		wantEqual(t, "values", w.wait(ctx, t, n+2), count(0, n+2))
		wantEqual(t, "values of another", other.wait(ctx, t, n+2), count(0, n+2))
	}
}

// testLossy publishes 1 to n to a stalled subscription and checks which of them
// arrive.
func testLossy(t *testing.T, open Opener, n int, want []int, opts ...hark.SubscribeOption) {
	t.Helper()
	for _, handle := range []bool{false, true} {
		ctx, bus := start(t, open)
		topic := newTopic[int](t, bus, "a")
		pub := topic.Publisher()
		sub, w, g := stalled(ctx, t, topic, opts...)
		for i := range n {
			var err error
			if handle {
				err = pub.Publish(ctx, i+1)
			} else {
				err = topic.Publish(ctx, i+1)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		dropped := uint64(n - len(want))
		arrived(ctx, t, sub, dropped, uint64(len(want)))
		g.release()
		wantEqual(t, "values", w.wait(ctx, t, 1+len(want))[1:], want)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if s := sub.Stats(); s.Dropped != dropped || s.Delivered != uint64(1+len(want)) {
			t.Errorf("got %+v, want %d dropped and %d delivered", s, dropped, 1+len(want))
		}
		pub.Close()
	}
}

func testBUF2(t *testing.T, open Opener) {
	testLossy(t, open, 5, count(1, 6), hark.Buffer(5), hark.Overflow(hark.DropOldest))
	testLossy(t, open, 1000, count(994, 1001), hark.Buffer(7), hark.Overflow(hark.DropOldest))
}

func testBUF3(t *testing.T, open Opener) {
	testLossy(t, open, 5, count(1, 6), hark.Buffer(5), hark.Overflow(hark.DropNewest))
	testLossy(t, open, 1000, count(1, 8), hark.Buffer(7), hark.Overflow(hark.DropNewest))

	// Room that a handler frees goes to the next new message.
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	g, w := newGate(t), newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if err := g.pass(ctx); err != nil {
			return hark.Drop(err)
		}
		return w.handle(ctx, m)
	}, hark.Buffer(2), hark.Overflow(hark.DropNewest))
	publish(ctx, t, topic, 0)
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, 1, 2, 3)
	arrived(ctx, t, sub, 1, 2)
	g.open <- struct{}{}
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, 4, 5)
	arrived(ctx, t, sub, 2, 2)
	g.release()
	wantEqual(t, "values", w.wait(ctx, t, 4), []int{0, 1, 2, 4})
}

func testBUF4(t *testing.T, open Opener) {
	testLossy(t, open, 1, []int{1}, hark.Overflow(hark.Latest))
	testLossy(t, open, 500, []int{500}, hark.Overflow(hark.Latest))
}

func testBUF5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	other := newRecorder[int]()
	subscribe(t, topic, other.handle)
	_, w, g := stalled(ctx, t, topic, hark.Buffer(3), hark.Overflow(hark.Fail))
	publish(ctx, t, topic, 1, 2, 3)
	for range 3 {
		if err := topic.Publish(ctx, -1); !errors.Is(err, hark.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
	}
	g.release()
	wantEqual(t, "values", w.wait(ctx, t, 4), count(0, 4))
	publish(ctx, t, topic, 4)
	wantEqual(t, "values", w.wait(ctx, t, 5), count(0, 5))
	wantEqual(t, "values of another", other.wait(ctx, t, 5), count(0, 5))
}

func testBUF6(t *testing.T, open Opener) {
	for _, policy := range []hark.Policy{hark.DropOldest, hark.DropNewest, hark.Latest} {
		ctx, bus := start(t, open)
		topic := newTopic[int](t, bus, "a")
		other := newRecorder[int]()
		subscribe(t, topic, other.handle)
		_, w, g := stalled(ctx, t, topic, hark.Overflow(policy))
		publish(ctx, t, topic, count(1, 3000)...)
		wantEqual(t, "values of another", other.wait(ctx, t, 3000), count(0, 3000))
		g.release()
		w.wait(ctx, t, 2)
	}
}

func testBUF7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	_, w, g := stalled(ctx, t, topic, hark.Buffer(hark.Unbounded))
	publish(ctx, t, topic, count(1, 10000)...)
	g.release()
	wantEqual(t, "values", w.wait(ctx, t, 10000), count(0, 10000))
}

func testBUF8(t *testing.T, open Opener) {
	_, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	stored := newTopic[int](t, bus, "s", hark.Stored(hark.Retention{}))
	h := func(context.Context, *hark.Message[int]) error { return nil }
	for _, test := range []struct {
		what  string
		topic *hark.Topic[int]
		opts  []hark.SubscribeOption
	}{
		{"no buffer", topic, []hark.SubscribeOption{hark.Buffer(0)}},
		{"negative buffer", topic, []hark.SubscribeOption{hark.Buffer(-2)}},
		{"two latest", topic, []hark.SubscribeOption{hark.Buffer(2), hark.Overflow(hark.Latest)}},
		{"unknown policy", topic, []hark.SubscribeOption{hark.Overflow(99)}},
		{"no workers", topic, []hark.SubscribeOption{hark.Workers(0)}},
		{"no attempts", topic, []hark.SubscribeOption{hark.MaxAttempts(0)}},
		{"batch for a plain handler", topic, []hark.SubscribeOption{hark.Batch(2, 0)}},
		{"buffer on a stored topic", stored, []hark.SubscribeOption{hark.Buffer(2)}},
		{"overflow on a stored topic", stored, []hark.SubscribeOption{hark.Overflow(hark.Block)}},
	} {
		if _, err := test.topic.Subscribe(h, test.opts...); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", test.what, err)
		}
	}
	if _, err := topic.Subscribe(nil); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("no handler: got %v, want ErrInvalidOption", err)
	}
}

func testBUF9(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	other := newRecorder[int]()
	subscribe(t, topic, other.handle)
	sub, _, _ := stalled(ctx, t, topic, hark.Buffer(2))
	publish(ctx, t, topic, 1, 2)
	blocked := make(chan error, 1)
	go func() { blocked <- topic.Publish(ctx, 3) }()
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-blocked; err != nil {
		t.Error(err)
	}
	wantEqual(t, "values of another", other.wait(ctx, t, 4), count(0, 4))
}

func testBUF10(t *testing.T, open Opener) {
	for _, policy := range []hark.Policy{hark.DropOldest, hark.DropNewest, hark.Block} {
		ctx, bus := start(t, open)
		needs(t, bus, driver.Backpressure)
		topic := newTopic[int](t, bus, "a")
		sub, w, g := stalled(ctx, t, topic, hark.Buffer(5), hark.Overflow(policy))
		publish(ctx, t, topic, count(1, 6)...)
		drained := make(chan error, 1)
		go func() { drained <- sub.Drain(ctx) }()
		// No publisher waits for a subscription that accepts nothing new.
		until(ctx, t, "the topic has no subscription", func() bool {
			for _, topic := range bus.Topology().Nodes {
				if topic.Name == "a" {
					for _, end := range topic.Ends {
						if end.Role == "subscribe" {
							return false
						}
					}
				}
			}
			return true
		})
		other := newRecorder[int]()
		subscribe(t, topic, other.handle)
		publish(ctx, t, topic, count(6, 1000)...)
		other.wait(ctx, t, 1)
		g.release()
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		got := w.all()
		if len(got) < 6 {
			t.Fatalf("%v: got %v, want at least 0 to 5", policy, got)
		}
		wantEqual(t, policy.String(), got[:6], count(0, 6))
	}
}
