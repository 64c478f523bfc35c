package drivertest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var latchClauses = []Clause{
	{"NTF-14", "a latched name signals those who come later, each once", testNTF14},
	{"NTF-15", "Latch and Unlatch may be repeated", testNTF15},
	{"NTF-16", "Wait waits for all names, WaitAny for one", testNTF16},
	{"NTF-17", "a wait sees what comes after it began, and latches", testNTF17},
}

func latch(ctx context.Context, t *testing.T, n *hark.Notifier, name string) {
	t.Helper()
	if err := n.Latch(ctx, name); err != nil {
		t.Fatal(err)
	}
}

func testNTF14(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Latches)
	n := newNotifier(t, bus)
	early, late := newSignalRecorder(), newSignalRecorder()
	early.register(t, n, "initialized")
	latch(ctx, t, n, "initialized")
	want := hark.Signal{Name: "initialized", Count: 1}
	wantSignals(t, "early", early.wait(ctx, t, 1), want)
	late.register(t, n, "initialized")
	wantSignals(t, "late", late.wait(ctx, t, 1), want)
	wantSignals(t, "late channel", []hark.Signal{receive(ctx, t, listen(t, n, "initialized"))}, want)

	// Latching a type counts for its methods; latching a method counts only for
	// that method.
	latch(ctx, t, n, "drivertest.lamp")
	latch(ctx, t, n, "drivertest.lamp#OnHold")
	l := &lamp{newSignalRecorder()}
	for _, f := range []any{l.OnPress, l.OnHold} {
		if _, err := n.RegisterFunc(f); err != nil {
			t.Fatal(err)
		}
	}
	l.wait(ctx, t, 3)
	if err := n.Wait(ctx, "drivertest.lamp#OnPress"); err != nil {
		t.Error(err)
	}

	// A function registered while the name is latched gets exactly one signal.
	for range 50 {
		all := make([]*signalRecorder, 4)
		var wg sync.WaitGroup
		for i := range all {
			all[i] = newSignalRecorder()
			wg.Go(func() {
				if _, err := n.Register("race", all[i].call, hark.EachSignal()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { latch(ctx, t, n, "race") })
		wg.Wait()
		for _, e := range all {
			e.wait(ctx, t, 1)
			if got := e.count(); got != 1 {
				t.Fatalf("a listener got %d signals, want 1", got)
			}
		}
		if err := n.Unlatch(ctx, "race"); err != nil {
			t.Fatal(err)
		}
	}
}

func testNTF15(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Latches)
	n := newNotifier(t, bus)
	e := newSignalRecorder()
	e.register(t, n, "a", hark.EachSignal())
	for range 3 {
		latch(ctx, t, n, "a")
	}
	notify(ctx, t, n, "a", 1) // a latched name can be notified
	e.wait(ctx, t, 2)
	if got := e.count(); got != 2 {
		t.Errorf("heard of %d notifications, want 2", got)
	}
	for range 3 {
		if err := n.Unlatch(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if got := bus.Stats().Notifier.Latched; len(got) != 0 {
		t.Errorf("latched: %v, want none", got)
	}
	late := listen(t, n, "a")
	latch(ctx, t, n, "held")
	if name, err := n.WaitAny(ctx, "a", "held"); name != "held" || err != nil {
		t.Errorf("WaitAny: got %s, %v, want held: the other latch has ended", name, err)
	}
	latch(ctx, t, n, "a") // again, which sends a signal
	wantSignals(t, "late", []hark.Signal{receive(ctx, t, late)}, hark.Signal{Name: "a", Count: 1})
	e.wait(ctx, t, 3)
}

func testNTF16(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	all := make(chan error)
	go func() { all <- n.Wait(ctx, "a", "b.c", "x.T#M", "a") }()
	reach := func(target string) {
		t.Helper()
		until(ctx, t, "somebody waits for "+target, func() bool { return must(n.Notify(ctx, target))(t) > 0 })
	}
	reach("b.*")
	reach("a")
	select {
	case err := <-all:
		t.Fatalf("Wait returned %v before the last name came", err)
	default:
	}
	reach("x.T") // the type of the method
	if err := <-all; err != nil {
		t.Error(err)
	}
	any := make(chan string)
	go func() {
		name, err := n.WaitAny(ctx, "a", "b.c")
		if err != nil {
			t.Error(err)
		}
		any <- name
	}()
	reach("*.c")
	if name := <-any; name != "b.c" {
		t.Errorf("WaitAny: got %s, want b.c", name)
	}
	until(ctx, t, "nobody waits", func() bool { return bus.Stats().Notifier.Waiters == 0 })
	notify(ctx, t, n, ">", 0) // no one waits any more
}

func testNTF17(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	needs(t, bus, driver.Latches)
	n := newNotifier(t, bus)
	notify(ctx, t, n, "a", 0) // before the wait: does not count
	short, cancel := context.WithCancelCause(ctx)
	why := errors.New("enough")
	done := make(chan error)
	go func() { done <- n.Wait(short, "a", "b") }()
	until(ctx, t, "somebody waits", func() bool { return bus.Stats().Notifier.Waiters == 1 })
	latch(ctx, t, n, "b")
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("got %v, want the cause of the context", err)
	}
	if err := n.Wait(ctx, "b"); err != nil {
		t.Error(err)
	}
	if name, err := n.WaitAny(ctx, "a", "b"); name != "b" || err != nil {
		t.Errorf("got %s, %v, want b", name, err)
	}
	if err := n.Wait(ctx); err != nil {
		t.Errorf("wait for nothing: %v", err)
	}
	notify(ctx, t, n, "a", 0) // waiters that gave up are not reached
}
