package hark

import "context"

// chanWaiter is a goroutine that waits to send or to receive.
type chanWaiter[T any] struct {
	sleeper         // roused when it is served; from then until the reset it belongs to its goroutine
	value      T    // to be sent, or received
	closed     bool // the channel was closed first
	queue      *waiterQueue[T]
	hand       *Taken[T] // of a sender whose value was taken but not yet received
	next, prev *chanWaiter[T]
}

// waiterQueue holds the waiting goroutines in order of arrival.
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

// pop removes and returns the longest waiting goroutine, or nil if there is
// none.
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

// await waits until w has been served. It returns false if ctx ended first; w
// has then been removed.
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
	served := q == nil && hand == nil
	if !served {
		w.release()
		c.spares.push(w)
	}
	c.unlock()
	if served {
		w.wait()
	}
	return served
}

// waiterLocked returns a waiter in its zero state.
func (c *Chan[T]) waiterLocked() *chanWaiter[T] {
	if w, ok := c.spares.pop(); ok {
		return w
	}
	return &chanWaiter[T]{sleeper: newSleeper()}
}

// serveLocked records that w, if it is not nil, has been served. If it returns
// a waiter, the caller must call that waiter's call after releasing the lock.
func (c *Chan[T]) serveLocked(w *chanWaiter[T]) *chanWaiter[T] {
	if w == nil {
		return nil
	}
	asleep := w.rouse()
	c.spares.push(w)
	if !asleep {
		return nil
	}
	return w
}

// call is the second half of serveLocked.
func (w *chanWaiter[T]) call() {
	if w != nil {
		w.sleeper.call()
	}
}

// release is called by w's goroutine when it no longer needs w.
func (w *chanWaiter[T]) release() {
	var zero T
	w.value, w.closed = zero, false
	w.reset()
}
