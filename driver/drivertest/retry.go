package drivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var retryClauses = []Clause{
	{"RTY-1", "a failed message comes again, MaxAttempts times in all", testRTY1},
	{"RTY-2", "RetryAfter puts the next attempt off", testRTY2},
	{"RTY-3", "a panic is an error with a stack", testRTY3},
	{"RTY-4", "Timeout ends the handler's context with ErrTimeout", testRTY4},
	{"RTY-5", "Drop gives a message up, counted", testRTY5},
	{"RTY-6", "a handler that ends its goroutine has failed", testRTY6},
	{"RTY-7", "each subscription retries for itself", testRTY7},
	{"DLQ-1", "a message given up goes to <topic>.dead with its record", testDLQ1},
	{"DLQ-2", "Reject makes a dead letter at once", testDLQ2},
	{"DLQ-3", "a dead-letter topic of another type is refused at once", testDLQ3},
	{"DLQ-4", "NoDeadLetter drops, counted", testDLQ4},
	{"DLQ-5", "a dead letter keeps value, ID, key and headers", testDLQ5},
	{"DLQ-6", "dead letters never go round in circles", testDLQ6},
}

var errHandler = errors.New("the handler failed")

func testRTY1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Stored)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		w.note(m.Attempt())
		if m.Attempt() < m.Value {
			return errHandler
		}
		return nil
	}, quick(4)...)
	publish(ctx, t, topic, 3)
	wantEqual(t, "attempts", w.wait(ctx, t, 3), []int{1, 2, 3})
	publish(ctx, t, topic, 100)
	wantEqual(t, "attempts", w.wait(ctx, t, 7)[3:], []int{1, 2, 3, 4})
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	s := sub.Stats()
	if s.Delivered != 1 || s.Dead != 1 || s.Failed != 6 || s.Redelivered != 5 {
		t.Errorf("got %+v, want 1 delivered, 1 dead, 6 failed, 5 redelivered", s)
	}
}

func testRTY2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[time.Time]()
	subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		w.note(time.Now())
		if m.Attempt() == 1 {
			return fmt.Errorf("wrapped: %w", hark.RetryAfter(30*time.Millisecond, errHandler))
		}
		return nil
	})
	publish(ctx, t, topic, 1)
	at := w.wait(ctx, t, 2)
	if got := at[1].Sub(at[0]); got < 30*time.Millisecond {
		t.Errorf("the second attempt came after %v, want at least 30ms", got)
	}
}

// deadOf subscribes to the dead letters of a topic of ints.
func deadOf(t *testing.T, bus *hark.Bus, name string) *recorder[hark.Message[int]] {
	t.Helper()
	w := newRecorder[hark.Message[int]]()
	dead := newTopic[int](t, bus, name, hark.Stored(hark.Retention{}))
	subscribe(t, dead, func(_ context.Context, m *hark.Message[int]) error {
		w.note(*m.Clone())
		return nil
	})
	return w
}

func testRTY3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	dead := deadOf(t, bus, "a.dead")
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 1 {
			panic("no good")
		}
		return w.handle(ctx, m)
	}, quick(2)...)
	publish(ctx, t, topic, 0, 1, 2)
	wantEqual(t, "values", w.wait(ctx, t, 2), []int{0, 2})
	m := dead.wait(ctx, t, 1)[0]
	f := m.Failure()
	if f == nil || f.Attempts != 2 || !strings.Contains(f.Reason, "no good") || !strings.Contains(f.Stack, "testRTY3") {
		t.Errorf("got %+v, want 2 attempts, the panic and its stack", f)
	}
	subscribe(t, newTopic[int](t, bus, "b"), func(context.Context, *hark.Message[int]) error {
		var none *nilError
		return none
	}, append(quick(2), hark.DeadLetter("a.dead"))...)
	publish(ctx, t, newTopic[int](t, bus, "b"), 7)
	if m := dead.wait(ctx, t, 2)[1]; m.Value != 7 || m.Failure().Topic != "b" || m.Failure().Attempts != 2 {
		t.Errorf("got %d %+v, want the message whose handler returned an error that is a nil pointer", m.Value, m.Failure())
	}
}

// nilError panics if the pointer is nil.
type nilError struct{ cause error }

func (e *nilError) Error() string { return e.cause.Error() }
func (e *nilError) Unwrap() error { return e.cause }

func testRTY4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[error]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Attempt() > 1 {
			w.note(nil)
			return nil
		}
		<-ctx.Done()
		w.note(context.Cause(ctx))
		return ctx.Err()
	}, append(quick(3), hark.Timeout(time.Millisecond))...)
	publish(ctx, t, topic, 1)
	if got := w.wait(ctx, t, 2); !errors.Is(got[0], hark.ErrTimeout) || got[1] != nil {
		t.Errorf("got %v, want ErrTimeout and then nil", got)
	}
	until(ctx, t, "it is delivered", func() bool { s := sub.Stats(); return s.Failed == 1 && s.Delivered == 1 })
}

func testRTY5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		w.note(m.Value)
		if m.Value%2 == 0 {
			return hark.Drop(errHandler)
		}
		return nil
	})
	publish(ctx, t, topic, count(0, 10)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.all(), count(0, 10))
	if s := sub.Stats(); s.Dropped != 5 || s.Delivered != 5 || s.Dead != 0 {
		t.Errorf("got %+v, want 5 dropped and 5 delivered", s)
	}
}

func testRTY6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value%3 == 0 && m.Attempt() == 1 {
			runtime.Goexit()
		}
		return w.handle(ctx, m)
	}, quick(3)...)
	publish(ctx, t, topic, count(0, 30)...)
	got := w.wait(ctx, t, 30)
	slices.Sort(got)
	wantEqual(t, "values", got, count(0, 30))
	until(ctx, t, "10 are counted as failed", func() bool { return sub.Stats().Failed == 10 })
}

func testRTY7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	good, bad := newRecorder[int](), newRecorder[int]()
	subscribe(t, topic, good.handle)
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		bad.note(m.Value)
		if m.Attempt() < 3 {
			return errHandler
		}
		return nil
	}, quick(5)...)
	publish(ctx, t, topic, 1)
	wantEqual(t, "failing", bad.wait(ctx, t, 3), []int{1, 1, 1})
	publish(ctx, t, topic, 2)
	wantEqual(t, "good", good.wait(ctx, t, 2), []int{1, 2})
}

func testDLQ1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Stored)
	topic := newTopic[int](t, bus, "a.b")
	sub := subscribe(t, topic, func(context.Context, *hark.Message[int]) error { return errHandler }, quick(3)...)
	before := time.Now()
	publish(ctx, t, topic, 7)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	// The dead letter is there although no one was subscribed.
	for m, err := range newTopic[int](t, bus, "a.b.dead").Messages(ctx, hark.FromStart()) {
		if err != nil {
			t.Fatal(err)
		}
		f := m.Failure()
		if m.Value != 7 || f == nil || f.Topic != "a.b" || f.Subscription != sub.Name() || f.Attempts != 3 ||
			!strings.Contains(f.Reason, errHandler.Error()) || f.First.Before(before) || f.Last.Before(f.First) {
			t.Errorf("got %d with %+v", m.Value, f)
		}
		break
	}
	if s := sub.Stats(); s.Dead != 1 || s.Dropped != 0 {
		t.Errorf("got %+v, want 1 dead", s)
	}
}

func testDLQ2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	dead := deadOf(t, bus, "graveyard")
	topic := newTopic[int](t, bus, "a")
	subscribe(t, topic, func(context.Context, *hark.Message[int]) error {
		return hark.Reject(errHandler)
	}, hark.DeadLetter("graveyard"))
	publish(ctx, t, topic, 7)
	m := dead.wait(ctx, t, 1)[0]
	if f := m.Failure(); m.Value != 7 || f.Attempts != 1 {
		t.Errorf("got %d with %+v, want 7 after 1 attempt", m.Value, f)
	}
}

func testDLQ3(t *testing.T, open Opener) {
	_, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	newTopic[string](t, bus, "texts")
	h := func(context.Context, *hark.Message[int]) error { return nil }
	if _, err := topic.Subscribe(h, hark.DeadLetter("texts")); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("got %v, want ErrTypeMismatch", err)
	}
	if _, err := topic.Subscribe(h, hark.DeadLetter("a..b")); !errors.Is(err, hark.ErrInvalidName) {
		t.Errorf("got %v, want ErrInvalidName", err)
	}
}

func testDLQ4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	sub := subscribe(t, topic, func(context.Context, *hark.Message[int]) error { return errHandler },
		append(quick(2), hark.NoDeadLetter())...)
	publish(ctx, t, topic, 1, 2)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if s := sub.Stats(); s.Dropped != 2 || s.Dead != 0 || s.Failed != 4 {
		t.Errorf("got %+v, want 2 dropped after 4 failures", s)
	}
	for _, topic := range bus.Stats().Topics {
		if topic.Name == "a.dead" {
			t.Error("a dead-letter topic was made")
		}
	}
}

func testDLQ5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	dead := deadOf(t, bus, "a.dead")
	topic := newTopic[int](t, bus, "a")
	subscribe(t, topic, func(context.Context, *hark.Message[int]) error { return hark.Reject(nil) })
	if err := topic.Publish(ctx, 7, hark.ID("i"), hark.Key("k"), hark.Header("h", "v")); err != nil {
		t.Fatal(err)
	}
	m := dead.wait(ctx, t, 1)[0]
	h, _ := m.Header("h")
	if m.Value != 7 || m.ID() != "i" || m.Key() != "k" || h != "v" || m.Topic() != "a.dead" {
		t.Errorf("got value %d, ID %q, key %q, header %q, topic %q", m.Value, m.ID(), m.Key(), h, m.Topic())
	}
}

func testDLQ6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	reject := func(context.Context, *hark.Message[int]) error { return hark.Reject(errHandler) }
	if _, err := topic.Subscribe(reject, hark.DeadLetter("a")); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("own topic: got %v, want ErrInvalidOption", err)
	}
	subscribe(t, topic, reject)
	dead := newTopic[int](t, bus, "a.dead", hark.Stored(hark.Retention{}))
	sub := subscribe(t, dead, reject)
	publish(ctx, t, topic, 1)
	until(ctx, t, "the dead letter is dropped", func() bool { return sub.Stats().Dropped == 1 })
	for _, topic := range bus.Stats().Topics {
		if topic.Name == "a.dead.dead" {
			t.Error("a dead letter of a dead letter was made")
		}
	}

	// Two subscriptions name each other's topic, and one names a topic that it
	// subscribes to.
	kept := hark.Stored(hark.Retention{})
	one, two := newTopic[int](t, bus, "one", kept), newTopic[int](t, bus, "two", kept)
	first := subscribe(t, one, reject, hark.DeadLetter("two"))
	second := subscribe(t, two, reject, hark.DeadLetter("one"))
	publish(ctx, t, one, 1)
	until(ctx, t, "the dead letter of a dead letter does not go back", func() bool {
		return first.Stats().Dead == 1 && second.Stats().Dropped == 1
	})
	pattern, err := hark.SubscribePattern(bus, "p.>", reject, hark.DeadLetter("p.dead"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the subscription to the pattern: %+v", pattern.Stats())
		}
	}()
	publish(ctx, t, newTopic[int](t, bus, "p.x", kept), 1)
	until(ctx, t, "the dead letter of a pattern does not come back to it for ever", func() bool {
		return pattern.Stats().Dead == 1 && pattern.Stats().Dropped == 1
	})
	if n := first.Stats().Failed; n != 1 {
		t.Errorf("the first of the two was given %d messages, want 1", n)
	}
}
