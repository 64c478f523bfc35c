package hark

import (
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// pending holds the messages of a consumer that have left the log and that no
// worker has: they wait for another attempt, or for a message with the same key to
// be done. The consumer's mu guards it. Most consumers never need one; nil is
// empty.
type pending[T any] struct {
	runnable fifo[*held[T]]
	retries  retryHeap[T]            // by due time
	keys     map[string]*keyQueue[T] // the keys of messages that are not done
	n        int                     // number of messages here
	retrying int                     // those of them that wait for an attempt or are about to have it
	timer    *time.Timer
	wakeAt   time.Time // when the timer fires; zero if it is not set
}

// held is a message outside the log.
type held[T any] struct {
	Message[T]
	key     string
	keyed   bool
	fault   error     // making its key failed with this error
	claimed bool      // no other message with its key is handled before it is done
	first   time.Time // time of the first failed attempt; zero before that
	due     time.Time // time of the next attempt
}

// keyQueue holds the messages that wait behind one with the same key.
type keyQueue[T any] struct{ waiting fifo[*held[T]] }

// hold returns a message with its key. The key is made by the program, so no
// lock may be held.
func hold[T any](m *Message[T]) (h *held[T]) {
	h = &held[T]{Message: *m}
	made := false
	defer func() {
		if !made {
			h.fault = fmt.Errorf("KeyBy: %w", caught(recover()))
		}
	}()
	h.key = m.Key()
	h.keyed, made = h.key != "", true
	return h
}

func holdAll[T any](ms []Message[T]) []*held[T] {
	line := make([]*held[T], len(ms))
	for i := range ms {
		line[i] = hold(&ms[i])
	}
	return line
}

// pendingLocked returns the consumer's pending messages, for one to be added.
func (c *consumer[T]) pendingLocked() *pending[T] {
	if c.pending == nil {
		c.pending = &pending[T]{}
	}
	return c.pending
}

// len returns the number of messages here.
func (p *pending[T]) len() int {
	if p == nil {
		return 0
	}
	return p.n
}

// attempts returns how many of the messages wait for another attempt, or are
// about to have it.
func (p *pending[T]) attempts() int {
	if p == nil {
		return 0
	}
	return p.retrying
}

// any reports whether there is a message that may be handled now.
func (p *pending[T]) any() bool { return p != nil && p.runnable.len() > 0 }

// empty reports whether there is no message here and no key is claimed.
func (p *pending[T]) empty() bool { return p == nil || p.n == 0 && len(p.keys) == 0 }

// enter adds a message behind those that are here.
func (p *pending[T]) enter(h *held[T]) {
	p.runnable.push(h)
	p.n++
}

// pop returns the next message to handle, or nil. If the message has a key, pop
// claims the key for it. A lone worker takes its messages in order anyway, so
// it claims a key only when a message fails.
func (p *pending[T]) pop(lone bool) *held[T] {
	if p == nil {
		return nil
	}
	if len(p.retries) > 0 {
		now := time.Now()
		for len(p.retries) > 0 && !p.retries[0].due.After(now) {
			p.runnable.push(heap.Pop(&p.retries).(*held[T]))
		}
	}
	for p.runnable.len() > 0 {
		h := p.runnable.pop()
		if h.keyed && !h.claimed {
			if line := p.keys[h.key]; line != nil {
				line.waiting.push(h)
				continue
			}
			if !lone {
				p.claim(h)
			}
		}
		p.n--
		if h.attempt > 0 {
			p.retrying--
		}
		return h
	}
	return nil
}

// claim makes later messages with h's key wait until h is released.
func (p *pending[T]) claim(h *held[T]) {
	h.claimed = true
	if p.keys == nil {
		p.keys = map[string]*keyQueue[T]{}
	}
	if p.keys[h.key] == nil {
		p.keys[h.key] = &keyQueue[T]{}
	}
}

// release ends a message's claim on its key. The next message with the key has
// its turn.
func (p *pending[T]) release(h *held[T]) {
	if !h.claimed || p == nil { // nil if the consumer has ended meanwhile
		return
	}
	line := p.keys[h.key]
	if line == nil { // it has ended, and got messages back since
		return
	}
	if line.waiting.len() == 0 {
		delete(p.keys, h.key)
		return
	}
	next := line.waiting.pop()
	next.claimed = true
	if next.due.IsZero() {
		p.runnable.push(next)
	} else {
		heap.Push(&p.retries, next)
	}
}

// retryLater keeps m for another attempt at due. Messages with the same key that
// the worker holds behind it wait too.
func (w *worker[T]) retryLater(m *Message[T], failed, due time.Time) {
	c := w.member.consumer
	h := w.held
	if h == nil {
		h = hold(m)
	}
	w.held = nil // it keeps its claim on the key
	h.attempt++
	if h.first.IsZero() {
		h.first = failed
	}
	h.due = due
	var behind []*held[T]
	if h.keyed {
		behind = holdAll(w.buf[w.at:w.n])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() {
		c.lost(DropClosed, 1)
		return
	}
	p := c.pendingLocked()
	p.n++
	p.retrying++
	switch line := p.keys[h.key]; {
	case h.keyed && !h.claimed && line != nil:
		line.waiting.push(h) // another item of its batch also failed
	case h.keyed && !h.claimed:
		p.claim(h)
		fallthrough
	default:
		heap.Push(&p.retries, h)
	}
	if h.keyed {
		for _, h := range behind {
			p.enter(h)
		}
		w.n = w.at
	}
	c.busy.Store(true)
	c.setTimerLocked()
}

// holds reports whether the worker holds messages that it has not begun.
func (w *worker[T]) holds() bool {
	return w.hand != nil && (w.at < w.n || w.batch != nil && len(w.batch.items) > 0)
}

// handBack returns the messages that the worker holds and has not begun to the
// consumer, to be taken first.
func (w *worker[T]) handBack() {
	c := w.member.consumer
	rest := []*held[T]{w.held}
	if w.held == nil {
		rest = holdAll(w.buf[w.at:w.n])
	}
	w.held = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pendingLocked()
	for _, h := range slices.Backward(rest) {
		p.putBack(h)
	}
	w.at, w.n = 0, 0
	if w.batch != nil {
		for _, h := range slices.Backward(w.batch.items) {
			p.putBack(h)
		}
		w.batch.items = nil
		if w.batch.timer != nil {
			w.batch.timer.Stop()
		}
	}
	if c.over.Load() {
		c.lost(DropClosed, uint64(p.n))
		c.pending = nil
	}
	c.busy.Store(!c.pending.empty())
	c.wake()
}

// putBack takes back a message that pop returned, or one that was read and not
// handled.
func (p *pending[T]) putBack(h *held[T]) {
	p.runnable.pushFront(h)
	p.n++
	if h.attempt > 0 {
		p.retrying++
	}
}

// release gives the next message with h's key its turn.
func (c *consumer[T]) release(h *held[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending.release(h)
	c.busy.Store(!c.pending.empty())
	c.setTimerLocked()
}

// setTimerLocked makes sure that a worker wakes when the next attempt is due.
func (c *consumer[T]) setTimerLocked() {
	p := c.pending
	if p == nil || len(p.retries) == 0 || c.over.Load() {
		return
	}
	due := p.retries[0].due
	if !p.wakeAt.IsZero() && !due.Before(p.wakeAt) {
		return
	}
	p.wakeAt = due
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(due), c.wakeForRetry)
	} else {
		p.timer.Reset(time.Until(due))
	}
}

func (c *consumer[T]) wakeForRetry() {
	c.mu.Lock()
	if c.pending != nil {
		c.pending.wakeAt = time.Time{} // the worker that takes what is due sets it again
	}
	c.mu.Unlock()
	c.wake()
}

// retryHeap is a heap of messages by due time.
type retryHeap[T any] []*held[T]

func (t retryHeap[T]) Len() int           { return len(t) }
func (t retryHeap[T]) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t retryHeap[T]) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *retryHeap[T]) Push(x any)        { *t = append(*t, x.(*held[T])) }
func (t *retryHeap[T]) Pop() any {
	old := *t
	last := len(old) - 1
	h := old[last]
	old[last] = nil
	*t = old[:last]
	return h
}

// fifo is a queue.
type fifo[E any] struct {
	items []E
	head  int
}

func (f *fifo[E]) len() int { return len(f.items) - f.head }

func (f *fifo[E]) push(e E) { f.items = append(f.items, e) }

func (f *fifo[E]) pushFront(e E) {
	if f.head == 0 {
		f.items = append(f.items, e)
		copy(f.items[1:], f.items)
		f.items[0] = e
		return
	}
	f.head--
	f.items[f.head] = e
}

func (f *fifo[E]) pop() E {
	var zero E
	e := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
	case f.head > 32 && f.head > len(f.items)/2:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return e
}
