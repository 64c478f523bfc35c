package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		if n, err := b.take(t.Context(), 1000); n != 100 || err != nil {
			t.Fatalf("got %d, %v, want all there is", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var order []string
		var mu sync.Mutex
		took := func(name string, ctx context.Context, n int64) {
			if _, err := b.take(ctx, n); err != nil {
				name += " " + err.Error()
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
		}
		go took("large", ctx, 80)
		synctest.Wait()
		go took("small", t.Context(), 10)
		synctest.Wait()
		b.give(30)
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v overtook one that waits", order)
		}
		cancel()
		synctest.Wait()
		if len(order) != 2 || order[0] != "large context canceled" && order[1] != "large context canceled" {
			t.Fatalf("got %q, want the large one gone and the small one served", order)
		}
	})
}

func TestBudgetIsKept(t *testing.T) {
	b := newBudget(1000)
	var used atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				if rand.IntN(4) == 0 {
					cancel()
				}
				n, err := b.take(ctx, rand.Int64N(700))
				if err == nil {
					if u := used.Add(n); u > 1000 {
						t.Errorf("%d of 1000 are used", u)
					}
					used.Add(-n)
					b.give(n)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if b.used != 0 || len(b.waiting) != 0 {
		t.Errorf("%d are used and %d wait, when all is given back", b.used, len(b.waiting))
	}
}
