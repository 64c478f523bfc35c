package hark

import (
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// aside holds the messages of a consumer that have left the log but are in no
// worker's hands: they wait for another attempt, or for a message with the same
// key to be done. The consumer's mu guards it.
type aside[T any] struct {
	runnable fifo[*held[T]]
	timed    timed[T]            // by due time
	keys     map[string]*line[T] // the keys of messages that are not done
	n        int                 // number of messages here
	retrying int                 // those of them that wait for an attempt or are about to have it
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

// line is what waits behind a message with the same key.
type line[T any] struct{ waiting fifo[*held[T]] }

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

// enter adds a message behind those that are here.
func (a *aside[T]) enter(h *held[T]) {
	a.runnable.push(h)
	a.n++
}

// pop returns the next message to handle, or nil. If the message has a key, pop
// claims the key for it. A lone worker takes its messages in order anyway, so
// it claims a key only when a message fails.
func (a *aside[T]) pop(lone bool) *held[T] {
	if len(a.timed) > 0 {
		now := time.Now()
		for len(a.timed) > 0 && !a.timed[0].due.After(now) {
			a.runnable.push(heap.Pop(&a.timed).(*held[T]))
		}
	}
	for a.runnable.len() > 0 {
		h := a.runnable.pop()
		if h.keyed && !h.claimed {
			if line := a.keys[h.key]; line != nil {
				line.waiting.push(h)
				continue
			}
			if !lone {
				a.claim(h)
			}
		}
		a.n--
		if h.attempt > 0 {
			a.retrying--
		}
		return h
	}
	return nil
}

// claim makes later messages with h's key wait until h is released.
func (a *aside[T]) claim(h *held[T]) {
	h.claimed = true
	if a.keys == nil {
		a.keys = map[string]*line[T]{}
	}
	if a.keys[h.key] == nil {
		a.keys[h.key] = &line[T]{}
	}
}

// release ends a message's claim on its key. The next message with the key has
// its turn.
func (a *aside[T]) release(h *held[T]) {
	line := a.keys[h.key]
	if !h.claimed || line == nil { // nil if the consumer has ended meanwhile
		return
	}
	if line.waiting.len() == 0 {
		delete(a.keys, h.key)
		return
	}
	next := line.waiting.pop()
	next.claimed = true
	if next.due.IsZero() {
		a.runnable.push(next)
	} else {
		heap.Push(&a.timed, next)
	}
}

// empty reports whether there is no message here and no key is claimed.
func (a *aside[T]) empty() bool { return a.n == 0 && len(a.keys) == 0 }

// putAside keeps m for another attempt at due. Messages with the same key that
// the worker holds behind it wait too.
func (w *worker[T]) putAside(m *Message[T], failed, due time.Time) {
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
	a := &c.aside
	a.n++
	a.retrying++
	switch line := a.keys[h.key]; {
	case h.keyed && !h.claimed && line != nil:
		line.waiting.push(h) // another item of its batch also failed
	case h.keyed && !h.claimed:
		a.claim(h)
		fallthrough
	default:
		heap.Push(&a.timed, h)
	}
	if h.keyed {
		for _, h := range behind {
			a.enter(h)
		}
		w.n = w.at
	}
	c.busy.Store(true)
	c.setTimerLocked()
}

// holds reports whether the worker holds messages that it has not begun.
func (w *worker[T]) holds() bool {
	return w.at < w.n || w.pile != nil && len(w.pile.items) > 0
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
	for _, h := range slices.Backward(rest) {
		c.aside.putBack(h)
	}
	w.at, w.n = 0, 0
	if w.pile != nil {
		for _, h := range slices.Backward(w.pile.items) {
			c.aside.putBack(h)
		}
		w.pile.items = nil
		if w.pile.timer != nil {
			w.pile.timer.Stop()
		}
	}
	if c.over.Load() {
		c.lost(DropClosed, uint64(c.aside.n))
		c.aside = aside[T]{}
	}
	c.busy.Store(!c.aside.empty())
	c.wake()
}

// putBack takes back a message that pop returned, or one that was read and not
// handled.
func (a *aside[T]) putBack(h *held[T]) {
	a.runnable.pushFront(h)
	a.n++
	if h.attempt > 0 {
		a.retrying++
	}
}

// release gives the next message with h's key its turn.
func (c *consumer[T]) release(h *held[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aside.release(h)
	c.busy.Store(!c.aside.empty())
	c.setTimerLocked()
}

// setTimerLocked makes sure that a worker wakes when the next attempt is due.
func (c *consumer[T]) setTimerLocked() {
	a := &c.aside
	if len(a.timed) == 0 || c.over.Load() {
		return
	}
	due := a.timed[0].due
	if !a.wakeAt.IsZero() && !due.Before(a.wakeAt) {
		return
	}
	a.wakeAt = due
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(due), c.wakeForRetry)
	} else {
		a.timer.Reset(time.Until(due))
	}
}

func (c *consumer[T]) wakeForRetry() {
	c.mu.Lock()
	c.aside.wakeAt = time.Time{} // the worker that takes what is due sets it again
	c.mu.Unlock()
	c.wake()
}

// timed is a heap by due time.
type timed[T any] []*held[T]

func (t timed[T]) Len() int           { return len(t) }
func (t timed[T]) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timed[T]) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timed[T]) Push(x any)        { *t = append(*t, x.(*held[T])) }
func (t *timed[T]) Pop() any {
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
