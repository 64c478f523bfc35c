package hark

import (
	"context"
	"errors"
	"iter"

	"github.com/harkbus/hark/driver"
)

// Receive returns the next value. It waits for one at most until ctx ends: then
// it has received nothing, and returns the cause. If ctx has already ended it
// receives nothing. Once the channel is closed and empty, it returns ErrClosed.
// Waiting receivers are served in the order in which they came; over an engine
// that is not guaranteed.
//
// Over an engine, a value that Receive returns belongs to the caller alone. It
// is lost if the process dies at that moment; use Take to avoid that. The value
// may also be lost if ctx ended while the connection was down and the error
// wraps ErrUnsure. A value that cannot be decoded is an error; it is lost too,
// and reported to the DropHooks.
func (c *Chan[T]) Receive(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, fail("receive", c.name, context.Cause(ctx))
	}
	if c.split {
		c.recvMu.Lock()
		if !c.attention && c.queue.any() {
			v := c.queue.pop()
			c.recvMu.Unlock()
			return v, nil
		}
		c.recvMu.Unlock()
	}
	return c.receive(ctx)
}

// TryReceive returns the next value if there is one, and reports whether there
// was. It returns ErrClosed if there will never be one again. ctx bounds the
// exchange with the engine, not a wait for a value; if it has ended, nothing is
// received and its cause is returned.
func (c *Chan[T]) TryReceive(ctx context.Context) (v T, ok bool, err error) {
	if ctx.Err() != nil {
		return v, false, fail("receive", c.name, context.Cause(ctx))
	}
	if c.split {
		c.recvMu.Lock()
		if !c.attention && c.queue.any() {
			v = c.queue.pop()
			c.recvMu.Unlock()
			return v, true, nil
		}
		c.recvMu.Unlock()
	}
	if c.remote != nil {
		if v, err = c.remote.receive(ctx, true); errors.Is(err, driver.ErrAgain) {
			return v, false, nil
		} else if err != nil {
			return v, false, fail("receive", c.name, err)
		}
		return v, true, nil
	}
	c.lock()
	v, ok, served := c.receiveLocked()
	err = c.endedLocked()
	c.unlock()
	served.call()
	if !ok && err != nil {
		return v, false, fail("receive", c.name, err)
	}
	return v, ok, nil
}

// All returns an iterator over the values, received one by one as the loop asks
// for them: a loop that ends early receives no value that its body did not get.
// It ends when the channel is closed and empty, or when ctx ends; after the loop
// ctx.Err() tells which. It may be used more than once, and by several loops,
// which share the values.
func (c *Chan[T]) All(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			v, err := c.Receive(ctx)
			if err != nil || !yield(v) {
				return
			}
		}
	}
}

// receive is the slow path of Receive.
func (c *Chan[T]) receive(ctx context.Context) (T, error) {
	if c.remote != nil {
		v, err := c.remote.receive(ctx, false)
		if err != nil {
			return v, fail("receive", c.name, err)
		}
		return v, nil
	}
	c.lock()
	v, ok, served := c.receiveLocked()
	if ok {
		c.unlock()
		served.call()
		return v, nil
	}
	if err := c.endedLocked(); err != nil {
		c.unlock()
		return v, fail("receive", c.name, err)
	}
	w := c.waiterLocked()
	c.receivers.push(w)
	c.attendLocked()
	c.noticeLocked()
	c.unlock()
	if !c.await(ctx, w) {
		return v, fail("receive", c.name, context.Cause(ctx))
	}
	v, closed := w.value, w.closed
	w.release()
	if closed {
		return v, fail("receive", c.name, c.why())
	}
	return v, nil
}

// receiveLocked receives a value if that is possible without waiting. The
// caller must call served.call after releasing the lock.
func (c *Chan[T]) receiveLocked() (v T, ok bool, served *chanWaiter[T]) {
	if c.out.busy {
		c.settleOutLocked()
	}
	if len(c.taken.back) > 0 {
		v = c.backLocked()
		served = c.refillLocked()
		c.asideLocked()
		c.noticeLocked()
		return v, true, served
	}
	if !c.queue.any() && c.in.busy {
		c.settleInLocked()
	}
	if c.queue.any() {
		v = c.queue.pop()
		served = c.refillLocked()
		c.noticeLocked()
		return v, true, served
	}
	if c.capacity == 0 && c.senders.first != nil {
		w := c.senders.pop()
		v = w.value
		c.direct++
		c.attendLocked()
		c.noticeLocked()
		return v, true, c.serveLocked(w)
	}
	v, ok = c.fetchLocked()
	return v, ok, nil
}

// refillLocked moves the value of the longest waiting sender into the queue, if
// there is room, and returns that sender.
func (c *Chan[T]) refillLocked() *chanWaiter[T] {
	if c.senders.first == nil || !c.queue.room() {
		return nil
	}
	w := c.senders.pop()
	c.queue.push(w.value)
	c.attendLocked()
	return c.serveLocked(w)
}
