package hark

import (
	"context"
	"sync/atomic"
)

// chanWaiter is a goroutine that waits to send or to receive.
type chanWaiter[T any] struct {
	sleeper         // woken when it is served; until it is released nobody else touches it then
	value      T    // to be sent, or received
	closed     bool // the channel was closed first
	queue      *waiterQueue[T]
	hand       *Taken[T] // of a sender whose value was taken, and is not received yet
	next, prev *chanWaiter[T]
	spares     atomic.Int32 // how many there are from this one on in a list of spare ones
}

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

func (q *waiterQueue[T]) pushFront(w *chanWaiter[T]) {
	w.queue, w.prev, w.next = q, nil, q.first
	if q.first == nil {
		q.last = w
	} else {
		q.first.prev = w
	}
	q.first = w
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
	if w != nil {
		w.sleeper.wake()
	}
}

// await waits until w has been served, and reports false if ctx ended first:
// then w has been taken out.
func (c *Chan[T]) await(ctx context.Context, w *chanWaiter[T]) bool {
	if w.sleep(ctx) {
		return true
	}
	c.lock()
	c.settleLocked() // a value may have changed hands at In or Out
	q, hand := w.queue, w.hand
	if q != nil {
		q.remove(w)
		c.attendLocked()
		c.noticeLocked()
	} else if hand != nil {
		c.letGoLocked(hand)
	}
	c.unlock()
	if q == nil && hand == nil {
		w.wait() // it was served
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
			return &chanWaiter[T]{sleeper: newSleeper()}
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
	w.reset()
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
