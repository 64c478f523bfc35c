package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var groupClauses = []Clause{
	{"GRP-1", "each message goes to exactly one member of a group", testGRP1},
	{"GRP-2", "each group gets every message", testGRP2},
	{"GRP-3", "what a leaving member has not begun goes to the others", testGRP3},
	{"GRP-4", "a group on a stored topic keeps its place without members", testGRP4},
	{"GRP-5", "the members agree on their buffer", testGRP5},
	{"GRP-6", "members that drain at the same time leave nothing", testGRP6},
	{"GRP-7", "a stalled member holds up no other", testGRP7},
	{"KEY-1", "messages of one key are handled in order, one at a time", testKEY1},
	{"KEY-2", "a stalled key does not hold up others", testKEY2},
	{"KEY-3", "retries keep the order of a key", testKEY3},
	{"KEY-4", "the members of a group keep the order of keys together", testKEY4},
	{"KEY-5", "a key given to Publish comes before KeyBy", testKEY5},
	{"KEY-6", "an empty key is none", testKEY6},
	{"KEY-7", "KeyBy is the program's own code: it may use the bus, and panic", testKEY7},
}

func testGRP1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	for range 4 {
		subscribe(t, topic, w.handle, hark.Group("g"))
	}
	publish(ctx, t, topic, count(0, 1000)...)
	got := w.wait(ctx, t, 1000)
	slices.Sort(got)
	wantEqual(t, "values", got, count(0, 1000))
}

func testGRP2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	ws := map[string]*recorder[int]{}
	for _, group := range []string{"g", "h"} {
		w := newRecorder[int]()
		ws[group] = w
		for range 2 {
			sub := subscribe(t, topic, w.handle, hark.Group(group))
			if sub.Name() != group {
				t.Errorf("name: got %q, want %q", sub.Name(), group)
			}
		}
	}
	publish(ctx, t, topic, count(0, 300)...)
	for group, w := range ws {
		got := w.wait(ctx, t, 300)
		slices.Sort(got)
		wantEqual(t, "values of "+group, got, count(0, 300))
	}
}

func testGRP3(t *testing.T, open Opener) {
	for _, leave := range []string{"close", "drain"} {
		ctx, bus := start(t, open)
		topic := groupTopic[int](t, bus, "a")
		w := newRecorder[int]()
		subs := make([]*hark.Subscription, 5)
		for i := range subs {
			subs[i] = subscribe(t, topic, w.handle, hark.Group("g"))
		}
		ctx, fail := context.WithCancelCause(ctx)
		defer fail(nil)
		done := make(chan error, 1)
		go func() {
			err := topic.PublishAll(ctx, count(0, 3000))
			if err != nil {
				fail(fmt.Errorf("publish: %w", err)) // nobody waits in vain for what is not published
			}
			done <- err
		}()
		for i, sub := range subs[1:] {
			w.wait(ctx, t, 100*i)
			var err error
			if leave == "close" {
				err = sub.Close()
			} else {
				err = sub.Drain(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		got := waitDistinct(ctx, t, bus, w, 3000)
		slices.Sort(got)
		wantEqual(t, "values", got, count(0, 3000))
	}
}

func testGRP4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle, hark.Group("g"))
	publish(ctx, t, topic, count(0, 10)...)
	waitDistinct(ctx, t, bus, w, 10)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, topic, count(10, 500)...)
	sub = subscribe(t, topic, w.handle, hark.Group("g"))
	wantEqual(t, "values", waitDistinct(ctx, t, bus, w, 500), count(0, 500))
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, topic, 500) // the bus closes even though no one receives it
}

func testGRP5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	h := func(context.Context, *hark.Message[int]) error { return nil }
	subscribe(t, topic, h, hark.Group("g"), hark.Buffer(8))
	subscribe(t, topic, h, hark.Group("g"), hark.Buffer(8))
	for what, opts := range map[string][]hark.SubscribeOption{
		"another buffer": {hark.Group("g"), hark.Buffer(9)},
		"another policy": {hark.Group("g"), hark.Buffer(8), hark.Overflow(hark.DropOldest)},
		"no buffer":      {hark.Group("g")},
		"bad name":       {hark.Group("a b")},
	} {
		if _, err := topic.Subscribe(h, opts...); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", what, err)
		}
	}

	// A member has its own options, not those of the first.
	topic = newTopic[int](t, bus, "b")
	above := func(least int) hark.SubscribeOption {
		return hark.Where(hark.MatchFunc[int](func(n int) bool { return n >= least }))
	}
	first := subscribe(t, topic, h, hark.Group("g"), above(100), hark.MaxAttempts(1))
	w := newRecorder[int]()
	second := subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		w.note(10*m.Value + m.Attempt())
		return errors.New("no")
	}, hark.Group("g"), above(2), hark.MaxAttempts(2), hark.Backoff(hark.BackoffPolicy{Min: 1, Max: 1}), hark.NoDeadLetter())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, topic, 1, 2)
	got := w.wait(ctx, t, 2)
	if err := second.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if !underFaults(bus) { // messages may come again
		wantEqual(t, "values and attempts", w.all(), []int{21, 22})
	} else if got[0] != 21 {
		t.Errorf("value and attempt: got %d, want 21", got[0])
	}
}

func testGRP6(t *testing.T, open Opener) {
	for range 20 {
		ctx, bus := start(t, open)
		topic := newTopic[int](t, bus, "a")
		var handled atomic.Int64
		subs := make([]*hark.Subscription, 4)
		for i := range subs {
			subs[i] = subscribe(t, topic, func(context.Context, *hark.Message[int]) error {
				handled.Add(1)
				return nil
			}, hark.Group("g"))
		}
		publish(ctx, t, topic, count(0, 500)...)
		done := make(chan error, len(subs))
		for _, sub := range subs {
			go func() { done <- sub.Drain(ctx) }()
		}
		for range subs {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := handled.Load(); got != 500 {
			t.Errorf("handled %d, want 500", got)
		}
	}
}

func testGRP7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.HandBack)
	topic := newTopic[int](t, bus, "a")
	g := newGate(t)
	w := newRecorder[int]()
	h := func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 0 {
			if err := g.pass(ctx); err != nil {
				return err
			}
		}
		return w.handle(ctx, m)
	}
	for range 2 {
		subscribe(t, topic, h, hark.Group("g"))
	}
	publish(ctx, t, topic, 0)
	g.reached(ctx, t, 1)
	publish(ctx, t, topic, count(1, 300)...)
	got := w.wait(ctx, t, 299)
	slices.Sort(got)
	wantEqual(t, "values", got, count(1, 300))
	g.release()
	w.wait(ctx, t, 300)
}

// keyed is a value {key, number within the key}.
type keyed = [2]int

func byKey(v keyed) string { return string(rune('a' + v[0])) }

// keyedHandler checks that no two messages of a key are handled at the same
// time.
func keyedHandler(t *testing.T, w *recorder[keyed], keys int) hark.Handler[keyed] {
	inside := make([]atomic.Int32, keys)
	return func(ctx context.Context, m *hark.Message[keyed]) error {
		if inside[m.Value[0]].Add(1) != 1 {
			t.Errorf("two messages of key %d at a time", m.Value[0])
		}
		defer inside[m.Value[0]].Add(-1)
		return w.handle(ctx, m)
	}
}

func publishKeyed(ctx context.Context, t *testing.T, topic *hark.Topic[keyed], keys, each int) {
	t.Helper()
	for i := range each {
		for k := range keys {
			publish(ctx, t, topic, keyed{k, i})
		}
	}
}

func testKEY1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[keyed](t, bus, "a", hark.KeyBy(byKey))
	w := newRecorder[keyed]()
	subscribe(t, topic, keyedHandler(t, w, 7), hark.Workers(8))
	publishKeyed(ctx, t, topic, 7, 300)
	wantOrderPer(t, w.wait(ctx, t, 7*300), 7)
}

func testKEY2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[keyed](t, bus, "a", hark.KeyBy(byKey))
	g := newGate(t)
	w := newRecorder[keyed]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[keyed]) error {
		if m.Value[0] == 0 {
			if err := g.pass(ctx); err != nil {
				return err
			}
		}
		return w.handle(ctx, m)
	}, hark.Workers(3))
	publishKeyed(ctx, t, topic, 4, 20)
	for _, v := range w.wait(ctx, t, 3*20) {
		if v[0] == 0 {
			t.Errorf("got %v, which was held", v)
		}
	}
	g.release()
	wantOrderPer(t, w.wait(ctx, t, 4*20), 4)
}

func testKEY3(t *testing.T, open Opener) {
	for _, workers := range []int{1, 4} {
		ctx, bus := start(t, open)
		topic := newTopic[keyed](t, bus, "a", hark.KeyBy(byKey))
		w := newRecorder[keyed]()
		handle := keyedHandler(t, w, 3)
		sub := subscribe(t, topic, func(ctx context.Context, m *hark.Message[keyed]) error {
			if (m.Value[0]+m.Value[1])%5 == 0 && m.Attempt() < 3 {
				return errors.New("again")
			}
			return handle(ctx, m)
		}, append(quick(5), hark.Workers(workers))...)
		publishKeyed(ctx, t, topic, 3, 40)
		wantOrderPer(t, w.wait(ctx, t, 3*40), 3)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if got := len(w.all()); got != 3*40 {
			t.Errorf("%d workers: handled %d, want %d", workers, got, 3*40)
		}
	}
}

func testKEY4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := groupTopic[keyed](t, bus, "a", hark.KeyBy(byKey))
	w := newRecorder[keyed]()
	handle := keyedHandler(t, w, 5)
	subs := make([]*hark.Subscription, 4)
	for i := range subs {
		subs[i] = subscribe(t, topic, handle, hark.Group("g"), hark.Workers(2))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		publishKeyed(ctx, t, topic, 5, 200)
	}()
	for i, sub := range subs[1:] { // a member that leaves changes nothing
		w.wait(ctx, t, 200*i)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	wantOrderPer(t, w.wait(ctx, t, 5*200), 5)
}

func testKEY5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[string](t, bus, "a", hark.KeyBy(func(s string) string { return "by " + s }))
	w := newRecorder[string]()
	subscribe(t, topic, func(_ context.Context, m *hark.Message[string]) error {
		w.note(m.Key())
		return nil
	})
	publish(ctx, t, topic, "x")
	if err := topic.Publish(ctx, "y", hark.Key("own")); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "keys", w.wait(ctx, t, 2), []string{"by x", "own"})
}

func testKEY6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.KeyBy(func(n int) string { return map[bool]string{true: "key"}[n < 10] }))
	g := newGate(t)
	w := newRecorder[int]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 10 {
			if err := g.pass(ctx); err != nil {
				return err
			}
		}
		return w.handle(ctx, m)
	}, hark.Workers(2))
	publish(ctx, t, topic, 10, 11)
	wantEqual(t, "beside one that is held", w.wait(ctx, t, 1), []int{11})
	if err := topic.Publish(ctx, 1, hark.Key("")); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "with Key(\"\")", w.wait(ctx, t, 2), []int{11, 1})
	g.release()
	w.wait(ctx, t, 3)
}

func testKEY7(t *testing.T, open Opener) {
	for _, workers := range []int{1, 3} {
		ctx, bus := start(t, open)
		dead := deadOf(t, bus, "a.dead")
		topic := newTopic[int](t, bus, "a", hark.KeyBy(func(n int) string {
			bus.Stats()
			if n == 3 {
				panic("no key")
			}
			return string(rune('a' + n%2))
		}))
		w := newRecorder[int]()
		handle := func(ctx context.Context, m *hark.Message[int]) error {
			if m.Value == 3 && workers == 1 { // a single worker needs no key until a message fails
				return errHandler
			}
			return w.handle(ctx, m)
		}
		sub := subscribe(t, topic, handle, append(quick(2), hark.Workers(workers))...)
		early := false // the engine needed the key when the message was published
		for n := range 10 {
			var panicked *hark.PanicError
			switch err := topic.Publish(ctx, n); {
			case n == 3 && errors.As(err, &panicked):
				early = true
			case err != nil:
				t.Fatal(err)
			}
		}
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		got := w.all()
		slices.Sort(got)
		wantEqual(t, "values", got, []int{0, 1, 2, 4, 5, 6, 7, 8, 9})
		if early {
			continue
		}
		m := dead.wait(ctx, t, 1)[0]
		if f := m.Failure(); m.Value != 3 || f == nil || !strings.Contains(f.Reason, "no key") && workers > 1 {
			t.Errorf("%d workers: got %d with %+v, want 3 and the panic of KeyBy", workers, m.Value, f)
		}
		if s := sub.Stats(); s.Delivered != 9 || s.Dead != 1 || s.Failed != 2 {
			t.Errorf("%d workers: got %+v, want 9 delivered, 1 dead, 2 failed", workers, s)
		}
	}
}
