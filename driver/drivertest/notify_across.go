package drivertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

var notifyAcrossClauses = []AcrossClause{
	{"NTF-25", "Notify reaches the listeners of all processes, and counts them", testNTF25},
	{"NTF-26", "signals of a process come in its order, each once", testNTF26},
	{"NTF-27", "listeners of other processes hold up nobody", testNTF27},
	{"NTF-28", "a latch holds in all processes, later ones too", testNTF28},
	{"NTF-29", "waits are woken from other processes", testNTF29},
}

func testNTF25(ctx context.Context, t *testing.T, connect Connector) {
	a, b, c := newNotifier(t, connect()), newNotifier(t, connect()), newNotifier(t, connect())
	notify(ctx, t, a, "a.b", 0)
	inA, inB, inC := newSignalRecorder(), newSignalRecorder(), &lamp{newSignalRecorder()}
	inA.register(t, a, "a.b")
	inB.register(t, b, "a.b")
	one := inB.register(t, b, "a.b")
	if _, err := c.RegisterFunc(inC.OnPress); err != nil {
		t.Fatal(err)
	}
	hold, err := c.RegisterFunc(inC.OnHold)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		from          *hark.Notifier
		target        string
		reached       int
		inA, inB, inC int
	}{
		{a, "a.b", 3, 1, 2, 0},
		{b, "a.b", 3, 1, 2, 0},
		{c, "a.b", 3, 1, 2, 0},
		{a, one.ID(), 1, 0, 1, 0},
		{b, one.ID(), 1, 0, 1, 0},
		{a, hold.ID(), 1, 0, 0, 1},
		{a, "drivertest.lamp", 2, 0, 0, 2},
		{b, "drivertest.lamp#OnPress", 1, 0, 0, 1},
		{b, "*.lamp#OnHold", 1, 0, 0, 1},
		{a, "*.b", 3, 1, 2, 0},
		{c, ">", 5, 1, 2, 2},
		{a, "a", 0, 0, 0, 0},
		{b, "drivertest.lamp#OnNothing", 0, 0, 0, 0},
	}
	var want [3]int
	for _, tt := range tests {
		notify(ctx, t, tt.from, tt.target, tt.reached)
		for i, e := range []*signalRecorder{inA, inB, inC.signalRecorder} {
			want[i] += []int{tt.inA, tt.inB, tt.inC}[i]
			e.wait(ctx, t, want[i])
			if got := e.count(); got != want[i] {
				t.Fatalf("after %s: process %d heard of %d notifications, want %d", tt.target, i, got, want[i])
			}
		}
	}
	// Listeners that come or go are counted from that moment on.
	busD := connect()
	d := newNotifier(t, busD)
	newSignalRecorder().register(t, d, "a.b")
	notify(ctx, t, c, "a.b", 4)
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	notify(ctx, t, a, one.ID(), 0)
	if err := busD.Close(ctx); err != nil {
		t.Fatal(err)
	}
	notify(ctx, t, a, "a.b", 2)
}

func testNTF26(ctx context.Context, t *testing.T, connect Connector) {
	const processes, each = 3, 200
	targets := []string{"x", "*", ">"} // distinct names with the same meaning
	all := make([]*signalRecorder, processes)
	notifiers := make([]*hark.Notifier, processes)
	for i := range all {
		all[i], notifiers[i] = newSignalRecorder(), newNotifier(t, connect())
		all[i].register(t, notifiers[i], "x", hark.EachSignal(), hark.Buffer(hark.Unbounded))
	}
	sent := make([]hark.Signal, 0, each)
	for i := range each {
		sent = append(sent, hark.Signal{Name: targets[i%7%3], Count: 1})
	}
	for _, s := range sent {
		notify(ctx, t, notifiers[0], s.Name, processes)
	}
	for i, e := range all {
		wantSignals(t, fmt.Sprintf("process %d", i), e.wait(ctx, t, each), sent...)
	}

	var wg sync.WaitGroup
	for i, n := range notifiers {
		for range 4 {
			wg.Go(func() {
				for range each / 4 {
					notify(ctx, t, n, targets[i], processes)
				}
			})
		}
	}
	wg.Wait()
	for i, e := range all {
		counts := map[string]int{}
		for _, s := range e.wait(ctx, t, (1+processes)*each)[each:] {
			counts[s.Name] += s.Count
		}
		for _, target := range targets {
			if counts[target] != each {
				t.Errorf("process %d heard of %d notifications of %s, want %d", i, counts[target], target, each)
			}
		}
	}
}

func testNTF27(ctx context.Context, t *testing.T, connect Connector) {
	a, b := newNotifier(t, connect()), newNotifier(t, connect())
	other := newSignalRecorder()
	other.register(t, b, "x")
	held := newSignalRecorder()
	release := held.hold(t)
	full := listen(t, b, "x", hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Fail))
	blocked := held.register(t, b, "x", hark.EachSignal(), hark.Buffer(1), hark.Overflow(hark.Block))
	notify(ctx, t, a, "x", 3)
	held.wait(ctx, t, 1)
	for range 5 {
		notify(ctx, t, a, "x", 2) // the full one is not reached
	}
	release()
	held.wait(ctx, t, 6)
	other.wait(ctx, t, 6)
	if s := full.Stats(); s.Dropped != 5 || s.Waiting != 1 {
		t.Errorf("full: got %+v, want 5 dropped and 1 waiting", s)
	}
	if s := blocked.Stats(); s.Dropped != 0 || s.BufferExceeded == 0 {
		t.Errorf("blocked: got %+v, want none dropped, some overgrown", s)
	}
}

func testNTF28(ctx context.Context, t *testing.T, connect Connector) {
	busA := connect()
	needs(t, busA, driver.Latches)
	busB := connect()
	a, b := newNotifier(t, busA), newNotifier(t, busB)
	early := newSignalRecorder()
	early.register(t, b, "x", hark.EachSignal())
	want := hark.Signal{Name: "x", Count: 1}
	latch(ctx, t, a, "x")
	wantSignals(t, "early", early.wait(ctx, t, 1), want)
	latch(ctx, t, b, "x") // again: no effect
	busC := connect()
	c := newNotifier(t, busC)
	for what, n := range map[string]*hark.Notifier{"its process": a, "another": b, "a later one": c} {
		wantSignals(t, what, []hark.Signal{receive(ctx, t, listen(t, n, "x"))}, want)
	}
	// A latch outlives the process that set it.
	if err := busA.Close(ctx); err != nil {
		t.Fatal(err)
	}
	d := newNotifier(t, connect())
	if err := d.Wait(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := d.Unlatch(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	for _, bus := range []*hark.Bus{busB, busC} {
		until(ctx, t, "unlatched", func() bool { return len(bus.Stats().Notifier.Latched) == 0 })
	}
	if got := early.count(); got != 1 {
		t.Errorf("early heard of %d notifications, want 1", got)
	}
	late := listen(t, newNotifier(t, connect()), "x")
	latch(ctx, t, c, "x")
	wantSignals(t, "late", []hark.Signal{receive(ctx, t, late)}, want)
	early.wait(ctx, t, 2)

	// All processes latch and unlatch at the same time. In the end all agree,
	// and so does a new one.
	buses := []*hark.Bus{busB, busC, connect()}
	var wg sync.WaitGroup
	for i, bus := range buses {
		n := newNotifier(t, bus)
		wg.Go(func() {
			for k := range 20 {
				name := fmt.Sprintf("n%d", k%3)
				latch(ctx, t, n, name)
				if (i+k)%2 == 0 {
					if err := n.Unlatch(ctx, name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	fresh := connect()
	newNotifier(t, fresh)
	final := fresh.Stats().Notifier.Latched
	for _, bus := range buses {
		until(ctx, t, "all agree", func() bool { return slices.Equal(bus.Stats().Notifier.Latched, final) })
	}
}

func testNTF29(ctx context.Context, t *testing.T, connect Connector) {
	busA, busB := connect(), connect()
	a, b := newNotifier(t, busA), newNotifier(t, busB)
	done := make(chan error)
	go func() { done <- b.Wait(ctx, "x", "y.T#M") }()
	until(ctx, t, "somebody waits", func() bool { return must(a.Notify(ctx, "x"))(t) == 1 })
	notify(ctx, t, a, "y.T", 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	notify(ctx, t, a, ">", 0) // no one waits any more
	if info := busA.Engine(); !info.Has(driver.Latches) {
		return
	}
	go func() {
		name, err := b.WaitAny(ctx, "x", "z")
		if name != "z" {
			t.Errorf("got %s, %v, want z", name, err)
		}
		done <- err
	}()
	until(ctx, t, "somebody waits", func() bool { return busB.Stats().Notifier.Waiters == 1 })
	latch(ctx, t, a, "z")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
