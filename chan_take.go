package hark

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/harkbus/hark/driver"
)

// Taken is a value that was taken from a channel and not received yet. Call
// either Done or Return.
type Taken[T any] struct {
	Value T

	name string

	// Over an engine.
	remote *remoteChan[T]
	held   *driver.ChanValue
	over   atomic.Bool // Done or Return has been called

	// In process. The locks of local guard these fields.
	local  *Chan[T]
	nth    uint64         // position in the order in which values were taken
	sender *chanWaiter[T] // with capacity 0: the sender, which waits until the value is received
	gone   bool           // it is no longer held
}

// Take is Receive for callers that want to finish work on a value before it
// counts as received, which is when they call Done. Until then the value is
// still in the channel for everyone but receivers: it takes up its place and
// counts for Len, and with capacity 0 its Send waits, and may still give up. A
// value that is returned can be received again, before others. Over an engine
// the same happens to a value whose taker's process or connection ends, after
// some seconds and perhaps behind others. So no value is lost, and some may be
// taken twice; a value stays taken for as long as the taker's process lives.
//
// It waits as Receive does, and returns the same errors. Those that wait in
// Receive come first.
func (c *Chan[T]) Take(ctx context.Context) (*Taken[T], error) {
	if ctx.Err() != nil {
		return nil, fail("take", c.name, context.Cause(ctx))
	}
	take := c.takeLocal
	if c.remote != nil {
		take = func(ctx context.Context) (*Taken[T], error) { return c.remote.take(ctx, false) }
	}
	t, err := take(ctx)
	if err != nil {
		return nil, fail("take", c.name, err)
	}
	return t, nil
}

// Done says that the value has been received. It returns ErrNotHeld if Done or
// Return was called before, if its sender has given up (with capacity 0), or if
// another receiver got the value because the connection was lost for too long.
// Over an engine it waits for the answer, at most until ctx ends; an error that
// wraps ErrUnsure says that the value may have been received.
func (t *Taken[T]) Done(ctx context.Context) error {
	if err := t.done(ctx); err != nil {
		return fail("receive", t.name, err)
	}
	return nil
}

func (t *Taken[T]) done(ctx context.Context) error {
	if t.remote == nil {
		return t.local.doneWith(t)
	}
	if t.over.Swap(true) {
		return errNotHeld
	}
	if err := t.held.Done(ctx); err != nil {
		return heldError(err)
	}
	t.remote.received.Add(1)
	return nil
}

// Return puts the value back. It returns ErrNotHeld as Done does.
func (t *Taken[T]) Return(ctx context.Context) error {
	var err error
	switch {
	case t.remote == nil:
		err = t.local.putBack(t)
	case t.over.Swap(true):
		err = errNotHeld
	default:
		err = heldError(t.held.Return(ctx))
	}
	if err != nil {
		return fail("return to", t.name, err)
	}
	return nil
}

var errNotHeld = fmt.Errorf("the value is %w", ErrNotHeld)

// heldError converts an engine's error about a value in hand to one of hark's.
func heldError(err error) error {
	if errors.Is(err, driver.ErrEnded) {
		return errNotHeld
	}
	return engineError(err)
}

// chanHands records the values taken from a channel in process. Both locks of
// the channel guard its fields.
type chanHands[T any] struct {
	last    uint64          // the last Taken.nth
	hands   int             // number of held values, except those whose senders wait
	offers  []*Taken[T]     // held values whose senders wait
	back    []*Taken[T]     // returned values, in the order in which they were taken
	waiting []chan struct{} // one for each goroutine that waits in Take; each has room for a token
}

// outside returns the number of values that count but are not in the queue.
func (h *chanHands[T]) outside() int { return h.hands + len(h.back) }

// takeLocal is Take in process.
func (c *Chan[T]) takeLocal(ctx context.Context) (*Taken[T], error) {
	wake := make(chan struct{}, 1)
	for {
		c.lock()
		t := c.takeLocked()
		err := c.endedLocked()
		if i := slices.Index(c.taken.waiting, wake); i >= 0 && (t != nil || err != nil || ctx.Err() != nil) {
			c.taken.waiting = slices.Delete(c.taken.waiting, i, i+1)
		} else if i < 0 && t == nil && err == nil {
			c.taken.waiting = append(c.taken.waiting, wake)
		}
		c.asideLocked()
		c.noticeLocked() // there may be more, for others
		c.unlock()
		switch {
		case t != nil:
			return t, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// takeLocked takes the next value. It returns nil if there is none.
func (c *Chan[T]) takeLocked() *Taken[T] {
	if c.out.busy {
		c.settleOutLocked()
	}
	h := &c.taken
	if n := len(h.back); n > 0 {
		t := h.back[0]
		h.back = slices.Delete(h.back, 0, 1)
		h.hands++
		return &Taken[T]{Value: t.Value, name: c.name, local: c, nth: t.nth}
	}
	if !c.queue.any() && c.in.busy {
		c.settleInLocked()
	}
	t := &Taken[T]{name: c.name, local: c, nth: h.last + 1}
	if c.queue.any() {
		t.Value = c.queue.pop()
	} else if w := c.senders.first; w != nil && c.capacity == 0 {
		c.senders.pop()
		t.Value, t.sender, w.hand = w.value, w, t
		h.offers = append(h.offers, t)
		h.last++
		return t
	} else if v, ok := c.fetchLocked(); ok {
		t.Value = v
	} else {
		return nil
	}
	h.last++
	h.hands++
	c.placesLocked(-1)
	return t
}

// placesLocked changes the number of places in the queue by n.
func (c *Chan[T]) placesLocked(n int) {
	if c.capacity > 0 {
		c.queue.limit += n
	}
}

// letGoLocked ends the hold on t. It returns false if t is no longer held.
func (c *Chan[T]) letGoLocked(t *Taken[T]) bool {
	if t.gone {
		return false
	}
	t.gone = true
	if t.sender == nil {
		c.taken.hands--
		return true
	}
	i := slices.Index(c.taken.offers, t)
	c.taken.offers = slices.Delete(c.taken.offers, i, i+1)
	t.sender.hand = nil
	return true
}

// doneWith is Done in process.
func (c *Chan[T]) doneWith(t *Taken[T]) error {
	c.lock()
	defer c.unlock()
	if !c.letGoLocked(t) {
		return errNotHeld
	}
	if t.sender != nil {
		c.direct++
		c.serveLocked(t.sender).call()
	} else {
		c.placesLocked(+1)
	}
	c.freedLocked()
	return nil
}

// putBack is Return in process.
func (c *Chan[T]) putBack(t *Taken[T]) error {
	c.lock()
	defer c.unlock()
	c.settleLocked() // what is on offer comes after it
	if !c.letGoLocked(t) {
		return errNotHeld
	}
	w := c.receivers.pop()
	switch {
	case w != nil && t.sender != nil:
		c.direct++
		w.value = t.Value
		c.serveLocked(w).call()
		c.serveLocked(t.sender).call()
	case w != nil:
		w.value = t.Value
		c.serveLocked(w).call()
		c.placesLocked(+1)
	case t.sender != nil:
		c.senders.pushFront(t.sender)
	default:
		i, _ := slices.BinarySearchFunc(c.taken.back, t.nth, func(b *Taken[T], nth uint64) int { return int(int64(b.nth - nth)) })
		c.taken.back = slices.Insert(c.taken.back, i, &Taken[T]{Value: t.Value, nth: t.nth})
	}
	c.freedLocked()
	return nil
}

// backLocked receives a returned value.
func (c *Chan[T]) backLocked() T {
	h := &c.taken
	v := h.back[0].Value
	h.back = slices.Delete(h.back, 0, 1)
	c.placesLocked(+1)
	return v
}

// freedLocked lets senders in if there is room, and dismisses the receivers if
// nothing more can come.
func (c *Chan[T]) freedLocked() {
	for c.capacity > 0 && c.senders.first != nil && c.queue.room() {
		s := c.senders.pop()
		if w := c.receivers.pop(); w != nil {
			w.value = s.value
			c.direct++
			c.serveLocked(w).call()
		} else {
			c.queue.push(s.value)
		}
		c.serveLocked(s).call()
	}
	if c.endedLocked() != nil {
		c.dismissLocked(&c.receivers)
	}
	c.asideLocked()
	c.noticeLocked()
}

// dismissLocked tells those who wait that the channel is closed.
func (c *Chan[T]) dismissLocked(q *waiterQueue[T]) {
	for w := q.pop(); w != nil; w = q.pop() {
		w.closed = true
		c.serveLocked(w).call()
	}
}

// endedLocked returns why nothing can be received any more once the channel is
// empty: it is closed, and no one holds a value that may come back.
func (c *Chan[T]) endedLocked() error {
	if c.taken.hands > 0 {
		return nil
	}
	return c.closed
}

// placeLocked reports whether a value may come in. With capacity 0 it may if
// someone takes it.
func (c *Chan[T]) placeLocked() bool { return c.capacity == 0 || c.queue.room() }

// anyLocked reports whether the channel has a value that can be received.
func (c *Chan[T]) anyLocked() bool { return len(c.taken.back) > 0 || c.queue.any() }
