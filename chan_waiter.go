package hark

import (
	"context"
	"runtime"
	"sync/atomic"
)

// chanWaiter is a goroutine that waits to send or to receive.
type chanWaiter[T any] struct {
	value      T             // to be sent, or received
	state      atomic.Uint32 // waiterAwake or one of the following
	woken      chan struct{} // gets a token when it is served while asleep
	closed     bool          // the channel was closed first
	queue      *waiterQueue[T]
	next, prev *chanWaiter[T]
	spares     atomic.Int32 // how many there are from this one on in a list of spare ones
}

// The states of a waiter. Between served and released nobody but its goroutine
// touches it.
const (
	waiterAwake  = iota // it looks at its state from time to time
	waiterAsleep        // it needs a token
	waiterServed
)

// waiterQueue holds the goroutines that wait, in the order in which they came.
type waiterQueue[T any] struct {
	first, last *chanWaiter[T]
	len         int
}

func (q *waiterQueue[T]) push(w *chanWaiter[T]) {
	w.queue, w.prev, w.next = q, q.last, nil
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.len++
}

// pop takes out the one that has been waiting longest, nil if there is none.
func (q *waiterQueue[T]) pop() *chanWaiter[T] {
	w := q.first
	if w != nil {
		q.remove(w)
	}
	return w
}

func (q *waiterQueue[T]) remove(w *chanWaiter[T]) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queue, w.prev, w.next = nil, nil, nil
	q.len--
}

// wake tells w, if there is one, that it has been served. It does not block.
func (w *chanWaiter[T]) wake() {
	if w != nil && w.state.Swap(waiterServed) == waiterAsleep {
		w.woken <- struct{}{}
	}
}

// yields is how often a goroutine lets others run before it sleeps. Where the
// other side is at work that is mostly enough, and cheaper than to sleep, above
// all where a context has to be watched as well (BenchmarkChan).
const yields = 2

// await waits until w has been served, and reports false if ctx ended first:
// then w has been taken out.
func (c *Chan[T]) await(ctx context.Context, w *chanWaiter[T]) bool {
	for range yields {
		if w.state.Load() == waiterServed {
			return true
		}
		runtime.Gosched()
	}
	if !w.state.CompareAndSwap(waiterAwake, waiterAsleep) {
		return true
	}
	end := ctx.Done()
	if end == nil {
		<-w.woken
		return true
	}
	select {
	case <-w.woken:
		return true
	case <-end:
	}
	c.lock()
	c.settleLocked() // a value may have changed hands at In or Out
	q := w.queue
	if q != nil {
		q.remove(w)
		c.attendLocked()
		c.noticeLocked()
	}
	c.unlock()
	if q == nil {
		<-w.woken // it was served
		return true
	}
	c.release(w)
	return false
}

// sparesKept is how many waiters a channel keeps for use again.
const sparesKept = 64

// waiterLocked returns a waiter in its zero state. Only one goroutine at a time
// takes spares out, which keeps the list simple.
func (c *Chan[T]) waiterLocked() *chanWaiter[T] {
	for {
		w := c.spare.Load()
		if w == nil {
			return &chanWaiter[T]{woken: make(chan struct{}, 1)}
		}
		if c.spare.CompareAndSwap(w, w.next) {
			w.next = nil
			return w
		}
	}
}

// release gives back what waiterLocked returned, once nobody will wake it.
func (c *Chan[T]) release(w *chanWaiter[T]) {
	var zero T
	w.value, w.closed = zero, false
	w.state.Store(waiterAwake)
	for {
		top, n := c.spare.Load(), int32(1)
		if top != nil {
			n += top.spares.Load()
		}
		if w.spares.Load() != n {
			w.spares.Store(n)
		}
		w.next = top
		if n > sparesKept || c.spare.CompareAndSwap(top, w) {
			return
		}
	}
}
