package hark_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

func newNotifier(t testing.TB, b *hark.Bus) *hark.Notifier {
	t.Helper()
	n, err := hark.NewNotifier(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func register(t testing.TB, n *hark.Notifier, name string, f func(context.Context, hark.Signal), opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Register(name, f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listen(t testing.TB, n *hark.Notifier, name string, opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Listen(name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func notify(t testing.TB, n *hark.Notifier, target string, want int) {
	t.Helper()
	if got, err := n.Notify(t.Context(), target); got != want || err != nil {
		t.Errorf("notify %s: got %d, %v, want %d", target, got, err, want)
	}
}

func TestNTF23IdleListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		defer closeBus(t, bus)
		n := newNotifier(t, bus)
		before := runtime.NumGoroutine()
		var all []*hark.Listener
		for i := range 500 {
			all = append(all,
				register(t, n, fmt.Sprintf("f%d.a", i), func(context.Context, hark.Signal) {}),
				listen(t, n, fmt.Sprintf("f%d.a#M", i)))
		}
		notify(t, n, ">", 1000)
		synctest.Wait()
		if got := runtime.NumGoroutine() - before; got > 0 {
			t.Errorf("1000 idle listeners have %d goroutines", got)
		}
		for _, l := range all {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := n.Latch(t.Context(), "latched#M"); err != nil {
			t.Fatal(err)
		}
		if err := n.Unlatch(t.Context(), "latched#M"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.WaitAny(ctx, "waited.for", "waited#M"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if got := hark.NamesOf(n); got != 0 {
			t.Errorf("%d names are left of which nobody needs any", got)
		}
	})
}

// TestWaitedForNamesAreForgotten checks that the notifier keeps only a few
// names for waiters that come back.
func TestWaitedForNamesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		defer closeBus(t, bus)
		n := newNotifier(t, bus)
		var names []string
		for i := range 500 {
			name := fmt.Sprintf("waited.w%d", i)
			if i%2 == 0 {
				name += "#M"
			}
			names = append(names, name)
			go func() {
				if err := n.Wait(t.Context(), name); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			if got := n.Stats().Waiters; got != 1 {
				t.Fatalf("%d wait, want 1", got)
			}
			notify(t, n, name, 1)
			synctest.Wait()
			if got := n.Stats().Waiters; got != 0 {
				t.Fatalf("%d wait, want nobody", got)
			}
		}
		if got, most := hark.NamesOf(n), 2*16; got > most || got == 0 {
			t.Errorf("%d entries are left of names that were waited for, want some, at most %d", got, most)
		}
		for _, name := range names {
			notify(t, n, name, 0)
		}
		if got := hark.NamesOf(n); got != 0 {
			t.Errorf("%d entries are left after nobody was reached, want 0", got)
		}
	})
}

func TestNTF24StuckFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		defer closeBus(t, bus)
		n := newNotifier(t, bus)
		gate := make(chan struct{})
		for range 2 * runtime.GOMAXPROCS(0) {
			register(t, n, "stuck", func(context.Context, hark.Signal) { <-gate })
		}
		var ran atomic.Int32
		register(t, n, "quick", func(context.Context, hark.Signal) { ran.Add(1) })
		notify(t, n, "stuck", 2*runtime.GOMAXPROCS(0))
		notify(t, n, "quick", 1)
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
		if ran.Load() != 1 {
			t.Error("a function waits behind those that are stuck")
		}
		close(gate)
	})
}

func TestNotifierHooksStatsTopology(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &notifierHooks{}
		bus := hark.New(hark.WithHooks(h), hark.SlowAfter(time.Second))
		n := newNotifier(t, bus)
		gate := make(chan struct{})
		l := register(t, n, "a.T#M", func(ctx context.Context, s hark.Signal) {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			panic(s.Name)
		}, hark.EachSignal(), hark.Buffer(2), hark.Overflow(hark.DropOldest))
		c := listen(t, n, "a.T", hark.EachSignal(), hark.Overflow(hark.Latest))
		for range 5 {
			notify(t, n, "a.T", 2)
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		gate <- struct{}{}
		synctest.Wait()
		want := hark.ListenerStats{Name: "a.T#M", ID: l.ID(), Delivered: 2, Dropped: 2, Waiting: 1, Failed: 1}
		if got := l.Stats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		want = hark.ListenerStats{Name: "a.T", ID: c.ID(), Waiting: 1, Dropped: 4}
		if got := c.Stats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		top := bus.Topology().Nodes
		if len(top) != 2 || top[0].Kind != hark.KindNotifier || top[0].Name != "a.T" || top[1].Name != "a.T#M" ||
			len(top[1].Ends) != 1 || top[1].Ends[0].Name != l.ID() || top[1].Ends[0].Role != "listen" ||
			!strings.Contains(top[1].Ends[0].At, "notifier_test.go:") {
			t.Errorf("got topology %+v", top)
		}
		if err := n.Latch(t.Context(), "z"); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		s := bus.Stats().Notifier
		wantStats := hark.NotifierStats{
			Listeners: 1, Latched: []string{"z"}, Notified: 5,
			Delivered: 2, Waiting: 1, Dropped: 3 + 4, Failed: 2,
		}
		if fmt.Sprint(s) != fmt.Sprint(wantStats) {
			t.Errorf("got %+v, want %+v", s, wantStats)
		}
		closeBus(t, bus)

		src := hark.Source{Kind: hark.KindNotifier, Name: "a.T#M", Subscription: l.ID()}
		if len(h.fails) != 2 || h.fails[0].Source != src {
			t.Errorf("got failures %+v, want 2 of %+v", h.fails, src)
		}
		var p *hark.PanicError
		if len(h.fails) > 0 && (!errors.As(h.fails[0].Err, &p) || p.Value != "a.T" || len(p.Stack) == 0) {
			t.Errorf("got %v, want a *PanicError", h.fails[0].Err)
		}
		drops := map[string]int{}
		for _, d := range h.drops {
			drops[d.Subscription+" "+string(d.Reason)] += d.Count
		}
		wantDrops := map[string]int{l.ID() + " overflow": 2, l.ID() + " closed": 1, c.ID() + " overflow": 4}
		if fmt.Sprint(drops) != fmt.Sprint(wantDrops) {
			t.Errorf("got drops %v, want %v", drops, wantDrops)
		}
		if len(h.slow) != 1 || h.slow[0].Source != src || h.slow[0].For != time.Second {
			t.Errorf("got slow %+v, want one of %+v", h.slow, src)
		}
	})
}

type notifierHooks struct {
	mu    sync.Mutex // guards the fields below
	fails []hark.FailEvent
	drops []hark.DropEvent
	slow  []hark.SlowEvent
}

func (h *notifierHooks) OnFail(e hark.FailEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails = append(h.fails, e)
}

func (h *notifierHooks) OnDrop(e hark.DropEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drops = append(h.drops, e)
}

func (h *notifierHooks) OnSlow(e hark.SlowEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = append(h.slow, e)
}

func TestPrivateNotifier(t *testing.T) {
	leak.Check(t)
	one, two := newNotifier(t, nil), newNotifier(t, nil)
	heard := make(chan hark.Signal)
	l := register(t, one, "a", func(_ context.Context, s hark.Signal) { heard <- s })
	notify(t, two, "a", 0)
	notify(t, one, "a", 1)
	if s := <-heard; s != (hark.Signal{Name: "a", Count: 1}) {
		t.Errorf("got %v", s)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if s := one.Stats(); s.Delivered != 1 || s.Notified != 1 || s.Listeners != 0 {
		t.Errorf("got %+v, want one delivered", s)
	}
}

// TestCloseOfStuckFunction checks that Close does not wait forever for a
// function that ignores its context.
func TestCloseOfStuckFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New(hark.Grace(time.Minute))
		n := newNotifier(t, bus)
		gate := make(chan struct{})
		l := register(t, n, "a", func(context.Context, hark.Signal) { <-gate })
		other := register(t, n, "b", func(context.Context, hark.Signal) { <-gate })
		notify(t, n, "a", 1)
		notify(t, n, "b", 1)
		time.Sleep(time.Second) // of the bubble; both are running after it
		notify(t, n, "b", 1)
		start := time.Now()
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "has not returned") {
			t.Errorf("got %v, want that the function has not returned", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("Close took %v, want the grace period", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var left *hark.CloseError
		want := []hark.Left{{Kind: hark.KindNotifier, Name: "b", Subscription: other.ID(), Waiting: 1, InFlight: 1}}
		if err := bus.Close(ctx); !errors.As(err, &left) || !slices.Equal(left.Left, want) {
			t.Errorf("got %v, want %v left", err, want)
		}
		close(gate)
	})
}

// TestNotifyWithoutContextOfHandler checks that a function that notifies itself
// without passing its context on does not wait for itself either.
func TestNotifyWithoutContextOfHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		n := newNotifier(t, bus)
		left := 50
		l := register(t, n, "a", func(context.Context, hark.Signal) {
			if left--; left > 0 {
				for range 2 {
					if _, err := n.Notify(context.Background(), "a"); err != nil {
						t.Errorf("notify: %v", err)
					}
				}
			}
		}, hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
		notify(t, n, "a", 1)
		synctest.Wait()
		if s := l.Stats(); s.BufferExceeded == 0 || s.Delivered != 1+2*49 {
			t.Errorf("got %+v, want some overgrown, 99 delivered", s)
		}
		closeBus(t, bus)
	})
}

// TestNotifyWouldDeadlock checks that there is a limit to what a function lets
// in beyond its own buffer.
func TestNotifyWouldDeadlock(t *testing.T) {
	bus := hark.New()
	n := newNotifier(t, bus)
	result := make(chan error, 1)
	l := register(t, n, "a", func(ctx context.Context, _ hark.Signal) {
		for {
			if _, err := n.Notify(ctx, "a"); err != nil {
				select {
				case result <- err:
				default: // in a later call
				}
				return
			}
		}
	}, hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
	notify(t, n, "a", 1)
	if err := <-result; !errors.Is(err, hark.ErrWouldDeadlock) {
		t.Errorf("got %v, want ErrWouldDeadlock", err)
	}
	if s := l.Stats(); s.BufferExceeded < 65536 {
		t.Errorf("got %+v, want at least 65536 overgrown", s)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	closeBus(t, bus)
}

// TestTopicAndListenerWaitForEachOther has a handler notify a listener that
// publishes to the handler's topic, with little room in both.
func TestTopicAndListenerWaitForEachOther(t *testing.T) {
	leak.Check(t)
	bus := hark.New()
	n := newNotifier(t, bus)
	topic, err := hark.NewTopic[int](bus, "t")
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int32
	if _, err := topic.Subscribe(func(ctx context.Context, m *hark.Message[int]) error {
		handled.Add(1)
		_, err := n.Notify(ctx, "l")
		return err
	}, hark.Buffer(1), hark.MaxAttempts(1)); err != nil {
		t.Fatal(err)
	}
	var called atomic.Int32
	register(t, n, "l", func(ctx context.Context, _ hark.Signal) {
		if n := called.Add(1); n < 200 {
			for range 3 {
				if err := topic.Publish(ctx, int(n)); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		}
	}, hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
	if err := topic.Publish(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	closeBus(t, bus)
	if got, want := called.Load(), int32(1+3*199); got != want || handled.Load() != want {
		t.Errorf("%d calls, %d messages; want %d each", got, handled.Load(), want)
	}
}
