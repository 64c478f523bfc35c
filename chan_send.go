package hark

import "context"

// Send sends v. It waits until there is room, or with capacity 0 until a
// receiver has the value, at most until ctx ends: then nothing has been sent,
// and it returns the cause. If ctx has already ended it sends nothing. If the
// channel is closed, or is closed while Send waits, Send returns ErrClosed and
// nothing has been sent. Waiting senders are served in the order in which they
// came; over an engine that is not guaranteed.
//
// Over an engine Send also waits for a lost connection, and sends the value
// once, however often it has to try. If ctx ends while it is not known whether
// the value was sent, Send waits for the answer, a second at most; if it is
// still not known then, the error wraps ErrUnsure.
func (c *Chan[T]) Send(ctx context.Context, v T) error {
	if ctx.Err() != nil {
		return fail("send", c.name, context.Cause(ctx))
	}
	if c.split {
		c.sendMu.Lock()
		if !c.attention && c.queue.room() {
			c.queue.push(v)
			c.sendMu.Unlock()
			return nil
		}
		c.sendMu.Unlock()
	}
	return c.send(ctx, v)
}

// TrySend sends v if that is possible without waiting, and reports whether it
// did. It returns ErrClosed if the channel is closed. ctx bounds the exchange
// with the engine, not a wait for room; if it has ended, nothing is sent and its
// cause is returned.
func (c *Chan[T]) TrySend(ctx context.Context, v T) (bool, error) {
	if ctx.Err() != nil {
		return false, fail("send", c.name, context.Cause(ctx))
	}
	if c.split {
		c.sendMu.Lock()
		if !c.attention && c.queue.room() {
			c.queue.push(v)
			c.sendMu.Unlock()
			return true, nil
		}
		c.sendMu.Unlock()
	}
	if c.remote != nil {
		return c.remote.send(ctx, v, true)
	}
	c.lock()
	sent, served := c.sendLocked(v, true)
	err := c.closed
	c.unlock()
	served.call()
	if !sent && err != nil {
		return false, fail("send", c.name, err)
	}
	return sent, nil
}

// send is the slow path of Send.
func (c *Chan[T]) send(ctx context.Context, v T) error {
	if c.remote != nil {
		_, err := c.remote.send(ctx, v, false)
		return err
	}
	c.lock()
	sent, served := c.sendLocked(v, false)
	if sent {
		c.unlock()
		served.call()
		return nil
	}
	if err := c.closed; err != nil {
		c.unlock()
		return fail("send", c.name, err)
	}
	w := c.waiterLocked()
	w.value = v
	c.senders.push(w)
	c.attendLocked()
	c.noticeLocked()
	c.unlock()
	if !c.await(ctx, w) {
		return fail("send", c.name, context.Cause(ctx))
	}
	closed := w.closed
	w.release()
	if closed {
		return fail("send", c.name, c.why())
	}
	return nil
}

// sendLocked sends v if that is possible without waiting. The caller must call
// served.call after releasing the lock. Unless sure is true, it may miss room
// that a receiver at Out has just made.
func (c *Chan[T]) sendLocked(v T, sure bool) (sent bool, served *chanWaiter[T]) {
	if c.in.busy {
		c.settleInLocked()
	}
	if c.closed != nil {
		return false, nil
	}
	if c.receivers.first != nil && c.placeLocked() {
		w := c.receivers.pop()
		w.value = v
		c.direct++
		c.attendLocked()
		return true, c.serveLocked(w)
	}
	if c.out.busy && sure && !c.queue.room() {
		c.settleOutLocked()
	}
	if c.senders.first != nil {
		return false, nil
	}
	if c.offerLocked(v) {
		c.direct++
		return true, nil
	}
	if !c.queue.room() {
		return false, nil
	}
	c.queue.push(v)
	c.noticeLocked()
	return true, nil
}
