package hark_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValue(t, nil, 1)
		ctx, cancel := context.WithCancel(t.Context())
		states := make(chan int)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := range v.Watch(ctx) {
				states <- n
			}
		}()
		if got := <-states; got != 1 {
			t.Errorf("the first state is %d, want 1", got)
		}
		set(t, v, 2)
		if got := <-states; got != 2 {
			t.Errorf("got %d, want 2", got)
		}
		set(t, v, 3)
		synctest.Wait() // the loop holds 3 and waits for the test
		for i := range 5 {
			set(t, v, 4+i)
		}
		if got := []int{<-states, <-states}; !slices.Equal(got, []int{3, 8}) {
			t.Errorf("a slow loop got %v, want 3 and the last, 8", got)
		}
		synctest.Wait()
		select {
		case n := <-states:
			t.Errorf("got %d without a change", n)
		default:
		}
		if got := v.Stats().Watchers; got != 1 {
			t.Errorf("%d watchers, want 1", got)
		}
		cancel()
		<-done
		if got := v.Stats().Watchers; got != 0 {
			t.Errorf("%d watchers after the end, want 0", got)
		}
		for range v.Watch(ctx) {
			t.Error("a loop began with a context that had ended")
		}
	})
}

func TestWatchBreakAndReuse(t *testing.T) {
	v := newValue(t, nil, 1)
	seq := v.Watch(t.Context())
	for want := 1; want < 4; want++ {
		for n := range seq {
			if n != want {
				t.Errorf("got %d, want %d", n, want)
			}
			break
		}
		set(t, v, want+1)
	}
	for n := range seq { // sets the value inside the loop
		if n == 10 {
			break
		}
		set(t, v, n+1)
	}
	if got := v.Get(); got != 10 {
		t.Errorf("the value is %d, want 10", got)
	}
}

func TestWaitUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValue(t, nil, 5)
		if got, err := v.WaitUntil(t.Context(), func(n int) bool { return n == 5 }); got != 5 || err != nil {
			t.Errorf("WaitUntil of the present = %d, %v", got, err)
		}
		type result struct {
			n   int
			err error
		}
		results := make(chan result, 1)
		looks := 0
		go func() {
			n, err := v.WaitUntil(t.Context(), func(n int) bool { looks++; return n > 7 })
			results <- result{n, err}
		}()
		for i := range 4 {
			synctest.Wait()
			set(t, v, 5+i)
		}
		if got := <-results; got.n != 8 || got.err != nil {
			t.Errorf("WaitUntil = %d, %v; want 8", got.n, got.err)
		}
		if looks != 5 {
			t.Errorf("the predicate was called %d times, want 5", looks)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if n, err := v.WaitUntil(ctx, func(int) bool { return false }); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitUntil = %d, %v; want 0 and the deadline", n, err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("it took %v, want 1s", d)
		}
	})
}

// TestWatchersUnderFire has watchers come, go and wait while the value changes.
// Each watcher that stays must see the last state.
func TestWatchersUnderFire(t *testing.T) {
	leak.Check(t)
	bus := hark.New()
	v := newValue(t, bus, 0)
	const last = 2000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // in order, up to the last
			seen := -1
			for n := range v.Watch(t.Context()) {
				if n <= seen {
					t.Errorf("%d after %d", n, seen)
				}
				if seen = n; n == last {
					return
				}
			}
		})
		wg.Go(func() { // may be cancelled at any moment
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				_, err := v.WaitUntil(ctx, func(n int) bool { return false })
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := 0; i <= last; i += 100 {
				if n, err := v.WaitUntil(t.Context(), func(n int) bool { return n >= i }); err != nil || n < i {
					t.Errorf("WaitUntil %d = %d, %v", i, n, err)
				}
			}
		})
	}
	for i := range last {
		set(t, v, i+1)
	}
	wg.Wait()
	if got := v.Stats().Watchers; got != 0 {
		t.Errorf("%d watchers are left", got)
	}
	closeBus(t, bus)
}
