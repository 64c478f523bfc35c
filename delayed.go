package hark

import (
	"container/heap"
	"sync"
	"time"
)

// delayed holds the messages of a topic that are not due.
type delayed struct {
	mu      sync.Mutex // guards what follows
	items   dueHeap
	serial  uint64
	timer   *time.Timer
	stopped bool
}

type dueItem struct {
	due     time.Time
	serial  uint64 // keeps messages that are due at once in order
	release func()
}

// add calls release when due, in the order of due times.
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

// fire releases what is due. Calls of release are made one at a time, with mu
// held, so that two firings keep the order; they take no lock that a caller of
// add may hold.
func (d *delayed) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for now := time.Now(); len(d.items) > 0 && !d.stopped; {
		if d.items[0].due.After(now) {
			d.setLocked()
			return
		}
		heap.Pop(&d.items).(dueItem).release()
	}
}

func (d *delayed) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.items)
}

// stop gives up what is not due and returns how many that were.
func (d *delayed) stop() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
	return len(d.items)
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
