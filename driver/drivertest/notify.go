package drivertest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/harkbus/hark"
)

var notifyClauses = []Clause{
	{"NTF-1", "Notify reaches everybody under the name, and says how many", testNTF1},
	{"NTF-2", "a function is reached by its type, method, ID and patterns", testNTF2},
	{"NTF-4", "what breaks the rules is refused and does nothing", testNTF4},
	{"NTF-12", "a context that has ended notifies nobody", testNTF12},
	{"NTF-13", "what came before a notification is visible to whom it reaches", testNTF13},
}

// lamp and bell have methods with the same name.
type (
	lamp struct{ *signalRecorder }
	bell struct{ *signalRecorder }
)

func (l *lamp) OnPress(s hark.Signal)                   { l.hear(s) }
func (l *lamp) OnHold(_ context.Context, s hark.Signal) { l.hear(s) }
func (b bell) OnPress(_ context.Context, s hark.Signal) { b.hear(s) }
func (b bell) OnNothing()                               { b.hear(hark.Signal{Count: 1}) }

func testNTF1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	notify(ctx, t, n, "a.b", 0)
	one, two, other := newSignalRecorder(), newSignalRecorder(), newSignalRecorder()
	one.register(t, n, "a.b")
	two.register(t, n, "a.b")
	other.register(t, n, "a")
	other.register(t, n, "a.b.c")
	l := listen(t, n, "a.b")
	if l.Name() != "a.b" || !strings.HasPrefix(l.ID(), "a.b#") {
		t.Errorf("got name %s and ID %s", l.Name(), l.ID())
	}
	notify(ctx, t, n, "a.b", 3)
	want := hark.Signal{Name: "a.b", Count: 1}
	wantSignals(t, "one", one.wait(ctx, t, 1), want)
	wantSignals(t, "two", two.wait(ctx, t, 1), want)
	wantSignals(t, "channel", []hark.Signal{receive(ctx, t, l)}, want)
	notify(ctx, t, n, l.ID(), 1)
	wantSignals(t, "channel, by ID", []hark.Signal{receive(ctx, t, l)}, hark.Signal{Name: l.ID(), Count: 1})
	notify(ctx, t, n, "a.c", 0)
	notify(ctx, t, n, "a.b#00000000", 0)
	if got := other.count() + one.count() + two.count(); got != 2 {
		t.Errorf("listeners heard of %d notifications, want 2", got)
	}
}

func testNTF2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	l1, l2, b := &lamp{newSignalRecorder()}, &lamp{newSignalRecorder()}, bell{newSignalRecorder()}
	ids := map[string]string{}
	for name, f := range map[string]any{"l1.press": l1.OnPress, "l1.hold": l1.OnHold, "l2.press": l2.OnPress, "b.press": b.OnPress, "b.nothing": b.OnNothing} {
		l, err := n.RegisterFunc(f)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hark.FuncName(f)
		if err != nil || l.Name() != want || !strings.HasPrefix(l.ID(), want+"-") {
			t.Errorf("%s: got name %s, ID %s; want name %s, %v", name, l.Name(), l.ID(), want, err)
		}
		ids[name] = l.ID()
	}
	press, err := hark.FuncName((*lamp).OnPress)
	if err != nil {
		t.Fatal(err)
	}
	plain := newSignalRecorder()
	plain.register(t, n, "drivertest.lamp")
	plain.register(t, n, press) // stands in for a method
	tests := []struct {
		target                 string
		reached                int
		l1, l2, bell, listener int
	}{
		{"drivertest.lamp", 5, 2, 1, 0, 2},
		{"drivertest.lamp#OnPress", 3, 1, 1, 0, 1},
		{press, 3, 1, 1, 0, 1},
		{"drivertest.lamp#OnHold", 1, 1, 0, 0, 0},
		{"drivertest.bell", 2, 0, 0, 2, 0},
		{ids["l1.press"], 1, 1, 0, 0, 0},
		{ids["l2.press"], 1, 0, 1, 0, 0},
		{ids["b.nothing"], 1, 0, 0, 1, 0},
		{"drivertest.*", 7, 2, 1, 2, 2},
		{"*.bell", 2, 0, 0, 2, 0},
		{"drivertest.*#OnPress", 4, 1, 1, 1, 1},
		{">", 7, 2, 1, 2, 2},
		{">#OnHold", 1, 1, 0, 0, 0},
		{"drivertest", 0, 0, 0, 0, 0},
		{"drivertest#OnPress", 0, 0, 0, 0, 0},
		{"drivertest.lamp#OnNothing", 0, 0, 0, 0, 0},
		{"*", 0, 0, 0, 0, 0},
	}
	var want [4]int
	for _, tt := range tests {
		notify(ctx, t, n, tt.target, tt.reached)
		for i, e := range []*signalRecorder{l1.signalRecorder, l2.signalRecorder, b.signalRecorder, plain} {
			want[i] += []int{tt.l1, tt.l2, tt.bell, tt.listener}[i]
			e.wait(ctx, t, want[i])
			if got := e.count(); got != want[i] {
				t.Fatalf("after %s: signalRecorder %d heard of %d notifications, want %d", tt.target, i, got, want[i])
			}
		}
	}
}

func testNTF4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	e := newSignalRecorder()
	const invalid = "a..b"
	each := hark.EachSignal()
	for what, got := range map[string]struct{ err, want error }{
		"Notify":                    {second(n.Notify(ctx, invalid)), hark.ErrInvalidName},
		"Notify a bad ID":           {second(n.Notify(ctx, "a#b-xyz")), hark.ErrInvalidName},
		"Notify a bad method":       {second(n.Notify(ctx, "a#")), hark.ErrInvalidName},
		"Register":                  {second(n.Register(invalid, e.call)), hark.ErrInvalidName},
		"Register a pattern":        {second(n.Register("a.*", e.call)), hark.ErrInvalidName},
		"Listen to a pattern":       {second(n.Listen("a.>")), hark.ErrInvalidName},
		"Listen to an ID":           {second(n.Listen("a#b-01234567")), hark.ErrInvalidName},
		"Latch a pattern":           {n.Latch(ctx, "a.*"), hark.ErrInvalidName},
		"Unlatch a pattern":         {n.Unlatch(ctx, "a.*"), hark.ErrInvalidName},
		"Wait for a pattern":        {n.Wait(ctx, "a.*"), hark.ErrInvalidName},
		"WaitAny for a pattern":     {second(n.WaitAny(ctx, "a", "b.*")), hark.ErrInvalidName},
		"WaitAny for nothing":       {second(n.WaitAny(ctx)), hark.ErrInvalidOption},
		"Register nil":              {second(n.Register("a", nil)), hark.ErrInvalidOption},
		"RegisterFunc nil":          {second(n.RegisterFunc(nil)), hark.ErrInvalidOption},
		"RegisterFunc of no func":   {second(n.RegisterFunc(1)), hark.ErrInvalidOption},
		"RegisterFunc(func(int))":   {second(n.RegisterFunc(func(int) {})), hark.ErrInvalidOption},
		"RegisterFunc, expression":  {second(n.RegisterFunc((*lamp).OnPress)), hark.ErrInvalidOption},
		"Buffer without EachSignal": {second(n.Listen("a", hark.Buffer(2))), hark.ErrInvalidOption},
		"Overflow, no EachSignal":   {second(n.Listen("a", hark.Overflow(hark.Fail))), hark.ErrInvalidOption},
		"Buffer(0)":                 {second(n.Listen("a", each, hark.Buffer(0))), hark.ErrInvalidOption},
		"Latest with Buffer(2)":     {second(n.Listen("a", each, hark.Buffer(2), hark.Overflow(hark.Latest))), hark.ErrInvalidOption},
		"Block for a channel":       {second(n.Listen("a", each, hark.Overflow(hark.Block))), hark.ErrInvalidOption},
		"Unbounded for a channel":   {second(n.Listen("a", each, hark.Buffer(hark.Unbounded))), hark.ErrInvalidOption},
	} {
		if !errors.Is(got.err, got.want) || !strings.HasPrefix(got.err.Error(), "hark: ") {
			t.Errorf("%s: got %v, want %v", what, got.err, got.want)
		}
	}
	notify(ctx, t, n, ">", 0)
	if s := bus.Stats().Notifier; s.Listeners+s.Waiters+len(s.Latched) != 0 {
		t.Errorf("got %+v, want nothing", s)
	}
}

func testNTF12(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	l := listen(t, n, "a")
	why := errors.New("enough")
	ended, cancel := context.WithCancelCause(ctx)
	cancel(why)
	for what, err := range map[string]error{
		"Notify":  second(n.Notify(ended, "a")),
		"Latch":   n.Latch(ended, "a"),
		"Unlatch": n.Unlatch(ended, "a"),
		"Wait":    n.Wait(ended, "a"),
		"WaitAny": second(n.WaitAny(ended, "a")),
	} {
		if !errors.Is(err, why) {
			t.Errorf("%s: got %v, want the cause", what, err)
		}
	}
	notify(ctx, t, n, "a", 1)
	wantSignals(t, "signals", []hark.Signal{receive(ctx, t, l)}, hark.Signal{Name: "a", Count: 1})
}

// testNTF13 uses plain variables, so the race detector reports what is not
// ordered.
func testNTF13(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	n := newNotifier(t, bus)
	state := 0
	const rounds = 100
	heard, turn := make(chan int), make(chan int)
	if _, err := n.Register("function", func(context.Context, hark.Signal) { heard <- state }); err != nil {
		t.Fatal(err)
	}
	l := listen(t, n, "channel")
	go func() {
		for range rounds {
			<-l.C()
			heard <- state
		}
	}()
	go func() {
		for range rounds {
			turn <- 0
			if err := n.Wait(ctx, "waiter"); err != nil {
				t.Error(err)
			}
			heard <- state
		}
	}()
	for range rounds {
		<-turn
		for _, target := range []string{"function", "channel", "waiter"} {
			state++
			// The waiter may not have arrived yet.
			until(ctx, t, "somebody hears "+target, func() bool { return must(n.Notify(ctx, target))(t) > 0 })
			if got := <-heard; got != state {
				t.Fatalf("%s saw %d, want %d", target, got, state)
			}
		}
	}
}
