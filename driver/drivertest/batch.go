package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

var batchClauses = []Clause{
	{"BAT-1", "a batch has at most n messages, in order, and each comes once", testBAT1},
	{"BAT-2", "a *BatchError fails the items it names and no others", testBAT2},
	{"BAT-3", "any other error fails the whole batch", testBAT3},
	{"BAT-4", "a batch that does not fill is handled all the same", testBAT4},
	{"BAT-5", "a member that leaves hands its unfinished batch back", testBAT5},
	{"BAT-6", "failed items of one key are retried in order", testBAT6},
	{"BAT-7", "batches of one worker keep the order, also after a pause", testBAT7},
	{"DLY-1", "a delayed message comes when it is due, in order of due times", testDLY1},
	{"DLY-2", "a time that has passed means at once", testDLY2},
	{"TTL-1", "an expired message is dropped and counted", testTTL1},
	{"TTL-2", "the TTL of a delayed message counts from when it is due", testTTL2},
	{"DED-1", "a repeated ID is published once within the window", testDED1},
	{"DED-2", "a publish that fails does not use up its ID", testDED2},
	{"DED-3", "identity is the ID, never the value", testDED3},
	{"DED-4", "a repeat waits to know whether the first was published", testDED4},
}

// batches records each batch as a slice.
func batches(w *recorder[int], sizes *recorder[int]) hark.BatchHandler[int] {
	return func(_ context.Context, batch []*hark.Message[int]) error {
		sizes.note(len(batch))
		for _, m := range batch {
			w.note(m.Value)
		}
		return nil
	}
}

func testBAT1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w, sizes := newRecorder[int](), newRecorder[int]()
	sub := must(topic.SubscribeBatch(batches(w, sizes), hark.Batch(7, 5*time.Millisecond)))(t)
	publish(ctx, t, topic, count(0, 100)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.all(), count(0, 100))
	for _, n := range sizes.all() {
		if n < 1 || n > 7 {
			t.Errorf("a batch of %d, want 1 to 7", n)
		}
	}
	if s := sub.Stats(); s.Delivered != 100 {
		t.Errorf("got %+v, want 100 delivered", s)
	}
}

func testBAT2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := must(topic.SubscribeBatch(func(_ context.Context, batch []*hark.Message[int]) error {
		err := &hark.BatchError{}
		for i, m := range batch {
			switch {
			case m.Value%3 == 0 && m.Attempt() == 1:
				err.Items = append(err.Items, hark.ItemError{Index: i, Err: errHandler})
			case m.Value%3 == 1:
				err.Items = append(err.Items, hark.ItemError{Index: i, Err: hark.Drop(errHandler)})
			default:
				w.note(m.Value)
			}
		}
		return err
	}, append(quick(3), hark.Batch(10, time.Millisecond))...))(t)
	publish(ctx, t, topic, count(0, 60)...)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	got := w.all()
	slices.Sort(got)
	wantEqual(t, "values", got, slices.DeleteFunc(count(0, 60), func(n int) bool { return n%3 == 1 }))
	if s := sub.Stats(); s.Delivered != 40 || s.Dropped != 20 || s.Failed != 40 || s.Redelivered != 20 {
		t.Errorf("got %+v, want 40 delivered, 20 dropped, 40 failed, 20 redelivered", s)
	}
}

func testBAT3(t *testing.T, open Opener) {
	for what, fail := range map[string]func() error{
		"error": func() error { return errHandler },
		"panic": func() error { panic("no good") },
		"wrapped error of another batch": func() error {
			return fmt.Errorf("publish: %w", &hark.BatchError{Items: []hark.ItemError{{Index: 0, Err: errHandler}}})
		},
		"no such item": func() error {
			return &hark.BatchError{Items: []hark.ItemError{{Index: 99, Err: errHandler}}}
		},
	} {
		ctx, bus := start(t, open)
		topic := newTopic[int](t, bus, "a")
		w := newRecorder[int]()
		sub := must(topic.SubscribeBatch(func(_ context.Context, batch []*hark.Message[int]) error {
			for _, m := range batch {
				if m.Attempt() == 1 {
					return fail()
				}
			}
			for _, m := range batch {
				w.note(m.Value)
			}
			return nil
		}, append(quick(30), hark.Batch(10, time.Millisecond))...))(t)
		sub.Pause()
		publish(ctx, t, topic, count(0, 10)...)
		sub.Resume()
		got := w.wait(ctx, t, 10)
		slices.Sort(got)
		wantEqual(t, what, got, count(0, 10))
		until(ctx, t, "all failed once or more", func() bool { s := sub.Stats(); return s.Failed >= 10 && s.Delivered == 10 })
	}
}

func testBAT4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w, sizes := newRecorder[int](), newRecorder[int]()
	must(topic.SubscribeBatch(batches(w, sizes), hark.Batch(1000, 2*time.Millisecond)))(t)
	for i := range 3 {
		publish(ctx, t, topic, i)
		w.wait(ctx, t, i+1)
	}
	wantEqual(t, "values", w.all(), count(0, 3))
}

func testBAT5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := groupTopic[int](t, bus, "a")
	w, sizes := newRecorder[int](), newRecorder[int]()
	gatherer := must(topic.SubscribeBatch(batches(w, sizes), hark.Group("g"), hark.Batch(1000, time.Hour)))(t)
	publish(ctx, t, topic, count(0, 20)...)
	until(ctx, t, "the batch is gathered", func() bool { return gatherer.Stats().InFlight == 20 })
	must(topic.SubscribeBatch(batches(w, sizes), hark.Group("g"), hark.Batch(10, time.Millisecond)))(t)
	if err := gatherer.Close(); err != nil {
		t.Fatal(err)
	}
	got := waitDistinct(ctx, t, bus, w, 20)
	slices.Sort(got)
	wantEqual(t, "values", got, count(0, 20))
}

func testBAT6(t *testing.T, open Opener) {
	for _, workers := range []int{1, 3} {
		ctx, bus := start(t, open)
		topic := newTopic[keyed](t, bus, "a", hark.KeyBy(byKey))
		w := newRecorder[keyed]()
		sub := must(topic.SubscribeBatch(func(_ context.Context, batch []*hark.Message[keyed]) error {
			err := &hark.BatchError{}
			for i, m := range batch {
				if m.Attempt() == 1 {
					err.Items = append(err.Items, hark.ItemError{Index: i, Err: errHandler})
				} else {
					w.note(m.Value)
				}
			}
			return err
		}, append(quick(3), hark.Batch(8, time.Millisecond), hark.Workers(workers))...))(t)
		publishKeyed(ctx, t, topic, 2, 30)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		got := w.all()
		if len(got) != 60 {
			t.Errorf("%d workers: handled %d, want 60", workers, len(got))
		}
		wantOrderPer(t, got, 2)
	}
}

func testBAT7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.KeyBy(func(n int) string { return string(rune('a' + n%3)) }))
	w := newRecorder[int]()
	sub := must(topic.SubscribeBatch(func(_ context.Context, batch []*hark.Message[int]) error {
		for _, m := range batch {
			w.note(m.Value)
		}
		return nil
	}, hark.Batch(40, time.Hour)))(t)
	publish(ctx, t, topic, count(0, 20)...)
	until(ctx, t, "half a batch is gathered", func() bool { return sub.Stats().InFlight == 20 })
	sub.Pause()
	publish(ctx, t, topic, count(20, 30)...)
	until(ctx, t, "it is handed back", func() bool { return sub.Stats().InFlight == 0 })
	sub.Resume()
	publish(ctx, t, topic, count(30, 45)...)
	wantEqual(t, "values", w.wait(ctx, t, 40), count(0, 40))
	if err := sub.Drain(ctx); err != nil { // Drain does not wait for a full batch
		t.Fatal(err)
	}
	wantEqual(t, "all values", w.all(), count(0, 45))
}

func testDLY1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	type arrival struct {
		value int
		at    time.Time
	}
	w := newRecorder[arrival]()
	subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		w.note(arrival{m.Value, time.Now()})
		return nil
	})
	inTurn := false
	for seen, unit := 0, 20*time.Millisecond; !inTurn; seen, unit = seen+4, 4*unit {
		began := time.Now()
		for _, units := range []int{2, 1, 3, 0} {
			var opts []hark.PublishOption
			if units > 0 {
				opts = append(opts, hark.Delay(time.Duration(units)*unit))
			}
			if err := topic.Publish(ctx, units, opts...); err != nil {
				t.Fatal(err)
			}
		}
		inTurn = time.Since(began) < unit // none was due before all were published; otherwise try again more slowly
		var values []int
		for _, a := range w.wait(ctx, t, seen+4)[seen:] {
			values = append(values, a.value)
			if due := began.Add(time.Duration(a.value) * unit); a.at.Before(due) {
				t.Errorf("%d came %v early", a.value, due.Sub(a.at))
			}
		}
		if inTurn {
			wantEqual(t, "values", values, []int{0, 1, 2, 3})
		}
	}
}

func testDLY2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	if err := topic.Publish(ctx, 1, hark.At(time.Now().Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(ctx, 2, hark.Delay(0)); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.wait(ctx, t, 2), []int{1, 2})
}

func testTTL1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle)
	sub.Pause()
	if err := topic.Publish(ctx, 1, hark.TTL(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(ctx, 2, hark.TTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	expired := time.Now().Add(2 * time.Millisecond)
	until(ctx, t, "the TTL is over", func() bool { return time.Now().After(expired) })
	sub.Resume()
	wantEqual(t, "values", w.wait(ctx, t, 1), []int{2})
	until(ctx, t, "it is counted", func() bool { s := sub.Stats(); return s.Dropped == 1 && s.Delivered == 1 })
}

func testTTL2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	if err := topic.Publish(ctx, 1, hark.Delay(30*time.Millisecond), hark.TTL(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(ctx, 2, hark.TTL(10*time.Second), hark.Delay(20*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.wait(ctx, t, 2), []int{2, 1})
}

func testDED1(t *testing.T, open Opener) {
	for _, tt := range []struct {
		name string
		opt  hark.TopicOption
	}{{"stored", hark.Stored(hark.Retention{})}, {"ephemeral", hark.DedupWindow(time.Hour)}} {
		ctx, bus := start(t, open)
		topic, err := hark.NewTopic[int](bus, tt.name, tt.opt)
		if tt.name == "ephemeral" && errors.Is(err, hark.ErrUnsupported) {
			return // the engine recognizes repeats only on stored topics, which is allowed
		}
		topic = must(topic, err)(t)
		w := newRecorder[int]()
		subscribe(t, topic, w.handle)
		pub := topic.Publisher()
		var wrong atomic.Int32
		for i := range 10 {
			for _, err := range []error{
				topic.Publish(ctx, i, hark.ID(fmt.Sprint(i))),
				topic.Publish(ctx, 100+i, hark.ID(fmt.Sprint(i))),
				pub.Publish(ctx, 200+i, hark.ID(fmt.Sprint(i))),
			} {
				if err != nil {
					wrong.Add(1)
				}
			}
		}
		pub.Close()
		publish(ctx, t, topic, 10)
		wantEqual(t, tt.name, w.wait(ctx, t, 11), count(0, 11))
		if got := bus.Stats().Topics[0].Deduplicated; got != 20 || wrong.Load() != 0 {
			t.Errorf("deduplicated %d with %d errors, want 20 and none", got, wrong.Load())
		}
	}
}

func testDED2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.DedupWindow(time.Hour))
	_, w, g := stalled(ctx, t, topic, hark.Buffer(1), hark.Overflow(hark.Fail))
	publish(ctx, t, topic, 1)
	if err := topic.Publish(ctx, 2, hark.ID("x")); !errors.Is(err, hark.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	g.release()
	w.wait(ctx, t, 2)
	until(ctx, t, "there is room", func() bool { return topic.Publish(ctx, 2, hark.ID("x")) == nil })
	wantEqual(t, "values", w.wait(ctx, t, 3), []int{0, 1, 2})
}

func testDED3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := groupTopic[int](t, bus, "a", hark.DedupWindow(time.Hour))
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	for i := range 5 {
		if err := topic.Publish(ctx, 7, hark.ID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	publish(ctx, t, topic, 7, 7) // without an ID, nothing is a repeat
	wantEqual(t, "values", w.wait(ctx, t, 7), []int{7, 7, 7, 7, 7, 7, 7})
}

func testDED4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.DedupWindow(time.Hour))
	_, w, g := stalled(ctx, t, topic, hark.Buffer(1))
	publish(ctx, t, topic, 1)
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- topic.Publish(short, 2, hark.ID("x")) }()
	go func() { second <- topic.Publish(ctx, 2, hark.ID("x")) }()
	cancel()
	err := <-first // the second was published, or waits, or will be published
	g.release()
	if err2 := <-second; err2 != nil {
		t.Errorf("second: got %v (the first: %v)", err2, err)
	}
	wantEqual(t, "values", w.wait(ctx, t, 3), []int{0, 1, 2})
}
