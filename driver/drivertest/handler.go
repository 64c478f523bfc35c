package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var handlerClauses = []Clause{
	{"HDL-1", "a handler may publish to its own full topic", testHDL1},
	{"HDL-2", "a handler may publish without its context", testHDL2},
	{"HDL-3", "handlers may publish in a circle of topics", testHDL3},
	{"HDL-4", "a handler that asks itself gets ErrWouldDeadlock", testHDL4},
	{"TYP-1", "one name has one type", testTYP1},
	{"TYP-2", "options of a topic are what its first maker said", testTYP2},
	{"ITR-1", "an iterator yields each message; the next one means done", testITR1},
	{"ITR-2", "an iterator ends with its context, saying why", testITR2},
	{"ITR-3", "a loop that ends hands back what it has not seen", testITR3},
	{"ITR-4", "a loop that panics gives its message back", testITR4},
	{"ITR-5", "options without a meaning for iterators are refused", testITR5},
	{"ITR-6", "UntilNow ends a loop after what is stored when it begins", testITR6},
	{"MID-1", "the first middleware is the outermost", testMID1},
	{"MID-2", "retries are the subscription's, whatever the middleware", testMID2},
}

// circle subscribes to each topic with a handler that publishes what it
// receives to the next topic, twice, until a value has gone round n times.
func circle(ctx context.Context, t *testing.T, bus *hark.Bus, topics int, own func(context.Context) context.Context, opts ...hark.SubscribeOption) {
	t.Helper()
	const depth = 8 // every value makes two: 2^8-1 messages for each
	ring := make([]*hark.Topic[int], topics)
	for i := range ring {
		ring[i] = newTopic[int](t, bus, fmt.Sprintf("ring.t%d", i))
	}
	var handled atomic.Int64
	all := make(chan struct{})
	const starts = 4
	want := int64(starts * (1<<(depth+1) - 1))
	for i, topic := range ring {
		next := ring[(i+1)%topics]
		subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
			if m.Value < depth {
				for range 2 {
					if err := next.Publish(own(ctx), m.Value+1); err != nil {
						t.Errorf("publish from a handler: %v", err)
					}
				}
			}
			if handled.Add(1) == want {
				close(all)
			}
			return nil
		}, opts...)
	}
	for range starts {
		publish(ctx, t, ring[0], 0)
	}
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("handlers hang after %d of %d messages", handled.Load(), want)
	}
}

func asItIs(ctx context.Context) context.Context { return ctx }

func without(context.Context) context.Context { return context.Background() }

var manners = []struct {
	name string
	opts []hark.SubscribeOption
}{
	{"alone", []hark.SubscribeOption{hark.Buffer(2)}},
	{"workers", []hark.SubscribeOption{hark.Buffer(2), hark.Workers(3)}},
	{"group", []hark.SubscribeOption{hark.Buffer(2), hark.Group("g"), hark.Workers(2)}},
}

func testHDL1(t *testing.T, open Opener) {
	for _, manner := range manners {
		t.Run(manner.name, func(t *testing.T) {
			ctx, bus := start(t, open)
			circle(ctx, t, bus, 1, asItIs, manner.opts...)
			needs(t, bus, driver.Backpressure)
			if s := bus.Stats().Topics[0].Subscriptions[0]; s.BufferExceeded == 0 {
				t.Errorf("got %+v, want some let in beyond the buffer", s)
			}
		})
	}
}

func testHDL2(t *testing.T, open Opener) {
	for _, manner := range manners {
		t.Run(manner.name, func(t *testing.T) {
			ctx, bus := start(t, open)
			circle(ctx, t, bus, 1, without, manner.opts...)
		})
	}
}

func testHDL3(t *testing.T, open Opener) {
	for _, manner := range manners {
		for way, own := range map[string]func(context.Context) context.Context{"own context": asItIs, "background": without} {
			t.Run(manner.name+", "+way, func(t *testing.T) {
				ctx, bus := start(t, open)
				circle(ctx, t, bus, 3, own, manner.opts...)
			})
		}
	}
}

func testHDL4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Deadlocks)
	must(hark.Reply(bus, "x", func(ctx context.Context, n int) (int, error) {
		return hark.Request[int, int](ctx, bus, "x", n)
	}))(t)
	if _, err := hark.Request[int, int](ctx, bus, "x", 1); !errors.Is(err, hark.ErrWouldDeadlock) {
		t.Errorf("got %v, want ErrWouldDeadlock", err)
	}
}

func testTYP1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[int]()
	subscribe(t, newTopic[int](t, bus, "a"), w.handle)
	if _, err := hark.NewTopic[string](bus, "a"); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("got %v, want ErrTypeMismatch", err)
	}
	if _, err := hark.NewTopic[int](bus, "b", hark.KeyBy(func(string) string { return "" })); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("key of another type: got %v, want ErrTypeMismatch", err)
	}
	publish(ctx, t, newTopic[int](t, bus, "a"), 1) // the same topic
	wantEqual(t, "values", w.wait(ctx, t, 1), []int{1})
}

func testTYP2(t *testing.T, open Opener) {
	_, bus := start(t, open)
	newTopic[int](t, bus, "a", hark.Stored(hark.Retention{MaxMessages: 5}))
	newTopic[int](t, bus, "a")
	newTopic[int](t, bus, "a", hark.Stored(hark.Retention{MaxMessages: 5}))
	newTopic[int](t, bus, "b")
	for what, err := range map[string]error{
		"other retention": second(hark.NewTopic[int](bus, "a", hark.Stored(hark.Retention{}))),
		"stored later":    second(hark.NewTopic[int](bus, "b", hark.Stored(hark.Retention{}))),
		"key later":       second(hark.NewTopic[int](bus, "b", hark.KeyBy(func(int) string { return "" }))),
		"window later":    second(hark.NewTopic[int](bus, "b", hark.DedupWindow(1))),
		"no key":          second(hark.NewTopic[int](bus, "c", hark.KeyBy[int](nil))),
		"negative":        second(hark.NewTopic[int](bus, "d", hark.Stored(hark.Retention{MaxMessages: -1}))),
	} {
		refused := !inProcess(bus) && errors.Is(err, hark.ErrUnsupported)
		if !errors.Is(err, hark.ErrInvalidOption) && !refused {
			t.Errorf("%s: got %v, want ErrInvalidOption", what, err)
		}
	}
}

func second[V any](_ V, err error) error { return err }

func testITR1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	publish(ctx, t, topic, count(0, 100)...)
	var got []int
	for m, err := range topic.Messages(ctx, hark.FromStart()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m.Value); len(got) == 100 {
			break
		}
	}
	wantEqual(t, "values", got, count(0, 100))
	if subs := bus.Stats().Topics[0].Subscriptions; len(subs) != 0 {
		t.Errorf("subscriptions after the loop: %+v", subs)
	}
}

func testITR2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	publish(ctx, t, topic, count(0, 10)...)
	why := errors.New("enough")
	short, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var got []int
	var last error
	for m, err := range topic.Messages(short, hark.FromStart()) {
		if err != nil {
			last = err
			continue
		}
		if got = append(got, m.Value); len(got) == 3 {
			cancel(why)
		}
	}
	wantEqual(t, "values", got, count(0, 3))
	if !errors.Is(last, why) {
		t.Errorf("got %v, want the cause", last)
	}

	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		for m, err := range topic.Messages(ctx, hark.Last(1)) {
			if m != nil {
				close(began)
			}
			last = err
		}
		ended <- last
	}()
	<-began
	if err := bus.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, hark.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func testITR3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	var got []int
	publish(ctx, t, topic, count(0, 100)...)
	for len(got) < 100 {
		for m, err := range topic.Messages(ctx, hark.Group("g"), hark.FromStart()) {
			if err != nil {
				t.Fatal(err)
			}
			if underFaults(bus) && slices.Contains(got, m.Value) { // under faults, each arrives at least once
				continue
			}
			if got = append(got, m.Value); len(got)%7 == 0 || len(got) == 100 {
				break
			}
		}
	}
	wantEqual(t, "values", inTurn(bus, got), count(0, 100))
}

// inTurn returns the values that a group received, in order. Over an engine it
// sorts them, because a message that was returned to the engine comes again
// after those that had already been fetched.
func inTurn(bus *hark.Bus, got []int) []int {
	if !inProcess(bus) {
		slices.Sort(got)
	}
	return got
}

func testITR4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	publish(ctx, t, topic, 1, 2, 3)
	rest := []int{1, 2, 3} // the values that the loop does not finish
	func() {
		defer func() {
			if recover() != "no good" {
				t.Error("the panic did not come through")
			}
		}()
		for m, err := range topic.Messages(ctx, hark.Group("g"), hark.FromStart()) {
			if err != nil {
				t.Fatal(err)
			}
			if m.Value == 2 {
				panic("no good")
			}
			rest = slices.DeleteFunc(rest, func(n int) bool { return n == m.Value })
		}
	}()
	if !underFaults(bus) { // faults may have let 3 pass
		wantEqual(t, "values not finished", rest, []int{2, 3})
	}
	w := newRecorder[int]()
	subscribe(t, topic, w.handle, hark.Group("g"))
	wantEqual(t, "values after the panic", inTurn(bus, waitDistinct(ctx, t, bus, w, len(rest))), rest)
}

func testITR5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	for what, opt := range map[string]hark.SubscribeOption{
		"workers": hark.Workers(2), "attempts": hark.MaxAttempts(2), "timeout": hark.Timeout(1),
		"dead letter": hark.DeadLetter("d"), "batch": hark.Batch(2, 0), "past": hark.FromStart(),
	} {
		n := 0
		for m, err := range topic.Messages(ctx, opt) {
			if n++; m != nil || !errors.Is(err, hark.ErrInvalidOption) {
				t.Errorf("%s: got %v and %v, want ErrInvalidOption", what, m, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: the loop ran %d times, want once", what, n)
		}
	}
}

func testITR6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{MaxMessages: 1000}))
	read := func(opts ...hark.SubscribeOption) (values []int) {
		t.Helper()
		for m, err := range topic.Messages(ctx, append(opts, hark.UntilNow())...) {
			if err != nil {
				t.Fatal(err)
			}
			if values = append(values, m.Value); len(values) == 1 {
				publish(ctx, t, topic, 0) // too late for this loop
			}
		}
		return values
	}
	wantEqual(t, "values of an empty topic", read(hark.FromStart()), nil)
	publish(ctx, t, topic, count(1, 1101)...)
	wantEqual(t, "values from the start", read(hark.FromStart()), count(101, 1101))
	wantEqual(t, "the last values", read(hark.Last(3)), []int{1099, 1100, 0})
	wantEqual(t, "values beyond the end", read(hark.FromSeq(2000)), nil)
	odd := hark.Where(hark.MatchFunc[int](func(n int) bool { return n%2 == 1 }))
	wantEqual(t, "values that match", read(hark.Last(5), odd), []int{1099})
	never := hark.Where(hark.MatchFunc[int](func(int) bool { return false }))
	wantEqual(t, "values of which none matches", read(hark.FromStart(), never), nil)
	for what, opts := range map[string][]hark.SubscribeOption{
		"no start": {}, "from now": {hark.FromNow()}, "a group": {hark.FromStart(), hark.Group("g")},
	} {
		for m, err := range topic.Messages(ctx, append(opts, hark.UntilNow())...) {
			if m != nil || !errors.Is(err, hark.ErrInvalidOption) {
				t.Errorf("%s: got %v and %v, want ErrInvalidOption", what, m, err)
			}
		}
	}
	if _, err := topic.Subscribe(newRecorder[int]().handle, hark.FromStart(), hark.UntilNow()); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("subscribe: got %v, want ErrInvalidOption", err)
	}
	cause := errors.New("enough")
	ending, end := context.WithCancelCause(ctx)
	defer end(nil)
	var last error
	for _, err := range topic.Messages(ending, hark.FromStart(), hark.UntilNow()) {
		end(cause)
		last = err
	}
	if !errors.Is(last, cause) {
		t.Errorf("the context ended: got %v, want its cause", last)
	}
}

func testMID1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[string]()
	for _, name := range []string{"first", "second"} {
		bus.Use(func(next hark.MessageHandler) hark.MessageHandler {
			return func(ctx context.Context, m hark.AnyMessage) error {
				w.note(name + " in " + m.Topic())
				defer w.note(name + " out")
				return next(ctx, m)
			}
		})
	}
	topic := newTopic[int](t, bus, "a")
	subscribe(t, topic, func(context.Context, *hark.Message[int]) error {
		w.note("handler")
		return nil
	})
	publish(ctx, t, topic, 1)
	wantEqual(t, "calls", w.wait(ctx, t, 5), []string{"first in a", "second in a", "handler", "second out", "first out"})
}

func testMID2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Stored)
	w := newRecorder[int]()
	bus.Use(func(next hark.MessageHandler) hark.MessageHandler {
		return func(ctx context.Context, m hark.AnyMessage) error {
			w.note(m.Attempt())
			return next(ctx, m)
		}
	})
	topic := newTopic[int](t, bus, "a")
	sub := subscribe(t, topic, func(context.Context, *hark.Message[int]) error { return errHandler }, quick(4)...)
	publish(ctx, t, topic, 1)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "attempts", w.all(), []int{1, 2, 3, 4})
	if s := sub.Stats(); s.Dead != 1 {
		t.Errorf("got %+v, want 1 dead", s)
	}
}
