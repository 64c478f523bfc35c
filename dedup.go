package hark

import (
	"sync"
	"time"
)

// dedup remembers IDs for a while.
type dedup struct {
	window time.Duration

	mu    sync.Mutex // guards what follows
	seen  map[string]time.Time
	order fifo[string] // in the order of their times, forgotten ones included
}

// newDedup returns a memory of IDs over the window d, or over the default of
// stored topics if d is negative.
func newDedup(d time.Duration) *dedup {
	if d < 0 {
		d = storedDedupWindow
	}
	return &dedup{window: d, seen: map[string]time.Time{}}
}

// span returns the window, 0 without a memory.
func (d *dedup) span() time.Duration {
	if d == nil {
		return 0
	}
	return d.window
}

// claim remembers id and reports whether it is new.
func (d *dedup) claim(id string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.order.len() > 0 {
		oldest := d.order.items[d.order.head]
		at, ok := d.seen[oldest]
		if ok && now.Sub(at) < d.window {
			break
		}
		d.order.pop()
		delete(d.seen, oldest)
	}
	if at, ok := d.seen[id]; ok && now.Sub(at) < d.window {
		return false
	}
	d.seen[id] = now
	d.order.push(id)
	return true
}

// forget makes id new again, because its message was not published after all.
func (d *dedup) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.seen, id)
}
