package drivertest

import (
	"context"
	"errors"
	"testing"

	"github.com/harkbus/hark"
)

var subscribeClauses = []Clause{
	{"SUB-1", "every subscription gets every message", testSUB1},
	{"SUB-2", "a subscription gets what is published after it was made", testSUB2},
	{"SUB-3", "Pause starts no handler, Resume goes on without loss", testSUB3},
	{"SUB-4", "Close cancels, waits, drops what waits and counts it", testSUB4},
	{"SUB-5", "Drain finishes what was published before, retries included", testSUB5},
	{"SUB-6", "Drain ends a pause", testSUB6},
	{"SUB-7", "a Drain out of time says what was left", testSUB7},
	{"SUB-8", "Close from its own handler does not hang", testSUB8},
	{"SUB-9", "Drain from its own handler is ErrWouldDeadlock", testSUB9},
	{"SUB-10", "one subscription that ends disturbs no other", testSUB10},
}

func testSUB1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	var ws []*recorder[int]
	for range 5 {
		w := newRecorder[int]()
		subscribe(t, topic, w.handle)
		ws = append(ws, w)
	}
	publish(ctx, t, topic, count(0, 100)...)
	for _, w := range ws {
		wantEqual(t, "values", w.wait(ctx, t, 100), count(0, 100))
	}
}

func testSUB2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	early, late := newRecorder[int](), newRecorder[int]()
	subscribe(t, topic, early.handle)
	publish(ctx, t, topic, 1, 2)
	subscribe(t, topic, late.handle)
	publish(ctx, t, topic, 3)
	wantEqual(t, "early", early.wait(ctx, t, 3), []int{1, 2, 3})
	wantEqual(t, "late", late.wait(ctx, t, 1), []int{3})
}

func testSUB3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w, other := newRecorder[int](), newRecorder[int]()
	sub := subscribe(t, topic, w.handle)
	subscribe(t, topic, other.handle)
	publish(ctx, t, topic, 0)
	w.wait(ctx, t, 1)
	sub.Pause()
	if !sub.Stats().Paused {
		t.Error("Stats do not say that it is paused")
	}
	paused := 0
	for _, s := range bus.Stats().Topics[0].Subscriptions {
		if s.Paused {
			paused++
		}
	}
	if paused != 1 {
		t.Errorf("Stats of the bus have %d paused subscriptions, want 1", paused)
	}
	publish(ctx, t, topic, count(1, 50)...)
	other.wait(ctx, t, 50)
	wantEqual(t, "values while paused", w.all(), []int{0})
	sub.Resume()
	wantEqual(t, "values", w.wait(ctx, t, 50), count(0, 50))
}

func testSUB4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	g := newGate(t)
	ended := make(chan error, 1)
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		err := g.pass(ctx)
		ended <- err
		return hark.Drop(err)
	})
	publish(ctx, t, topic, 1)
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, 2, 3, 4)
	until(ctx, t, "the others wait", func() bool { return sub.Stats().Waiting == 3 })
	for range 2 {
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		if !errors.Is(err, hark.ErrClosed) {
			t.Errorf("cause of the handler's context: got %v, want ErrClosed", err)
		}
	default:
		t.Error("Close returned before the handler")
	}
	if s := sub.Stats(); s.Dropped != 4 || s.Waiting+s.InFlight+s.Retrying != 0 {
		t.Errorf("got %+v, want 4 dropped and nothing open", s)
	}
	publish(ctx, t, topic, 5)
}

func testSUB5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value%10 == 0 && m.Attempt() < 3 {
			return errors.New("again")
		}
		return w.handle(ctx, m)
	}, quick(5)...)
	publish(ctx, t, topic, count(0, 200)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := len(w.all()); got != 200 {
		t.Errorf("handled %d, want 200", got)
	}
	publish(ctx, t, topic, 200)
	if s := sub.Stats(); s.Delivered != 200 || s.Waiting+s.InFlight+s.Retrying+s.Dropped != 0 {
		t.Errorf("got %+v, want 200 delivered", s)
	}
}

func testSUB6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle)
	sub.Pause()
	publish(ctx, t, topic, count(0, 20)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.all(), count(0, 20))
}

func testSUB7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	g := newGate(t)
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error { return g.pass(ctx) })
	publish(ctx, t, topic, 1)
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, 2, 3)
	until(ctx, t, "the others wait", func() bool { return sub.Stats().Waiting == 2 })
	why := errors.New("out of time")
	over, cancel := context.WithCancelCause(ctx)
	cancel(why)
	err := sub.Drain(over)
	var left *hark.CloseError
	if !errors.As(err, &left) || !errors.Is(err, why) {
		t.Fatalf("got %v, want a *CloseError with the cause", err)
	}
	if len(left.Left) != 1 || left.Left[0].Waiting != 2 || left.Left[0].Retrying != 1 {
		t.Errorf("left: got %+v, want 2 waiting and 1 to be retried", left.Left)
	}
}

func testSUB8(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	var sub *hark.Subscription
	made := make(chan struct{})
	sub = subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		<-made
		if m.Value == 5 {
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		}
		return w.handle(ctx, m)
	})
	publish(ctx, t, topic, count(0, 100)...)
	until(ctx, t, "all have come", func() bool { s := sub.Stats(); return s.Waiting+s.InFlight == 100 })
	close(made)
	wantEqual(t, "values", w.wait(ctx, t, 6), count(0, 6))
	until(ctx, t, "everything is accounted for", func() bool {
		s := sub.Stats()
		return s.Delivered == 6 && s.Dropped == 94 && s.Waiting+s.InFlight+s.Retrying == 0
	})
	publish(ctx, t, topic, count(0, 2000)...) // publishing waits for no subscription
}

func testSUB9(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	got := make(chan error, 1)
	var sub *hark.Subscription
	made := make(chan struct{})
	sub = subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		<-made
		got <- sub.Drain(ctx)
		return nil
	})
	close(made)
	publish(ctx, t, topic, 1)
	select {
	case err := <-got:
		if !errors.Is(err, hark.ErrWouldDeadlock) {
			t.Errorf("got %v, want ErrWouldDeadlock", err)
		}
	case <-ctx.Done():
		t.Fatal("Drain hangs")
	}
	publish(ctx, t, topic, 2)
	<-got // the subscription continues
}

func testSUB10(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	for i := range 200 {
		sub := subscribe(t, topic, func(context.Context, *hark.Message[int]) error { return nil })
		publish(ctx, t, topic, i)
		var err error
		if i%2 == 0 {
			err = sub.Close()
		} else {
			err = sub.Drain(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "values", w.wait(ctx, t, 200), count(0, 200))
}
