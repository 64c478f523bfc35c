package hark

// chanWaiter is a goroutine that waits to send or to receive.
type chanWaiter[T any] struct {
	value      T             // to be sent, or received
	woken      chan struct{} // gets one token when it has been served
	closed     bool          // the channel was closed first
	queue      *waiterQueue[T]
	next, prev *chanWaiter[T]
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
		w.woken <- struct{}{}
	}
}
