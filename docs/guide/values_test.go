package guide_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/harkbus/hark"
)

type Limits struct{ PerSecond int }

func Example_values() {
	report(values(context.Background()))
	// Output:
	// 100 -> 200
	// 1 true 11
}

func values(ctx context.Context) error {
	bus := hark.New()
	limits, err := hark.NewValue(bus, "limits", Limits{PerSecond: 100})
	if err != nil {
		return err
	}
	stop, err := limits.Observe(func(old, new Limits) {
		fmt.Println(old.PerSecond, "->", new.PerSecond)
	})
	if err != nil {
		return err
	}
	defer stop()
	err = limits.Set(ctx, Limits{PerSecond: 200})
	if err != nil {
		return err
	}
	hits, err := hark.NewValue(bus, "hits", 0)
	if err != nil {
		return err
	}
	count, err := hits.Update(ctx, func(n int) int { return n + 1 })
	if err != nil {
		return err
	}
	now, version := hits.Load()
	swapped, err := hits.CompareAndSet(ctx, version, now+10) // unless somebody was faster
	if err != nil {
		return err
	}
	ready, err := hits.WaitUntil(ctx, func(n int) bool { return n >= 11 })
	fmt.Println(count, swapped, ready)
	return errors.Join(err, bus.Close(ctx))
}
