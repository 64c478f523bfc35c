package drivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/harkbus/hark"
)

var listenerClauses = []Clause{
	{"NTF-18", "a closed listener is gone at once", testNTF18},
	{"NTF-19", "Close waits for the function, but not in it", testNTF19},
	{"NTF-20", "a function that panics or exits stays registered", testNTF20},
	{"NTF-21", "functions may do all that others may", testNTF21},
	{"NTF-22", "a closing bus refuses, runs what waits, and ends the rest", testNTF22},
}

func testNTF18(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newSignalRecorder()
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
	// A signal that was waiting is still delivered, and then the channel is
	// closed.
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
		<-ctx.Done() // Close ends the context
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
	if !ended { // needs no lock: Close waited for the function to end
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
	e := newSignalRecorder()
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
		for i := range 3 { // a circle in which each function notifies all three
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
					return // the circle is still running while the bus is closed
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
	e, follow := newSignalRecorder(), newSignalRecorder()
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
