package hark_test

import (
	"context"
	"fmt"

	"github.com/harkbus/hark"
)

// Signals that arrive before a listener has taken the last one are merged and
// counted: Notify never waits for a reader, and nothing is lost.
func ExampleNotifier() {
	ctx := context.Background()
	bus := hark.New()
	defer bus.Close(ctx)

	n, err := hark.NewNotifier(bus)
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := n.Listen("cache.invalidated")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	for range 3 {
		if _, err := n.Notify(ctx, "cache.invalidated"); err != nil {
			fmt.Println(err)
		}
	}
	select {
	case s := <-l.C():
		fmt.Println(s.Name, s.Count)
	case <-ctx.Done():
	}
	// Output: cache.invalidated 3
}

type Thermostat struct{ room string }

func (t *Thermostat) OnCold(hark.Signal) { fmt.Println(t.room, "is heated") }

// A method is registered under its package, type and name. Notify reaches all
// methods of a type, one method, or by its ID one listener.
func ExampleNotifier_RegisterFunc() {
	ctx := context.Background()
	bus := hark.New()

	n, err := hark.NewNotifier(bus)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, room := range []string{"hall", "kitchen"} {
		if _, err := n.RegisterFunc((&Thermostat{room}).OnCold); err != nil {
			fmt.Println(err)
			return
		}
	}
	target, err := hark.FuncName((*Thermostat).OnCold)
	if err != nil {
		fmt.Println(err)
		return
	}
	reached, err := n.Notify(ctx, target) // "hark_test.Thermostat" or "*.Thermostat" would do too
	fmt.Println(target, "reached", reached, err)
	if err := bus.Close(ctx); err != nil { // runs what waits
		fmt.Println(err)
	}

	// Unordered output:
	// hark_test.Thermostat#OnCold reached 2 <nil>
	// hall is heated
	// kitchen is heated
}

// Whoever comes after a latch still sees it.
func ExampleNotifier_Latch() {
	ctx := context.Background()
	bus := hark.New()
	n, err := hark.NewNotifier(bus)
	if err != nil {
		fmt.Println(err)
		return
	}

	early := make(chan error)
	go func() { early <- n.Wait(ctx, "db.ready", "cache.ready") }()

	for _, name := range []string{"db.ready", "cache.ready"} {
		if err := n.Latch(ctx, name); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("early:", <-early)
	fmt.Println("late:", n.Wait(ctx, "db.ready", "cache.ready"))

	if _, err := n.Register("db.ready", func(_ context.Context, s hark.Signal) {
		fmt.Println("listener:", s.Name)
	}); err != nil {
		fmt.Println(err)
	}
	if err := bus.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// early: <nil>
	// late: <nil>
	// listener: db.ready
}

// With EachSignal every notification is a signal of its own, as far as the
// buffer goes.
func ExampleEachSignal() {
	ctx := context.Background()
	n, err := hark.NewNotifier(nil) // a private one
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := n.Listen("door.opened", hark.EachSignal(), hark.Buffer(2), hark.Overflow(hark.DropOldest))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, target := range []string{"door.opened", "door.*", "*.opened"} {
		if _, err := n.Notify(ctx, target); err != nil {
			fmt.Println(err)
		}
	}
	if err := l.Close(); err != nil {
		fmt.Println(err)
	}
	for s := range l.C() {
		fmt.Println(s.Name, s.Count)
	}
	fmt.Println("dropped:", l.Stats().Dropped)
	// Output:
	// door.* 1
	// *.opened 1
	// dropped: 1
}
