package broker

import (
	"context"
	"slices"
	"sync"
)

// budget limits how much memory many requests take together. A request that asks
// for more than is free waits. Waiting requests are served in order, so that small
// ones cannot overtake large ones for ever.
type budget struct {
	most int64

	mu      sync.Mutex // guards the fields below
	used    int64
	waiting []*budgetWaiter
}

type budgetWaiter struct {
	n     int64
	ready chan struct{}
}

func newBudget(most int64) *budget { return &budget{most: most} }

// take takes n bytes, or the whole budget if that is less, once they are free. It
// returns how much it has taken, which the caller must give back, or the cause when
// ctx ends.
func (b *budget) take(ctx context.Context, n int64) (int64, error) {
	n = min(max(n, 0), b.most)
	b.mu.Lock()
	if len(b.waiting) == 0 && b.used+n <= b.most {
		b.used += n
		b.mu.Unlock()
		return n, nil
	}
	w := &budgetWaiter{n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return n, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		b.serveLocked() // it may have held up a smaller request
		return 0, context.Cause(ctx)
	}
	return n, nil // it was served at the same moment
}

// give returns bytes to the budget.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.serveLocked()
}

func (b *budget) serveLocked() {
	for len(b.waiting) > 0 && b.used+b.waiting[0].n <= b.most {
		b.used += b.waiting[0].n
		close(b.waiting[0].ready)
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}
