package drivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var notifierClauses = slices.Concat(notifyClauses, latchClauses, []Clause{
	{"NTF-3", "all notifiers of a bus share one space of names", testNTF3},
	{"NTF-5", "notifications of a busy function are merged and counted", testNTF5},
	{"NTF-6", "notifications of a full channel are merged and counted", testNTF6},
	{"NTF-7", "EachSignal: each notification, in order", testNTF7},
	{"NTF-8", "all listeners of a name see one order", testNTF8},
	{"NTF-9", "beyond the buffer the policy decides, and each drop counts", testNTF9},
	{"NTF-10", "Block: Notify waits for room until its context ends", testNTF10},
	{"NTF-11", "Fail: ErrFull, and nobody is reached", testNTF11},
	{"NTF-18", "a closed listener is gone at once", testNTF18},
	{"NTF-19", "Close waits for the function, but not in it", testNTF19},
	{"NTF-20", "a function that panics or exits stays registered", testNTF20},
	{"NTF-21", "functions may do all that others may", testNTF21},
	{"NTF-22", "a closing bus refuses, runs what waits, and ends the rest", testNTF22},
})

func newNotifier(t *testing.T, bus *hark.Bus) *hark.Notifier {
	t.Helper()
	n, err := hark.NewNotifier(bus)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// notify notifies target and checks how many that reached.
func notify(ctx context.Context, t *testing.T, n *hark.Notifier, target string, want int) {
	t.Helper()
	if got, err := n.Notify(ctx, target); got != want || err != nil {
		t.Errorf("notify %s: got %d, %v, want %d", target, got, err, want)
	}
}

// ears is a listener's function that notes signals, and can be held up.
type ears struct {
	mu      sync.Mutex // guards what follows
	got     []hark.Signal
	changed chan struct{} // closed at the next note
	held    chan struct{} // the function waits until it is closed; nil: it does not
}

func newEars() *ears { return &ears{changed: make(chan struct{})} }

func (e *ears) hear(s hark.Signal) {
	e.mu.Lock()
	e.got = append(e.got, s)
	close(e.changed)
	e.changed = make(chan struct{})
	held := e.held
	e.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (e *ears) call(_ context.Context, s hark.Signal) { e.hear(s) }

// hold makes the function wait, the next time it is called, until the returned
// function is called, or the test ends.
func (e *ears) hold(t *testing.T) (release func()) {
	held := make(chan struct{})
	e.mu.Lock()
	e.held = held
	e.mu.Unlock()
	release = sync.OnceFunc(func() {
		e.mu.Lock()
		e.held = nil
		e.mu.Unlock()
		close(held)
	})
	t.Cleanup(release)
	return release
}

func (e *ears) signals() []hark.Signal {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// count returns how many notifications have been heard of.
func (e *ears) count() (n int) {
	for _, s := range e.signals() {
		n += s.Count
	}
	return n
}

// wait waits until signals for n notifications have been heard.
func (e *ears) wait(ctx context.Context, t *testing.T, n int) []hark.Signal {
	t.Helper()
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		if e.count() >= n {
			return e.signals()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("heard %v, want %d notifications", e.signals(), n)
		}
	}
}

func (e *ears) register(t *testing.T, n *hark.Notifier, name string, opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Register(name, e.call, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listen(t *testing.T, n *hark.Notifier, name string, opts ...hark.ListenOption) *hark.Listener {
	t.Helper()
	l, err := n.Listen(name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// receive takes a signal from a listener's channel.
func receive(ctx context.Context, t *testing.T, l *hark.Listener) hark.Signal {
	t.Helper()
	select {
	case s, ok := <-l.C():
		if !ok {
			t.Fatalf("the channel of %s is closed", l.ID())
		}
		return s
	case <-ctx.Done():
		t.Fatalf("no signal for %s", l.ID())
	}
	return hark.Signal{}
}

func wantSignals(t *testing.T, what string, got []hark.Signal, want ...hark.Signal) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func testNTF3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	one, two := newNotifier(t, bus), newNotifier(t, bus)
	l := listen(t, one, "a")
	notify(ctx, t, two, "a", 1)
	wantSignals(t, "the other notifier", []hark.Signal{receive(ctx, t, l)}, hark.Signal{Name: "a", Count: 1})
}

func testNTF5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newEars()
	release := e.hold(t)
	e.register(t, n, "a.b")
	notify(ctx, t, n, "a.b", 1)
	e.wait(ctx, t, 1)
	for range 4 {
		notify(ctx, t, n, "a.b", 1)
	}
	notify(ctx, t, n, "a.*", 1) // the last of those merged
	release()
	wantSignals(t, "a function that was busy", e.wait(ctx, t, 6),
		hark.Signal{Name: "a.b", Count: 1}, hark.Signal{Name: "a.*", Count: 5})

	// Whoever notifies, however fast: nothing is lost or made up.
	const goroutines, each = 4, 500
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				notify(ctx, t, n, "a.b", 1)
			}
		})
	}
	wg.Wait()
	e.wait(ctx, t, 6+goroutines*each)
	if got := e.count(); got != 6+goroutines*each {
		t.Errorf("heard of %d notifications, want %d", got, 6+goroutines*each)
	}
}

func testNTF6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	l := listen(t, n, "a.b")
	for range 4 {
		notify(ctx, t, n, "a.b", 1)
	}
	notify(ctx, t, n, "a.*", 1)
	wantSignals(t, "a channel that was full", []hark.Signal{receive(ctx, t, l)}, hark.Signal{Name: "a.*", Count: 5})

	const goroutines, each = 4, 500
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				notify(ctx, t, n, "a.b", 1)
			}
		})
	}
	for got := 0; got < goroutines*each; {
		got += receive(ctx, t, l).Count
		if got > goroutines*each {
			t.Errorf("heard of %d notifications, want %d", got, goroutines*each)
		}
	}
	wg.Wait()
}

func testNTF7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newEars()
	release := e.hold(t)
	l := e.register(t, n, "a.b", hark.EachSignal(), hark.Buffer(100))
	c := listen(t, n, "a.b", hark.EachSignal(), hark.Buffer(100))
	var want []hark.Signal
	for i := range 90 {
		s := hark.Signal{Name: []string{"a.b", "a.*", "*.b"}[i%3], Count: 1}
		want = append(want, s)
		notify(ctx, t, n, s.Name, 2)
	}
	release()
	wantSignals(t, "function", e.wait(ctx, t, 90), want...)
	var got []hark.Signal
	for range want {
		got = append(got, receive(ctx, t, c))
	}
	wantSignals(t, "channel", got, want...)
	if s := l.Stats(); s.Merged+s.Dropped != 0 {
		t.Errorf("got %+v, want nothing merged or dropped", s)
	}
}

func testNTF8(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	const goroutines, each = 4, 100
	all := make([]*ears, 3)
	for i := range all {
		all[i] = newEars()
		all[i].register(t, n, "a.b", hark.EachSignal(), hark.Buffer(hark.Unbounded))
	}
	targets := []string{"a.b", "a.*", "*.b", ">"} // one for each goroutine
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				notify(ctx, t, n, targets[g], len(all))
			}
		})
	}
	wg.Wait()
	first := all[0].wait(ctx, t, goroutines*each)
	for _, e := range all[1:] {
		wantSignals(t, "another listener", e.wait(ctx, t, goroutines*each), first...)
	}
}

func testNTF9(t *testing.T, open Opener) {
	s := func(name string, count int) hark.Signal { return hark.Signal{Name: name, Count: count} }
	sent := []string{"x", "*", ">", "x", "*"} // told apart; all mean the same
	tests := []struct {
		name            string
		opts            []hark.ListenOption
		want            []hark.Signal
		dropped, merged uint64
	}{
		{"merge", nil, []hark.Signal{s("x", 2), s("*", 3)}, 0, 3},
		{"DropOldest", []hark.ListenOption{hark.Overflow(hark.DropOldest)}, []hark.Signal{s("x", 1), s("*", 1)}, 3, 0},
		{"DropNewest", []hark.ListenOption{hark.Overflow(hark.DropNewest)}, []hark.Signal{s("x", 1), s("*", 1)}, 3, 0},
		{"Latest", []hark.ListenOption{hark.Overflow(hark.Latest)}, []hark.Signal{s("*", 1)}, 4, 0},
	}
	for _, tt := range tests {
		opts := append(tt.opts, hark.EachSignal())
		if tt.name != "Latest" {
			opts = append(opts, hark.Buffer(2))
		}
		t.Run(tt.name+" function", func(t *testing.T) {
			ctx, bus := start(t, open)
			n := newNotifier(t, bus)
			e := newEars()
			release := e.hold(t)
			l := e.register(t, n, "x", opts...)
			notify(ctx, t, n, "x", 1)
			e.wait(ctx, t, 1)
			heard := 1
			for _, target := range sent {
				notify(ctx, t, n, target, 1)
			}
			release()
			for _, s := range tt.want {
				heard += s.Count
			}
			wantSignals(t, "signals", e.wait(ctx, t, heard)[1:], tt.want...)
			wantGone(t, l, tt.dropped, tt.merged)
		})
		t.Run(tt.name+" channel", func(t *testing.T) {
			ctx, bus := start(t, open)
			n := newNotifier(t, bus)
			l := listen(t, n, "x", opts...)
			for _, target := range sent {
				notify(ctx, t, n, target, 1)
			}
			var got []hark.Signal
			for range tt.want {
				got = append(got, receive(ctx, t, l))
			}
			wantSignals(t, "signals", got, tt.want...)
			wantGone(t, l, tt.dropped, tt.merged)
		})
	}
}

func wantGone(t *testing.T, l *hark.Listener, dropped, merged uint64) {
	t.Helper()
	if s := l.Stats(); s.Dropped != dropped || s.Merged != merged || s.Waiting != 0 {
		t.Errorf("got %+v, want %d dropped, %d merged, none waiting", s, dropped, merged)
	}
}

func testNTF10(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e, other := newEars(), newEars()
	release := e.hold(t)
	e.register(t, n, "a", hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
	notify(ctx, t, n, "a", 1)
	e.wait(ctx, t, 1)
	notify(ctx, t, n, "a", 1) // waits in the buffer
	other.register(t, n, "a")

	short, cancel := context.WithCancelCause(ctx)
	why := errors.New("no patience")
	done := make(chan error)
	go func() {
		_, err := n.Notify(short, "a")
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("got %v, want the cause of the context", err)
	}
	go func() {
		_, err := n.Notify(ctx, ">")
		done <- err
	}()
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := e.wait(ctx, t, 3); len(got) != 3 {
		t.Errorf("got %v, want 3 signals", got)
	}
	other.wait(ctx, t, 1)
	wantSignals(t, "beside a full one", other.signals(), hark.Signal{Name: ">", Count: 1})

	// One that leaves holds up nobody.
	release = e.hold(t)
	l := e.register(t, n, "b", hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
	notify(ctx, t, n, "b", 1)
	e.wait(ctx, t, 4)
	notify(ctx, t, n, "b", 1)
	go func() {
		_, err := n.Notify(ctx, "b")
		done <- err
	}()
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	if err := <-done; err != nil {
		t.Error(err)
	}
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func testNTF11(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	other := newEars()
	other.register(t, n, "a")
	l := listen(t, n, "a", hark.EachSignal(), hark.Buffer(2), hark.Overflow(hark.Fail))
	notify(ctx, t, n, "a", 2)
	notify(ctx, t, n, "a", 2)
	for _, target := range []string{"a", ">", l.ID()} {
		if got, err := n.Notify(ctx, target); got != 0 || !errors.Is(err, hark.ErrFull) {
			t.Errorf("notify %s: got %d, %v, want ErrFull", target, got, err)
		}
	}
	if err := n.Latch(ctx, "a"); !errors.Is(err, hark.ErrFull) {
		t.Errorf("latch: got %v, want ErrFull", err)
	}
	receive(ctx, t, l)
	notify(ctx, t, n, "a", 2)
	other.wait(ctx, t, 3)
	if got := other.count(); got != 3 {
		t.Errorf("beside a full one: heard of %d notifications, want 3", got)
	}
	late := listen(t, n, "a")
	if len(late.C()) != 0 {
		t.Error("a latch that was refused holds")
	}
}

func testNTF18(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newEars()
	f, c := e.register(t, n, "a"), listen(t, n, "a")
	notify(ctx, t, n, "a", 2)
	e.wait(ctx, t, 1)
	for range 2 {
		if err := errors.Join(f.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		for _, target := range []string{"a", f.ID(), c.ID(), ">"} {
			notify(ctx, t, n, target, 0)
		}
	}
	// What waited is still there, then the channel is closed.
	wantSignals(t, "after Close", []hark.Signal{receive(ctx, t, c)}, hark.Signal{Name: "a", Count: 1})
	if s, ok := <-c.C(); ok {
		t.Errorf("got %v from a closed listener", s)
	}
	if got := e.count(); got != 1 {
		t.Errorf("heard of %d notifications, want 1", got)
	}
}

func testNTF19(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	entered, ended := make(chan struct{}), false
	l, err := n.Register("a", func(ctx context.Context, _ hark.Signal) {
		close(entered)
		<-ctx.Done() // Close ends it
		if !errors.Is(context.Cause(ctx), hark.ErrClosed) {
			t.Errorf("the context ended with %v, want ErrClosed", context.Cause(ctx))
		}
		ended = true
	})
	if err != nil {
		t.Fatal(err)
	}
	notify(ctx, t, n, "a", 1)
	<-entered
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if !ended { // no lock: Close has seen it end
		t.Error("Close returned while the function ran")
	}

	closed := make(chan error, 1)
	var self *hark.Listener
	ready := make(chan struct{})
	self, err = n.Register("b", func(context.Context, hark.Signal) {
		<-ready
		closed <- self.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	notify(ctx, t, n, "b", 1)
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("Close in the function: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("Close in the function hangs")
	}
	notify(ctx, t, n, "b", 0)
}

func testNTF20(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newEars()
	l, err := n.Register("a", func(_ context.Context, s hark.Signal) {
		e.hear(s)
		switch len(e.signals()) {
		case 1:
			panic("no")
		case 2:
			runtime.Goexit()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		notify(ctx, t, n, "a", 1)
		e.wait(ctx, t, i+1)
	}
	if s := l.Stats(); s.Failed != 2 || s.Delivered != 3 {
		t.Errorf("got %+v, want 2 of 3 failed", s)
	}
}

func testNTF21(t *testing.T, open Opener) {
	for _, opts := range [][]hark.ListenOption{
		nil,
		{hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block)},
	} {
		ctx, bus := start(t, open)
		n := newNotifier(t, bus)
		done := make(chan struct{})
		const rounds = 200
		for i := range 3 { // a circle in which each notifies all of it
			count := 0
			if _, err := n.Register(fmt.Sprintf("ring.r%d", i), func(ctx context.Context, s hark.Signal) {
				if count++; count == rounds && i == 0 {
					close(done)
				}
				if count > rounds {
					return
				}
				if _, err := n.Notify(ctx, "ring.*"); err != nil && !errors.Is(err, hark.ErrClosed) {
					t.Errorf("notify from a function: %v", err)
				}
				l, err := n.Listen("other")
				if errors.Is(err, hark.ErrClosed) {
					return // the circle goes on while the bus is closed
				}
				if err != nil {
					t.Errorf("listen in a function: %v", err)
					return
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}, opts...); err != nil {
				t.Fatal(err)
			}
		}
		notify(ctx, t, n, "ring.r0", 1)
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatal("functions that notify each other hang")
		}
	}
}

func testNTF22(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e, follow := newEars(), newEars()
	release := e.hold(t)
	e.register(t, n, "a")
	follow.register(t, n, "follow")
	if _, err := n.Register("a", func(ctx context.Context, _ hark.Signal) {
		e.wait(ctx, t, 1)
		if _, err := n.Notify(ctx, "follow"); err != nil {
			t.Errorf("notify from a function while the bus closes: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	c := listen(t, n, "c")
	waiting := make(chan error)
	go func() { waiting <- n.Wait(ctx, "never") }()
	until(ctx, t, "somebody waits", func() bool { return bus.Stats().Notifier.Waiters == 1 })
	notify(ctx, t, n, "a", 2)
	e.wait(ctx, t, 1)
	notify(ctx, t, n, "a", 2) // waits behind the first

	closed := make(chan error)
	go func() { closed <- bus.Close(ctx) }()
	until(ctx, t, "the bus refuses", func() bool { return second(n.Notify(ctx, "nobody")) != nil })
	for what, err := range map[string]error{
		"Notify":       second(n.Notify(ctx, "a")),
		"Notify(*)":    second(n.Notify(ctx, "*")),
		"Latch":        n.Latch(ctx, "a"),
		"Unlatch":      n.Unlatch(ctx, "a"),
		"Wait":         n.Wait(ctx, "a"),
		"Register":     second(n.Register("a", e.call)),
		"RegisterFunc": second(n.RegisterFunc(e.hear)),
		"Listen":       second(n.Listen("a")),
		"NewNotifier":  second(hark.NewNotifier(bus)),
	} {
		if !errors.Is(err, hark.ErrClosed) || !strings.HasPrefix(err.Error(), "hark: ") {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := e.count(); got != 2 {
		t.Errorf("heard of %d notifications, want 2: Close runs what waits", got)
	}
	if got := follow.count(); got < 1 {
		t.Error("what a function notified while the bus closed is lost")
	}
	if err := <-waiting; !errors.Is(err, hark.ErrClosed) {
		t.Errorf("Wait: got %v, want ErrClosed", err)
	}
	if s, ok := <-c.C(); ok {
		t.Errorf("got %v, want a closed channel", s)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
