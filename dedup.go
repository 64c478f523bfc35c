package hark

import (
	"context"
	"sync"
	"time"
)

// dedup remembers IDs for some time.
type dedup struct {
	window time.Duration

	mu    sync.Mutex // guards the fields below
	seen  map[string]dedupEntry
	order fifo[string] // by time, including forgotten ones
}

// dedupEntry is an ID that has been published or is about to be.
type dedupEntry struct {
	at      time.Time
	pending chan struct{} // closed when the outcome is known; nil after that
}

// newDedup returns a memory of IDs for the window d, or for the default window
// of stored topics if d is negative.
func newDedup(d time.Duration) *dedup {
	if d < 0 {
		d = storedDedupWindow
	}
	return &dedup{window: d, seen: map[string]dedupEntry{}}
}

// span returns the window, or 0 if IDs are not remembered.
func (d *dedup) span() time.Duration {
	if d == nil {
		return 0
	}
	return d.window
}

// claim reports whether id is new. If so, the caller must publish its message
// and then call keep or forget. Until then, other claims of id wait, at most
// until their ctx ends.
func (d *dedup) claim(ctx context.Context, id string) (fresh bool, err error) {
	for {
		fresh, pending := d.tryClaim(id, time.Now())
		if pending == nil {
			return fresh, nil
		}
		select {
		case <-pending:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

func (d *dedup) tryClaim(id string, now time.Time) (fresh bool, pending <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.order.len() > 0 {
		oldest := d.order.items[d.order.head]
		s, ok := d.seen[oldest]
		if ok && (s.pending != nil || now.Sub(s.at) < d.window) {
			break
		}
		d.order.pop()
		delete(d.seen, oldest)
	}
	if s, ok := d.seen[id]; ok && (s.pending != nil || now.Sub(s.at) < d.window) {
		return false, s.pending
	}
	d.seen[id] = dedupEntry{at: now, pending: make(chan struct{})}
	d.order.push(id)
	return true, nil
}

// keep records that the message with a claimed id has been published.
func (d *dedup) keep(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.seen[id]
	close(s.pending)
	s.pending = nil
	d.seen[id] = s
}

// forget makes a claimed id new again, because its message was not published.
func (d *dedup) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.seen[id].pending)
	delete(d.seen, id)
}
