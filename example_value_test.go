package hark_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/harkbus/hark"
)

func ExampleValue() {
	type Config struct{ LogLevel string }

	ctx := context.Background()
	bus := hark.New()
	defer bus.Close(ctx)

	config, err := hark.NewValue(bus, "config", Config{LogLevel: "info"})
	if err != nil {
		fmt.Println(err)
		return
	}
	stop, err := config.Observe(func(old, new Config) {
		fmt.Println("log level:", old.LogLevel, "->", new.LogLevel)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	if err := config.Set(ctx, Config{LogLevel: "debug"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println("now:", config.Get().LogLevel)
	// Output:
	// log level: info -> debug
	// now: debug
}

func ExampleValue_Update() {
	ctx := context.Background()
	counter, err := hark.NewValue(nil, "", 0) // private: without a bus
	if err != nil {
		fmt.Println(err)
		return
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := counter.Update(ctx, func(n int) int { return n + 1 }); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	fmt.Println(counter.Get())
	// Output: 100
}

func ExampleValue_CompareAndSet() {
	ctx := context.Background()
	leader, err := hark.NewValue(nil, "", "nobody")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, version := leader.Load() // both candidates have read this version
	for _, candidate := range []string{"ann", "bob"} {
		won, err := leader.CompareAndSet(ctx, version, candidate)
		fmt.Println(candidate, won, err)
	}
	fmt.Println(leader.Get())
	// Output:
	// ann true <nil>
	// bob false <nil>
	// ann
}

func ExampleValue_Watch() {
	ctx := context.Background()
	progress, err := hark.NewValue(nil, "", 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		for range 10 {
			if _, err := progress.Update(ctx, func(n int) int { return n + 10 }); err != nil {
				fmt.Println(err)
			}
		}
	}()
	for percent := range progress.Watch(ctx) {
		if percent == 100 { // a slow loop skips states, but never the last
			break
		}
	}
	fmt.Println("done")
	// Output: done
}

func ExampleValue_WaitUntil() {
	ctx := context.Background()
	state, err := hark.NewValue(nil, "", "starting")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		if err := state.Set(ctx, "ready"); err != nil {
			fmt.Println(err)
		}
	}()
	got, err := state.WaitUntil(ctx, func(s string) bool { return s != "starting" })
	fmt.Println(got, err)
	// Output: ready <nil>
}

func ExampleValue_Observe_buffered() {
	ctx := context.Background()
	bus := hark.New()
	price, err := hark.NewValue(bus, "price", 100)
	if err != nil {
		fmt.Println(err)
		return
	}
	last := 0
	// A slow observer holds up nobody and ends with the last price.
	if _, err := price.Observe(func(_, now int) { last = now }, hark.Overflow(hark.Latest)); err != nil {
		fmt.Println(err)
		return
	}
	for range 1000 {
		if _, err := price.Update(ctx, func(p int) int { return p + 1 }); err != nil {
			fmt.Println(err)
		}
	}
	if err := bus.Close(ctx); err != nil { // waits for it
		fmt.Println(err)
	}
	fmt.Println(last)
	// Output: 1100
}
