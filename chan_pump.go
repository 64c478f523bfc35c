package hark

import (
	"context"
	"sync"
)

// chanOutlet passes the values of a channel to the Go channel that Out returns.
//
// A goroutine, the pump, offers the first value. The value stays in the queue
// (or with its sender, at capacity 0) until someone has taken it, so it counts,
// and Receive can still get it. Whoever needs to know the outcome of the offer
// withdraws it, with the locks held (settleOutLocked): the pump has then either
// handed the value over, or lets go of it.
type chanOutlet[T any] struct {
	ch       chan T        // returned by Out; nil until the first call
	busy     bool          // the pump offers the first value
	over     bool          // the pump has ended, or will make no further offer
	ended    bool          // the bus is closed: the pump must end whether or not anything is left
	gone     chan struct{} // closed when the pump has ended
	handed   chan struct{} // receives a token when the pump has handed over the value
	withdraw chan struct{} // makes the pump withdraw its offer
	wakeup   chan struct{} // tells an idle pump that there may be something to offer
}

// chanInlet takes values from the Go channel that In returns. Its pump takes
// one only while a place is reserved for it. With the locks held, this
// permission can be withdrawn (settleInLocked).
type chanInlet[T any] struct {
	ch       chan T        // returned by In; nil until the first call
	busy     bool          // the pump may take a value
	value    T             // the value that the pump has taken, until it is accounted for
	open     bool          // false if the user has closed ch
	taken    chan struct{} // receives a token when the pump has taken a value
	withdraw chan struct{} // makes the pump stop taking
	wakeup   chan struct{} // tells an idle pump that it may be able to take a value
	pump     sync.WaitGroup
}

// Out returns a Go channel of the values, for select. It is always the same one,
// and unbuffered: a value is either still in this channel, where it counts and
// where Receive can get it, or with the goroutine that took it from Out. So
// nothing is lost when a select chooses another case. Out is closed when this
// channel is closed and empty.
//
// When the bus is closed, users of Out have its Grace period to receive what is
// left. Then Out is closed anyway; the *CloseError reports what nobody has
// received, and Receive still returns it.
//
// The first call starts a goroutine, which ends when Out is closed. Without a
// bus, that is only when everything has been received, through Out or otherwise.
// Once Out or In is in use every operation costs more. Receivers that wait in
// Receive come before those that wait at Out.
func (c *Chan[T]) Out() <-chan T {
	if c.remote != nil {
		return c.remote.out.channel()
	}
	c.lock()
	defer c.unlock()
	o := &c.out
	if o.ch == nil {
		o.ch = make(chan T)
		if o.ended {
			o.over = true
			close(o.ch)
			return o.ch
		}
		o.gone = make(chan struct{})
		o.handed, o.withdraw, o.wakeup = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)
		c.asideLocked()
		c.noticeLocked()
		go c.pumpOut()
	}
	return o.ch
}

// endOut waits until all values have been received from Out, if it is in use,
// or until ctx ends, and then closes Out. It returns how many values are left.
// The channel must be closed.
func (c *Chan[T]) endOut(ctx context.Context) (left int) {
	o := &c.out
	c.lock()
	gone := o.gone
	o.ended = gone == nil // Out will be closed from the beginning
	c.unlock()
	if gone == nil {
		return 0
	}
	select {
	case <-gone:
		return 0
	case <-ctx.Done():
	}
	c.lock()
	c.settleLocked()
	o.ended = true
	c.noticeLocked()
	left = c.queue.len() + c.taken.outside()
	c.unlock()
	<-gone
	return left
}

// In returns a Go channel whose values are sent to this channel, for select. It
// is always the same one, and unbuffered: a value put into it has been sent.
// Nothing is taken from it while there is no room. With capacity 0 that means
// while no receiver waits in Receive; but if Out is in use too, one value is
// taken ahead, because nobody can see whether a receiver waits at Out.
//
// Close does not close In, so that senders do not panic, but nothing more is
// taken from it: a select should have a case for Done. Closing In with the
// built-in close is the same as Close; other users of In then panic, as with any
// Go channel.
//
// The first call starts a goroutine that Close ends. Senders that wait in Send
// come before those that wait at In.
func (c *Chan[T]) In() chan<- T {
	if c.remote != nil {
		return c.remote.in.channel()
	}
	c.lock()
	defer c.unlock()
	i := &c.in
	if i.ch == nil {
		i.ch = make(chan T)
		i.taken, i.withdraw, i.wakeup = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)
		c.asideLocked()
		if c.closed == nil {
			i.pump.Go(c.pumpIn)
		}
	}
	return i.ch
}

// noticeLocked wakes the idle pumps that have something to do.
func (c *Chan[T]) noticeLocked() {
	if !c.aside {
		return
	}
	if c.in.ch != nil && !c.in.busy && (c.closed != nil || c.mayTakeLocked()) {
		signal(c.in.wakeup)
	}
	news := c.closed != nil || c.anyLocked() || c.senders.first != nil
	if c.out.ch != nil && !c.out.busy && news {
		signal(c.out.wakeup)
	}
	if news {
		for _, w := range c.taken.waiting {
			if signal(w); c.closed == nil {
				break // it wakes the next one
			}
		}
	}
}

// signal puts a token into c, which has room for one, unless there is one
// already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// settleLocked withdraws what both pumps are doing.
func (c *Chan[T]) settleLocked() {
	if c.in.busy {
		c.settleInLocked()
	}
	if c.out.busy {
		c.settleOutLocked()
	}
}

// pumpOut offers the first value at Out until the channel is closed and empty,
// or until Out must end.
func (c *Chan[T]) pumpOut() {
	o := &c.out
	defer close(o.gone)
	for {
		c.lock()
		select {
		case <-o.handed:
			c.handedLocked()
		default: // someone else has settled it, or it was withdrawn
		}
		v, ok := c.frontLocked()
		o.over = o.ended || !ok && c.endedLocked() != nil
		o.busy = ok && !o.over
		over := o.over
		c.unlock()
		switch {
		case over:
			close(o.ch)
			return
		case !ok:
			<-o.wakeup
			continue
		}
		select {
		case o.ch <- v:
			o.handed <- struct{}{}
		case <-o.withdraw:
		}
	}
}

// frontLocked returns the first value.
func (c *Chan[T]) frontLocked() (v T, ok bool) {
	if b := c.taken.back; len(b) > 0 {
		return b[0].Value, true
	}
	if c.queue.any() {
		return c.queue.peek(), true
	}
	if w := c.senders.first; w != nil && c.capacity == 0 {
		return w.value, true
	}
	return v, false
}

// settleOutLocked withdraws the pump's offer, or records that the value has
// been taken. The pump answers at once, because it waits only for this and for
// a taker.
func (c *Chan[T]) settleOutLocked() {
	select {
	case c.out.withdraw <- struct{}{}:
		c.out.busy = false
	case <-c.out.handed:
		c.handedLocked()
	}
}

// handedLocked records that someone has taken the first value from Out.
func (c *Chan[T]) handedLocked() {
	c.out.busy = false
	if len(c.taken.back) > 0 {
		c.backLocked()
		c.refillLocked().call()
		c.asideLocked()
	} else if c.queue.any() {
		c.queue.pop()
		c.refillLocked().call()
	} else {
		w := c.senders.pop()
		c.direct++
		c.attendLocked()
		c.serveLocked(w).call()
	}
	c.noticeLocked()
}

// offerLocked passes v, which is next, to a goroutine that waits at Out, if
// there is one.
func (c *Chan[T]) offerLocked(v T) bool {
	if c.out.ch == nil || c.out.busy || c.out.over || c.anyLocked() || !c.placeLocked() {
		return false
	}
	select {
	case c.out.ch <- v:
		return true
	default:
		return false
	}
}

// pumpIn takes values from In until the channel is closed.
func (c *Chan[T]) pumpIn() {
	i := &c.in
	for {
		c.lock()
		select {
		case <-i.taken:
			c.takenLocked()
		default: // someone else has settled it, or it was withdrawn
		}
		over := c.closed != nil
		i.busy = !over && c.mayTakeLocked()
		take := i.busy
		c.unlock()
		switch {
		case over:
			return
		case !take:
			<-i.wakeup
			continue
		}
		select {
		case i.value, i.open = <-i.ch:
			i.taken <- struct{}{}
		case <-i.withdraw:
		}
	}
}

// mayTakeLocked reports whether there is a place for a value from In.
func (c *Chan[T]) mayTakeLocked() bool {
	if c.senders.first != nil {
		return false
	}
	return c.receivers.first != nil && c.placeLocked() || c.queue.room() ||
		c.capacity == 0 && (c.out.ch != nil || len(c.taken.waiting) > 0) && !c.queue.any()
}

// settleInLocked stops the pump from taking a value, or accounts for the one
// that it has taken.
func (c *Chan[T]) settleInLocked() {
	select {
	case c.in.withdraw <- struct{}{}:
		c.in.busy = false
	case <-c.in.taken:
		c.takenLocked()
	}
}

// takenLocked accounts for the value that the pump has taken.
func (c *Chan[T]) takenLocked() {
	c.in.busy = false
	var zero T
	v, open := c.in.value, c.in.open
	c.in.value = zero
	switch w := c.receivers.first; {
	case !open:
		c.shutLocked()
	case w != nil:
		c.receivers.pop()
		w.value = v
		c.direct++
		c.attendLocked()
		c.serveLocked(w).call()
	case c.offerLocked(v):
		c.direct++
	default:
		c.queue.push(v)
	}
	c.noticeLocked()
}

// shutLocked closes the channel because the user has closed In.
func (c *Chan[T]) shutLocked() {
	if c.closed != nil {
		return
	}
	if c.out.busy {
		c.settleOutLocked()
	}
	c.closeLocked(ErrClosed)
}

// fetchLocked takes a value that a sender offers at In, for a receiver that
// finds the queue empty. With capacity 0 the pump takes nothing ahead.
func (c *Chan[T]) fetchLocked() (v T, ok bool) {
	if c.in.ch == nil || c.closed != nil || !c.placeLocked() {
		return v, false
	}
	select {
	case v, open := <-c.in.ch:
		if !open {
			c.shutLocked()
			return v, false
		}
		c.direct++
		return v, true
	default:
		return v, false
	}
}
