package main

import "sync"

// bounded and unbounded are the queues that good programmers write in an
// afternoon: a slice under a mutex that the reader swaps for an empty one.
var (
	bounded   = queues("mutex + slice swap, 1024", 1024)
	unbounded = queues("mutex + slice swap, unbounded", 0)
)

type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	items   []message
	limit   int // 0 for none
	closed  bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.changed.L = &q.mu
	return q
}

func (q *queue) put(m message) {
	q.mu.Lock()
	for q.limit > 0 && len(q.items) >= q.limit {
		q.changed.Wait()
	}
	q.items = append(q.items, m)
	first := len(q.items) == 1
	q.mu.Unlock()
	if first {
		q.changed.Broadcast()
	}
}

// swap returns what is there, leaving spare behind; nil once closed and empty.
func (q *queue) swap(spare []message) []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.changed.Wait()
	}
	items := q.items
	q.items = spare[:0]
	if q.limit > 0 && len(items) >= q.limit {
		q.changed.Broadcast()
	}
	return items
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.changed.Broadcast()
}

func queues(name string, limit int) peer {
	return peer{
		name: name,
		stream: func(publishers int, subscribers []func(message)) session {
			qs := make([]*queue, len(subscribers))
			var wg sync.WaitGroup
			for i, take := range subscribers {
				qs[i] = newQueue(limit)
				wg.Go(func() {
					var spare []message
					for {
						items := qs[i].swap(spare)
						if len(items) == 0 {
							return
						}
						for _, m := range items {
							take(m)
						}
						spare = items
					}
				})
			}
			return session{
				publish: perMessage(publishers, func(m message) {
					for _, q := range qs {
						q.put(m)
					}
				}),
				close: func() {
					for _, q := range qs {
						q.close()
					}
					wg.Wait()
				},
			}
		},
	}
}
