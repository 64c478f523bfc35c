package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
)

var patternClauses = []Clause{
	{"PAT-1", "* stands for one token, > for one or more", testPAT1},
	{"PAT-2", "topics made later are included from their first message", testPAT2},
	{"PAT-3", "the messages of one topic come in order", testPAT3},
	{"PAT-4", "a topic of another type is refused", testPAT4},
	{"PAT-5", "a subscription to any takes topics of every type", testPAT5},
	{"PAT-6", "a start in the past applies to the stored topics", testPAT6},
	{"PAT-7", "members of a group share a pattern", testPAT7},
	{"PAT-8", "buffers do not touch what a stored topic keeps", testPAT8},
	{"REQ-1", "Request returns the reply to it", testREQ1},
	{"REQ-2", "without a responder it returns ErrNoResponders", testREQ2},
	{"REQ-3", "the responder's error or panic goes to the requester", testREQ3},
	{"REQ-4", "a requester that gives up ends the responder's context", testREQ4},
	{"REQ-5", "options that would leave requests without an answer are refused", testREQ5},
	{"REQ-6", "a request whose last responder leaves gets an error", testREQ6},
	{"REQ-7", "requests are answered while responders come and go, and the name leaves with the last", testREQ7},
}

func subscribePattern[T any](t *testing.T, bus *hark.Bus, pattern string, h hark.Handler[T], opts ...hark.SubscribeOption) *hark.Subscription {
	t.Helper()
	return must(hark.SubscribePattern(bus, pattern, h, opts...))(t)
}

func testPAT1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	names := []string{"a", "a.b", "a.c", "a.b.c", "b.b", "b"}
	for i, name := range names {
		newTopic[int](t, bus, name)
		_ = i
	}
	for pattern, want := range map[string][]int{
		"a.*": {1, 2}, "a.>": {1, 2, 3}, "*": {0, 5}, "*.b": {1, 4}, ">": {0, 1, 2, 3, 4, 5}, "a.b": {1}, "*.*.*": {3},
	} {
		w := newRecorder[int]()
		sub := subscribePattern(t, bus, pattern, w.handle)
		for i, name := range names {
			publish(ctx, t, newTopic[int](t, bus, name), i)
		}
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		got := w.all()
		slices.Sort(got)
		wantEqual(t, pattern, got, want)
		if s := sub.Stats(); s.Pattern != pattern {
			t.Errorf("Stats().Pattern: got %q, want %q", s.Pattern, pattern)
		}
	}
	for _, pattern := range []string{"", "a.>.b", "a*", "a..b"} {
		if _, err := hark.SubscribePattern(bus, pattern, newRecorder[int]().handle); !errors.Is(err, hark.ErrInvalidName) {
			t.Errorf("%q: got %v, want ErrInvalidName", pattern, err)
		}
	}
}

func testPAT2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[string]()
	sub := subscribePattern(t, bus, "late.*", func(_ context.Context, m *hark.Message[int]) error {
		w.note(fmt.Sprint(m.Topic(), m.Value))
		return nil
	})
	var want []string
	for i := range 20 {
		name := fmt.Sprintf("late.t%02d", i)
		publish(ctx, t, newTopic[int](t, bus, name), 1)
		want = append(want, name+"1")
	}
	got := w.wait(ctx, t, 20)
	slices.Sort(got)
	wantEqual(t, "messages", got, want)
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, newTopic[int](t, bus, "late.last"), 1)
	if got := len(w.all()); got != 20 {
		t.Errorf("got %d after Close, want 20", got)
	}
}

func testPAT3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[keyed]()
	subscribePattern(t, bus, "p.*", w.handle)
	const topics, each = 5, 300
	var all []*hark.Topic[keyed]
	for p := range topics {
		all = append(all, newTopic[keyed](t, bus, fmt.Sprintf("p.t%d", p)))
	}
	publishAtOnce(t, topics, each, func(p, i int) error { return all[p].Publish(ctx, keyed{p, i}) })
	wantOrderPer(t, w.wait(ctx, t, topics*each), topics)
}

func testPAT4(t *testing.T, open Opener) {
	_, bus := start(t, open)
	newTopic[int](t, bus, "x.int")
	if _, err := hark.SubscribePattern(bus, "x.*", newRecorder[string]().handle); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("pattern: got %v, want ErrTypeMismatch", err)
	}
	sub := subscribePattern(t, bus, "x.*", newRecorder[int]().handle)
	if _, err := hark.NewTopic[string](bus, "x.string"); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("topic: got %v, want ErrTypeMismatch", err)
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	newTopic[string](t, bus, "x.string")
}

func testPAT5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[any]()
	subscribePattern(t, bus, ">", w.handle)
	publish(ctx, t, newTopic[int](t, bus, "i"), 1)
	w.wait(ctx, t, 1)
	publish(ctx, t, newTopic[string](t, bus, "s"), "two")
	wantEqual(t, "values", w.wait(ctx, t, 2), []any{1, "two"})
}

func testPAT6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	kept := newTopic[int](t, bus, "t.kept", hark.Stored(hark.Retention{}))
	gone := newTopic[int](t, bus, "t.gone")
	first := newRecorder[int]()
	subscribe(t, gone, first.handle)
	publish(ctx, t, kept, count(0, 50)...)
	publish(ctx, t, gone, count(1000, 3000)...) // enough for its log to have moved on
	first.wait(ctx, t, 2000)
	w := newRecorder[int]()
	subscribePattern(t, bus, "t.*", w.handle, hark.FromStart())
	wantEqual(t, "kept", w.wait(ctx, t, 50), count(0, 50))
	publish(ctx, t, gone, 5000)
	wantEqual(t, "all", w.wait(ctx, t, 51), append(count(0, 50), 5000))
}

func testPAT7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w := newRecorder[int]()
	var subs []*hark.Subscription
	for range 3 {
		subs = append(subs, subscribePattern(t, bus, "g.*", w.handle, hark.Group("g")))
	}
	a, b := newTopic[int](t, bus, "g.a"), newTopic[int](t, bus, "g.b")
	for i := range 200 {
		publish(ctx, t, a, 2*i)
		publish(ctx, t, b, 2*i+1)
	}
	for _, sub := range subs {
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	got := w.all()
	slices.Sort(got)
	wantEqual(t, "values", got, count(0, 400))
	if _, err := hark.SubscribePattern(bus, "g.*", newRecorder[int]().handle, hark.Group("g")); err != nil {
		t.Errorf("a new group of that name: %v", err)
	}
}

func testPAT8(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	kept := newTopic[int](t, bus, "t.kept", hark.Stored(hark.Retention{}))
	publish(ctx, t, kept, count(0, 100)...)
	w := newRecorder[int]()
	subscribePattern(t, bus, "t.*", w.handle, hark.FromStart(), hark.Buffer(3), hark.Overflow(hark.DropOldest))
	wantEqual(t, "values", w.wait(ctx, t, 100), count(0, 100))
}

func testREQ1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	for range 2 {
		must(hark.Reply(bus, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil }, hark.Workers(2)))(t)
	}
	done := make(chan error, 8)
	for range 8 {
		go func() {
			for i := range 50 {
				if got, err := hark.Request[int, int](ctx, bus, "double", i); err != nil || got != 2*i {
					done <- fmt.Errorf("double %d: got %d, %w", i, got, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := hark.Request[string, string](ctx, bus, "double", "x"); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("another type: got %v, want ErrTypeMismatch", err)
	}
}

func testREQ2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	_, err := hark.Request[int, int](ctx, bus, "nobody", 1)
	if errors.Is(err, hark.ErrUnsupported) {
		refused(t, err)
	}
	if !errors.Is(err, hark.ErrNoResponders) {
		t.Errorf("got %v, want ErrNoResponders", err)
	}
	sub := must(hark.Reply(bus, "nobody", func(_ context.Context, n int) (int, error) { return n, nil }))(t)
	if _, err := hark.Request[int, int](ctx, bus, "nobody", 1); err != nil {
		t.Error(err)
	}
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := hark.Request[int, int](ctx, bus, "nobody", 1); !errors.Is(err, hark.ErrNoResponders) {
		t.Errorf("after it left: got %v, want ErrNoResponders", err)
	}
}

func testREQ3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	var calls atomic.Int32
	// With few pairs of types the suite is compiled faster.
	must(hark.Reply(bus, "bad", func(_ context.Context, how string) (string, error) {
		calls.Add(1)
		if how == "panic" {
			panic("no good")
		}
		return "", errHandler
	}))(t)
	if _, err := hark.Request[string, string](ctx, bus, "bad", "fail"); err == nil || !strings.Contains(err.Error(), errHandler.Error()) || inProcess(bus) && !errors.Is(err, errHandler) {
		t.Errorf("got %v, want the responder's error", err)
	}
	var panicked *hark.PanicError
	if _, err := hark.Request[string, string](ctx, bus, "bad", "panic"); !errors.As(err, &panicked) {
		t.Errorf("got %v, want a *PanicError", err)
	}
	if got := calls.Load(); got != 2 {
		t.Errorf("the responder was called %d times, want 2", got)
	}
	if most := bus.Engine().MaxPayload; most > 0 {
		must(hark.Reply(bus, "large", func(_ context.Context, how string) (string, error) {
			if how == "fail" {
				return "", errors.New(strings.Repeat("x", most))
			}
			return strings.Repeat("x", most), nil
		}))(t)
		for _, how := range []string{"answer", "fail"} {
			if _, err := hark.Request[string, string](ctx, bus, "large", how); !errors.Is(err, hark.ErrFull) {
				t.Errorf("%s with more than fits: got %.100v, want ErrFull", how, err)
			}
		}
	}
}

func testREQ4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	began, ended, gone := make(chan struct{}), make(chan error, 1), make(chan struct{})
	must(hark.Reply(bus, "slow", func(ctx context.Context, _ int) (int, error) {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		<-gone // An answer now could still reach a requester that has not looked at its context.
		return 0, nil
	}))(t)
	why := errors.New("no longer wanted")
	short, cancel := context.WithCancelCause(ctx)
	go func() {
		<-began
		cancel(why)
	}()
	if _, err := hark.Request[int, int](short, bus, "slow", 1); !errors.Is(err, why) {
		t.Errorf("requester: got %v, want the cause", err)
	}
	close(gone)
	if err := <-ended; err == nil || inProcess(bus) && !errors.Is(err, why) {
		t.Errorf("responder: got %v, want the cause", err)
	}
}

func testREQ5(t *testing.T, open Opener) {
	_, bus := start(t, open)
	h := func(_ context.Context, n int) (int, error) { return n, nil }
	for what, opt := range map[string]hark.SubscribeOption{
		"group":        hark.Group("g"),
		"attempts":     hark.MaxAttempts(3),
		"dead letter":  hark.DeadLetter("d"),
		"lossy buffer": hark.Overflow(hark.DropOldest),
		"predicate":    hark.Where(hark.MatchFunc[int](func(int) bool { return true })),
		"batch":        hark.Batch(2, 0),
		"past":         hark.FromStart(),
	} {
		if _, err := hark.Reply(bus, "x", h, opt); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", what, err)
		}
	}
}

func testREQ6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	g := newGate(t)
	sub := must(hark.Reply(bus, "x", func(ctx context.Context, n int) (int, error) { return n, g.pass(ctx) }))(t)
	got := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := hark.Request[int, int](ctx, bus, "x", i)
			got <- err
		}()
	}
	g.reached(ctx, t, 1)
	until(ctx, t, "the other waits", func() bool { return sub.Stats().Waiting == 1 })
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-got:
			if !errors.Is(err, hark.ErrNoResponders) && !errors.Is(err, hark.ErrClosed) {
				t.Errorf("got %v, want ErrNoResponders or ErrClosed", err)
			}
		case <-ctx.Done():
			t.Fatal("a request waits for nobody")
		}
	}

	// The responder has more requests than fit in its buffer when it closes its
	// own subscription, and when its bus closes.
	leave := func(bus *hark.Bus, h func(ctx context.Context, leave func() error) error, whileFull func()) {
		full := newGate(t)
		var sub atomic.Pointer[hark.Subscription]
		ready := make(chan struct{})
		sub.Store(must(hark.Reply(bus, "y", func(ctx context.Context, n int) (int, error) {
			<-ready
			return n, errors.Join(full.pass(ctx), h(ctx, sub.Load().Close))
		}, hark.Buffer(1)))(t))
		close(ready)
		var requests sync.WaitGroup
		for i := range 8 {
			requests.Go(func() { _, _ = hark.Request[int, int](ctx, bus, "y", i) }) // only its return matters
		}
		full.reached(ctx, t, 1)
		until(ctx, t, "the buffer is full", func() bool { return sub.Load().Stats().Waiting == 1 })
		full.release()
		whileFull()
		requests.Wait()
		if ctx.Err() != nil {
			t.Error("a request waits for nobody")
		}
	}
	leave(bus, func(_ context.Context, leave func() error) error { return leave() }, func() {})
	closing := open(t)
	leave(closing, func(ctx context.Context, _ func() error) error {
		<-ctx.Done()
		return ctx.Err()
	}, func() {
		over, cancel := context.WithCancel(ctx)
		cancel()
		var left *hark.CloseError
		if err := closing.Close(over); err != nil && !errors.As(err, &left) {
			t.Errorf("close: got %v", err)
		}
	})
}

func testREQ7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	replaceResponders(ctx, t, bus)
	changeResponders(ctx, t, bus)
	if s := bus.Stats(); len(s.Requests) > 0 {
		t.Errorf("Stats of names to which nobody replies: %+v", s.Requests)
	}
	for _, node := range bus.Topology().Nodes {
		if node.Kind == hark.KindRequest {
			t.Errorf("Topology has %s, to which nobody replies", node.Name)
		}
	}
	must(hark.Reply(bus, "x", func(_ context.Context, s string) (string, error) { return s, nil }))(t)
}

// replaceResponders has each responder take over from another, so that one is always
// there: all requests get an answer.
func replaceResponders(ctx context.Context, t *testing.T, bus *hark.Bus) {
	t.Helper()
	now := must(hark.Reply(bus, "x", echo))(t)
	stop := keepAsking(ctx, t, bus, func(err error) bool { return err != nil })
	for i := range 20 {
		next := must(hark.Reply(bus, "x", echo))(t)
		if err := leave(ctx, i, now); err != nil {
			t.Errorf("leave: %v", err)
		}
		now = next
	}
	stop()
	if err := now.Close(); err != nil {
		t.Error(err)
	}
}

// changeResponders has several responders come and go. Each answers at least its own
// request. Others get an answer, or an error if no responder is there.
func changeResponders(ctx context.Context, t *testing.T, bus *hark.Bus) {
	t.Helper()
	stop := keepAsking(ctx, t, bus, func(err error) bool {
		return err != nil && !errors.Is(err, hark.ErrNoResponders) && !errors.Is(err, hark.ErrClosed)
	})
	var responders sync.WaitGroup
	for range 4 {
		responders.Go(func() {
			for i := range 10 {
				s, err := hark.Reply(bus, "x", echo)
				if err != nil {
					t.Errorf("reply: %v", err)
					return
				}
				if err := askEcho(ctx, bus, i); err != nil {
					t.Errorf("while several come and go: %v", err)
				}
				// A draining responder may hand over requests to one that
				// closes and drops them.
				var left *hark.CloseError
				if err := leave(ctx, i, s); err != nil && !errors.As(err, &left) {
					t.Errorf("leave: %v", err)
				}
			}
		})
	}
	responders.Wait()
	stop()
}

func echo(_ context.Context, n int) (int, error) { return n, nil }

// askEcho sends a request to echo.
func askEcho(ctx context.Context, bus *hark.Bus, i int) error {
	if got, err := hark.Request[int, int](ctx, bus, "x", i); err != nil || got != i {
		return fmt.Errorf("request %d: got %d, %w", i, got, err)
	}
	return nil
}

// leave ends every other responder with Close, and the rest with Drain.
func leave(ctx context.Context, i int, s *hark.Subscription) error {
	if i%2 == 0 {
		return s.Close()
	}
	return s.Drain(ctx)
}

// keepAsking sends requests to echo until stop is called, and reports the errors that
// are wrong.
func keepAsking(ctx context.Context, t *testing.T, bus *hark.Bus, wrong func(error) bool) (stop func()) {
	t.Helper()
	over := make(chan struct{})
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				if err := askEcho(ctx, bus, i); wrong(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		close(over)
		callers.Wait()
	}
}
