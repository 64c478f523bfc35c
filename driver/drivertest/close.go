package drivertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var closeClauses = []Clause{
	{"CLS-1", "a closing bus refuses what is new from outside", testCLS1},
	{"CLS-2", "Close waits for what was accepted, and what follows from it", testCLS2},
	{"CLS-3", "handlers keep a live context until time is up, then it ends", testCLS3},
	{"CLS-4", "Close is idempotent", testCLS4},
	{"CLS-5", "publishers that wait for room get in or get an error", testCLS5},
	{"CLS-6", "Close in a handler is ErrWouldDeadlock", testCLS6},
	{"CLS-7", "what is not due is not waited for, and reported", testCLS7},
	{"CLS-8", "Close ends pauses, and drains patterns and batches", testCLS8},
	{"CLS-9", "retries are finished", testCLS9},
	{"CLS-12", "Settle waits for what was accepted, and what follows from it", testCLS12},
	{"CLS-13", "Settle gives up with its context and changes nothing", testCLS13},
	{"STA-1", "every message is in exactly one number", testSTA1},
	{"STA-2", "Topology says who is connected to what, and where", testSTA2},
	{"STA-3", "a stored topic's lag has an age", testSTA3},
}

func testCLS1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	pub := topic.Publisher()
	sub := subscribe(t, topic, newRecorder[int]().handle)
	must(hark.Reply(bus, "r", func(_ context.Context, n int) (int, error) { return n, nil }))(t)
	if err := bus.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Publish":           topic.Publish(ctx, 1),
		"PublishAll":        topic.PublishAll(ctx, []int{1}),
		"Publisher":         pub.Publish(ctx, 1),
		"delayed":           topic.Publish(ctx, 1, hark.Delay(time.Hour)),
		"Subscribe":         second(topic.Subscribe(newRecorder[int]().handle)),
		"NewTopic":          second(hark.NewTopic[int](bus, "b")),
		"old topic":         second(hark.NewTopic[int](bus, "a")),
		"SubscribePattern":  second(hark.SubscribePattern(bus, ">", newRecorder[int]().handle)),
		"Reply":             second(hark.Reply(bus, "q", func(_ context.Context, n int) (int, error) { return n, nil })),
		"Request":           second(hark.Request[int, int](ctx, bus, "r", 1)),
		"Publisher, closed": func() error { p := topic.Publisher(); return p.Publish(ctx, 1) }(),
	} {
		if !errors.Is(err, hark.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
	if err := sub.Close(); err != nil {
		t.Errorf("Subscription.Close: %v", err)
	}
	if err := sub.Drain(ctx); err != nil {
		t.Errorf("Subscription.Drain: %v", err)
	}
}

func testCLS2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	in, out := newTopic[int](t, bus, "z.in"), newTopic[int](t, bus, "a.out")
	w := newRecorder[int]()
	subscribe(t, out, w.handle)
	closing := make(chan struct{})
	subscribe(t, in, func(ctx context.Context, m *hark.Message[int]) error {
		select {
		case <-closing:
		case <-ctx.Done():
			return ctx.Err()
		}
		return out.Publish(ctx, m.Value)
	})
	publish(ctx, t, in, count(0, 500)...)
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(ctx) }()
	until(ctx, t, "the bus is closing", func() bool { return errors.Is(in.Publish(ctx, -1), hark.ErrClosed) || false })
	close(closing)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	got := w.all()
	for len(got) > 0 && got[len(got)-1] == -1 { // published before the bus was closing
		got = got[:len(got)-1]
	}
	wantEqual(t, "values", got, count(0, 500))
}

func testCLS3(t *testing.T, open Opener) {
	bus := open(t)
	outOfTime(t, bus, 3)
	if info := bus.Engine(); info.Has(driver.Stored) { // more than a subscription buffers, so most are still in the engine
		outOfTime(t, open(t), 300, hark.Stored(hark.Retention{}))
	}
}

// outOfTime closes a bus while a handler runs with the first of n messages, and
// ends the context of Close.
func outOfTime(t *testing.T, bus *hark.Bus, n int, opts ...hark.TopicOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	topic := newTopic[int](t, bus, "a", opts...)
	g := newGate(t)
	ended := make(chan error, 1)
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		err := g.pass(ctx)
		ended <- err
		return err
	})
	publish(ctx, t, topic, 1)
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, count(1, n)...)
	until(ctx, t, "the others wait", func() bool { return sub.Stats().Waiting == uint64(n-1) })
	why := errors.New("out of time")
	short, end := context.WithCancelCause(ctx)
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(short) }()
	until(ctx, t, "the bus is closing", func() bool {
		_, err := hark.NewTopic[int](bus, "b")
		return errors.Is(err, hark.ErrClosed)
	})
	select {
	case err := <-ended:
		t.Fatalf("the handler's context ended at once: %v", err)
	default:
	}
	end(why)
	err := <-closed
	if got := <-ended; !errors.Is(got, hark.ErrClosed) {
		t.Errorf("cause of the handler's context: got %v, want ErrClosed", got)
	}
	var left *hark.CloseError
	if !errors.As(err, &left) || !errors.Is(err, why) {
		t.Fatalf("got %v, want a *CloseError with the cause", err)
	}
	if len(left.Left) != 1 || left.Left[0].Name != "a" || left.Left[0].Waiting != n-1 || left.Left[0].Retrying != 1 {
		t.Errorf("left: got %+v, want %d waiting and 1 to be retried", left.Left, n-1)
	}
	if again := bus.Close(ctx); again != err {
		t.Errorf("Close again: got %v, want %v", again, err)
	}
}

func testCLS4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	done := make(chan error, 4)
	for range 4 {
		go func() { done <- bus.Close(ctx) }()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ended, end := context.WithCancel(ctx)
	end()
	for range 20 {
		if err := bus.Close(ended); err != nil {
			t.Fatalf("Close of a closed bus, with a context that has ended: %v", err)
		}
	}
}

func testCLS5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Backpressure)
	topic := newTopic[int](t, bus, "a")
	_, w, g := stalled(ctx, t, topic, hark.Buffer(1))
	const publishers = 8
	done := make(chan error, publishers)
	for i := range publishers {
		go func() { done <- topic.Publish(ctx, 1+i) }()
	}
	until(ctx, t, "one is in", func() bool { return bus.Stats().Topics[0].Published == 2 })
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(ctx) }()
	g.release()
	accepted := 1
	for range publishers {
		switch err := <-done; {
		case err == nil:
			accepted++
		case !errors.Is(err, hark.ErrClosed):
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if got := len(w.all()); got != accepted {
		t.Errorf("handled %d, want the %d accepted", got, accepted)
	}
}

func testCLS6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[error]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		w.note(bus.Close(ctx))
		w.note(bus.Close(context.Background()))
		return nil
	})
	publish(ctx, t, topic, 1)
	for _, err := range w.wait(ctx, t, 2) {
		if !errors.Is(err, hark.ErrWouldDeadlock) {
			t.Errorf("got %v, want ErrWouldDeadlock", err)
		}
	}
	publish(ctx, t, topic, 2) // nothing has been closed
}

func testCLS7(t *testing.T, open Opener) {
	ctx, _ := start(t, open)
	bus := open(t)
	topic := newTopic[int](t, bus, "a")
	subscribe(t, topic, newRecorder[int]().handle)
	if err := topic.Publish(ctx, 1, hark.Delay(time.Hour)); err != nil {
		t.Fatal(err)
	}
	err := bus.Close(ctx)
	var left *hark.CloseError
	if !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0].Delayed != 1 {
		t.Errorf("got %v, want a *CloseError with 1 delayed", err)
	}
}

func testCLS8(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	paused, pattern, batch := newRecorder[int](), newRecorder[int](), newRecorder[int]()
	subs := []*hark.Subscription{
		subscribe(t, topic, paused.handle),
		subscribePattern(t, bus, "*", pattern.handle),
		must(topic.SubscribeBatch(batches(batch, newRecorder[int]()), hark.Batch(1000, 5*time.Millisecond)))(t),
	}
	for _, sub := range subs {
		sub.Pause()
	}
	publish(ctx, t, topic, count(0, 50)...)
	if err := bus.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for what, w := range map[string]*recorder[int]{"paused": paused, "pattern": pattern, "batch": batch} {
		wantEqual(t, what, w.all(), count(0, 50))
	}
}

func testCLS9(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Stored)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Attempt() < 3 {
			return errHandler
		}
		if m.Value == 9 {
			return hark.Reject(errHandler)
		}
		return w.handle(ctx, m)
	}, quick(5)...)
	publish(ctx, t, topic, count(0, 10)...)
	if err := bus.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if s := sub.Stats(); len(w.all()) != 9 || s.Delivered != 9 || s.Dead != 1 {
		t.Errorf("handled %d, %+v; want 9 delivered and 1 dead", len(w.all()), s)
	}
}

func testCLS12(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	in, out := newTopic[int](t, bus, "z.in"), newTopic[int](t, bus, "a.out")
	w := newRecorder[int]()
	subscribe(t, out, w.handle)
	g := newGate(t)
	failed := false
	subscribe(t, in, func(ctx context.Context, m *hark.Message[int]) error {
		if err := g.pass(ctx); err != nil {
			return err
		}
		if !failed {
			failed = true
			return errors.New("once")
		}
		return out.Publish(ctx, m.Value)
	}, hark.Backoff(hark.BackoffPolicy{Min: time.Millisecond, Max: time.Millisecond}))
	publish(ctx, t, in, count(0, 100)...)
	settled := make(chan error, 1)
	go func() { settled <- bus.Settle(ctx) }()
	g.reached(ctx, t, 1)
	select {
	case err := <-settled:
		t.Fatalf("Settle returned %v while a handler ran", err)
	default:
	}
	g.release()
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(slices.Values(w.all()))
	wantEqual(t, "values", got, count(0, 100))
	publish(ctx, t, in, 100)
	if err := bus.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.all(); len(got) != 101 {
		t.Errorf("got %d values after the second Settle, want 101", len(got))
	}
	late := open(t)
	if err := newTopic[int](t, late, "b").Publish(ctx, 1, hark.Delay(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := late.Settle(ctx); err != nil {
		t.Errorf("with a message that is not due: %v", err)
	}
	var left *hark.CloseError
	if err := late.Close(ctx); err != nil && !errors.As(err, &left) {
		t.Error(err)
	}
}

func testCLS13(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	within := make(chan error, 1)
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 1 {
			within <- bus.Settle(ctx)
		}
		return w.handle(ctx, m)
	})
	publish(ctx, t, topic, 1)
	if err := <-within; !errors.Is(err, hark.ErrWouldDeadlock) {
		t.Errorf("in a handler: got %v, want ErrWouldDeadlock", err)
	}
	if err := bus.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	sub.Pause()
	publish(ctx, t, topic, 2)
	until(ctx, t, "the message waits", func() bool { return sub.Stats().Waiting == 1 })
	why := errors.New("enough")
	short, cancel := context.WithCancelCause(ctx)
	settled := make(chan error, 1)
	go func() { settled <- bus.Settle(short) }()
	select {
	case err := <-settled:
		t.Fatalf("Settle returned %v with a message waiting", err)
	default:
	}
	cancel(why)
	if err := <-settled; !errors.Is(err, why) {
		t.Errorf("got %v, want the cause of its context", err)
	}
	until(ctx, t, "it is paused with the message", func() bool { s := sub.Stats(); return s.Paused && s.Waiting == 1 })
	sub.Resume()
	if err := bus.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.all(), []int{1, 2})
}

func testSTA1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Stored)
	topic := newTopic[int](t, bus, "a")
	sub := subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		switch m.Value % 4 {
		case 0:
			return nil
		case 1:
			if m.Attempt() == 1 {
				return errHandler
			}
			return nil
		case 2:
			return hark.Drop(errHandler)
		}
		return hark.Reject(errHandler)
	}, append(quick(3), hark.Workers(3), hark.Where(hark.MatchFunc[int](func(n int) bool { return n%10 != 0 })))...)
	const n = 2000
	stop := make(chan struct{})
	looked := make(chan struct{})
	sum := func(s hark.SubscriptionStats) uint64 {
		return s.Delivered + s.Filtered + s.Dropped + s.Dead + s.Waiting + s.InFlight + s.Retrying
	}
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			default:
				if got := sum(sub.Stats()); got > n {
					t.Errorf("the numbers add up to %d, more than there is", got)
					return
				}
			}
		}
	}()
	publish(ctx, t, topic, count(0, n)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-looked
	s := sub.Stats()
	if sum(s) != n || s.Filtered != 200 || s.Dead != 500 || s.Dropped != 400 || s.Delivered != 900 || s.Redelivered != 500 {
		t.Errorf("got %+v", s)
	}
}

func testSTA2(t *testing.T, open Opener) {
	_, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	subscribe(t, topic, newRecorder[int]().handle, hark.Group("billing"))
	subscribePattern(t, bus, "a.*", newRecorder[int]().handle, hark.Group("audit"))
	must(hark.Reply(bus, "ask", func(_ context.Context, n int) (int, error) { return n, nil }))(t)
	type end struct{ kind, name, role, who string }
	found := map[end]bool{}
	for _, node := range bus.Topology().Nodes {
		for _, e := range node.Ends {
			found[end{string(node.Kind), node.Name, e.Role, e.Name}] = e.At != ""
		}
		if node.Kind == hark.KindTopic && (!node.Stored || node.Type != "int") {
			t.Errorf("got %+v, want a stored topic of int", node)
		}
	}
	for _, want := range []end{
		{"topic", "a", "declare", ""},
		{"topic", "a", "subscribe", "billing"},
		{"pattern", "a.*", "subscribe", "audit"},
		{"request", "ask", "reply", "responders"},
	} {
		if !found[want] {
			t.Errorf("%+v is missing in %+v", want, found)
		}
	}
}

func testSTA3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle)
	sub.Pause()
	publish(ctx, t, topic, 1, 2)
	until(ctx, t, "it has an age", func() bool { s := sub.Stats(); return s.Waiting == 2 && s.OldestAge > 0 })
	sub.Resume()
	w.wait(ctx, t, 2)
	until(ctx, t, "nothing waits", func() bool { s := sub.Stats(); return s.Waiting == 0 && s.OldestAge == 0 })
}
