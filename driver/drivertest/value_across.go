package drivertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
)

var valueAcrossClauses = []AcrossClause{
	{"VAL-14", "a value is one for all processes", testVAL14},
	{"VAL-15", "updates of several processes are never lost", testVAL15},
	{"VAL-16", "of changes from one version one is made", testVAL16},
	{"VAL-17", "observers and watches follow changes of other processes", testVAL17},
}

func testVAL14(ctx context.Context, t *testing.T, connect Connector) {
	busA := connect()
	a, b := openValue(t, busA, "config", "first"), openValue(t, connect(), "config", "second")
	if got := b.Get(); got != "first" {
		t.Errorf("the second process finds %q, want the initial value of the first", got)
	}
	mustSet(ctx, t, b, "changed")
	if got, err := a.WaitUntil(ctx, func(s string) bool { return s != "first" }); got != "changed" || err != nil {
		t.Errorf("the first process gets %q, %v, want what the second has set", got, err)
	}
	if a.Version() != b.Version() {
		t.Errorf("the same state has version %d in one process and %d in the other", a.Version(), b.Version())
	}
	mustSet(ctx, t, a, "last")
	if err := busA.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := openValue(t, connect(), "config", "third").Get(); got != "last" {
		t.Errorf("who comes later finds %q, want the last state", got)
	}
}

func testVAL15(ctx context.Context, t *testing.T, connect Connector) {
	const processes, goroutines, each = 8, 2, 10
	var wg sync.WaitGroup
	for range processes {
		v := openValue(t, connect(), "counter", 0)
		for range goroutines {
			wg.Go(func() {
				for range each {
					if _, err := v.Update(ctx, func(n int) int { return n + 1 }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := openValue(t, connect(), "counter", 0).Get(); got != processes*goroutines*each {
		t.Errorf("after %d updates the value is %d", processes*goroutines*each, got)
	}
}

func testVAL16(ctx context.Context, t *testing.T, connect Connector) {
	const processes, rounds = 4, 10
	values := make([]*hark.Value[int], processes)
	for i := range values {
		values[i] = openValue(t, connect(), "lease", -1)
	}
	for round := range rounds {
		from := values[0].Version()
		var won atomic.Int64
		var wg sync.WaitGroup
		for i, v := range values {
			wg.Go(func() {
				ok, err := v.CompareAndSet(ctx, from, round*processes+i)
				if err != nil {
					t.Error(err)
				}
				if ok {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("of %d changes from version %d %d were made, want 1", processes, from, won.Load())
		}
		for _, v := range values {
			if _, err := v.WaitUntil(ctx, func(n int) bool { return n >= round*processes }); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testVAL17(ctx context.Context, t *testing.T, connect Connector) {
	const last = 100
	changing := openValue(t, connect(), "step", 0)
	var following sync.WaitGroup
	for range 3 {
		v := openValue(t, connect(), "step", 0)
		var told atomic.Int64
		if _, err := v.Observe(func(old, now int) {
			if before := told.Swap(int64(now)); before != int64(old) || now <= old {
				t.Errorf("an observer was told of %d to %d after %d", old, now, before)
			}
		}); err != nil {
			t.Fatal(err)
		}
		following.Go(func() {
			seen := -1
			for n := range v.Watch(ctx) {
				if n <= seen {
					t.Errorf("a watch got %d after %d", n, seen)
				}
				if seen = n; n == last {
					break
				}
			}
			until(ctx, t, "an observer is told of the last state", func() bool { return told.Load() == last })
		})
	}
	for n := range last {
		mustSet(ctx, t, changing, n+1)
	}
	following.Wait()
}
