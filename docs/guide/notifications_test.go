package guide_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harkbus/hark"
)

type Counter struct{ n int }

func (c *Counter) OnIncrement() { c.n++ }

func Example_notifications() {
	report(notifications(context.Background()))
	// Output:
	// reload, asked for 1 times
	// reached 1 and 1
	// opened 2 times since the last look
}

func notifications(ctx context.Context) error {
	bus := hark.New()
	n, err := hark.NewNotifier(bus)
	if err != nil {
		return err
	}
	l, err := n.Register("cache.invalidated", func(ctx context.Context, s hark.Signal) {
		fmt.Println("reload, asked for", s.Count, "times")
	})
	if err != nil {
		return err
	}
	defer l.Close()
	reached, err := n.Notify(ctx, "cache.invalidated")
	if err != nil {
		return err
	}
	if err := bus.Settle(ctx); err != nil {
		return err
	}
	first := reached
	c := &Counter{}
	listener, err := n.RegisterFunc(c.OnIncrement)
	if err != nil {
		return err
	}
	defer listener.Close()
	target, err := hark.FuncName((*Counter).OnIncrement) // checked by the compiler
	if err != nil {
		return err
	}
	reached, err = n.Notify(ctx, target)
	if err != nil {
		return err
	}
	fmt.Println("reached", first, "and", reached)
	door, err := n.Listen("door.opened")
	if err != nil {
		return err
	}
	defer door.Close()
	for range 2 {
		if _, err := n.Notify(ctx, "door.*"); err != nil {
			return err
		}
	}
	select {
	case s := <-door.C():
		fmt.Println("opened", s.Count, "times since the last look")
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	if err := n.Latch(ctx, "db.ready"); err != nil {
		return err
	}
	err = n.Wait(ctx, "db.ready") // at once, now and later, until Unlatch
	return errors.Join(err, bus.Close(ctx))
}
