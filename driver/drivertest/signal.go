package drivertest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var signalClauses = []Clause{
	{"NTF-5", "notifications of a busy function are merged and counted", testNTF5},
	{"NTF-6", "notifications of a full channel are merged and counted", testNTF6},
	{"NTF-7", "EachSignal: each notification, in order", testNTF7},
	{"NTF-8", "all listeners of a name see one order", testNTF8},
	{"NTF-9", "beyond the buffer the policy decides, and each drop counts", testNTF9},
	{"NTF-10", "Block: Notify waits for room until its context ends", testNTF10},
	{"NTF-11", "Fail: ErrFull, and nobody is reached", testNTF11},
}

func testNTF5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newSignalRecorder()
	release := e.hold(t)
	e.register(t, n, "a.b")
	notify(ctx, t, n, "a.b", 1)
	e.wait(ctx, t, 1)
	for range 4 {
		notify(ctx, t, n, "a.b", 1)
	}
	notify(ctx, t, n, "a.*", 1) // the last of the merged signals
	release()
	wantSignals(t, "a function that was busy", e.wait(ctx, t, 6),
		hark.Signal{Name: "a.b", Count: 1}, hark.Signal{Name: "a.*", Count: 5})

	// However many goroutines notify, and however fast, nothing is lost or
	// invented.
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
	e := newSignalRecorder()
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
	all := make([]*signalRecorder, 3)
	for i := range all {
		all[i] = newSignalRecorder()
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
	sent := []string{"x", "*", ">", "x", "*"} // distinct names with the same meaning
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
			e := newSignalRecorder()
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
	e, other := newSignalRecorder(), newSignalRecorder()
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

	// A listener that leaves holds up no one.
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
	other := newSignalRecorder()
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

	// The same for a function.
	e := newSignalRecorder()
	release := e.hold(t)
	e.register(t, n, "b", hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Fail))
	other.register(t, n, "b")
	notify(ctx, t, n, "b", 2)
	e.wait(ctx, t, 1)
	notify(ctx, t, n, "b", 2) // fills the buffer
	if got, err := n.Notify(ctx, "b"); got != 0 || !errors.Is(err, hark.ErrFull) {
		t.Errorf("notify a function whose buffer is full: got %d, %v, want ErrFull", got, err)
	}
	release()
	e.wait(ctx, t, 2)
	notify(ctx, t, n, "b", 2)
	e.wait(ctx, t, 3)
	other.wait(ctx, t, 6)
	if got, beside := e.count(), other.count(); got != 3 || beside != 6 {
		t.Errorf("heard of %d notifications, and beside it of %d, want 3 and 6", got, beside)
	}
}
