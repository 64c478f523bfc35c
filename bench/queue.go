package main

import "sync"

// bounded and unbounded are the queues that good programmers write in an
// afternoon: a slice under a mutex that the reader swaps for an empty one.
var (
	bounded   = pipes("mutex + slice swap, 1024", func() pipe { return newQueue(1024).pipe() })
	unbounded = pipes("mutex + slice swap, unbounded", func() pipe { return newQueue(0).pipe() })
)

// queue wakes others only if they wait, and outside its lock.
type queue struct {
	mu       sync.Mutex // guards the fields below
	notEmpty sync.Cond
	notFull  sync.Cond
	items    []message
	limit    int // 0 for no limit
	readers  int // number that wait
	writers  int // number that wait
	closed   bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	return q
}

func (q *queue) pipe() pipe { return pipe{q.put, q.drain, q.close} }

func (q *queue) put(m message) {
	q.mu.Lock()
	for q.limit > 0 && len(q.items) >= q.limit {
		q.writers++
		q.notFull.Wait()
		q.writers--
	}
	q.items = append(q.items, m)
	wake := q.readers > 0 && len(q.items) == 1
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
}

// swap returns the queued messages and leaves spare in their place. It returns
// nothing once the queue is closed and empty.
func (q *queue) swap(spare []message) []message {
	q.mu.Lock()
	for len(q.items) == 0 && !q.closed {
		q.readers++
		q.notEmpty.Wait()
		q.readers--
	}
	items := q.items
	q.items = spare[:0]
	wake := q.writers > 0
	q.mu.Unlock()
	if wake {
		q.notFull.Broadcast()
	}
	return items
}

func (q *queue) drain(take func(message)) {
	var spare []message
	for {
		items := q.swap(spare)
		if len(items) == 0 {
			return
		}
		for _, m := range items {
			take(m)
		}
		spare = items
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.notEmpty.Broadcast()
}
