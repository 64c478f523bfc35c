package hark

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// delayed holds the messages of a topic that are not due yet.
type delayed struct {
	mu      sync.Mutex // guards the fields below
	items   dueHeap
	serial  uint64
	timer   *time.Timer
	stopped bool
	// releasing is closed when the goroutine that releases what is due has
	// finished; nil if there is none.
	releasing chan struct{}
}

type dueItem struct {
	due     time.Time
	serial  uint64 // keeps messages with the same due time in order
	release func()
}

// add schedules a call of release at due. Releases are called in the order of
// their due times.
func (d *delayed) add(due time.Time, release func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return ErrClosed
	}
	d.serial++
	heap.Push(&d.items, dueItem{due, d.serial, release})
	if d.items[0].serial == d.serial {
		d.setLocked()
	}
	return nil
}

func (d *delayed) setLocked() {
	wait := time.Until(d.items[0].due)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.fire)
	} else {
		d.timer.Reset(wait)
	}
}

// fire releases what is due, unless another goroutine already does. Only one at
// a time does so, to keep the order.
func (d *delayed) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.releasing != nil {
		return
	}
	over := make(chan struct{})
	d.releasing = over
	defer func() {
		d.releasing = nil
		close(over)
		if len(d.items) > 0 && !d.stopped {
			d.setLocked()
		}
	}()
	for len(d.items) > 0 && !d.stopped && !d.items[0].due.After(time.Now()) {
		d.releaseLocked(heap.Pop(&d.items).(dueItem))
	}
}

// releaseLocked releases an item with mu unlocked: over an engine, the release
// publishes the message, which takes time and calls hooks.
func (d *delayed) releaseLocked(item dueItem) {
	d.mu.Unlock()
	defer d.mu.Lock()
	item.release()
}

func (d *delayed) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.items)
}

// stop drops the messages that are not due and returns their number. It waits
// for a release in progress until ctx ends.
func (d *delayed) stop(ctx context.Context) int {
	d.mu.Lock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
	n, releasing := len(d.items), d.releasing
	d.mu.Unlock()
	if releasing != nil {
		select {
		case <-releasing:
		case <-ctx.Done():
			n++
		}
	}
	return n
}

type dueHeap []dueItem

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].serial < h[j].serial
	}
	return h[i].due.Before(h[j].due)
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(dueItem)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := len(old) - 1
	item := old[last]
	old[last] = dueItem{}
	*h = old[:last]
	return item
}
