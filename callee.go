package hark

import (
	"context"
	"time"

	"github.com/harkbus/hark/internal/exec"
)

// callee is the function of a listener: a task that sleeps while there is no
// signal.
type callee struct {
	exec.Task
	l *Listener
	f func(context.Context, Signal)

	// The lock of the listener's shard guards the fields below.
	waiting fifo[Signal]
	working bool // a signal waits or f runs, so the task will look again
	ctx     context.Context
	cancel  context.CancelCauseFunc
	core    *core           // stands for f where handlers wait for each other
	rooms   []chan struct{} // closed when there may be room
	quiet   []chan struct{} // closed when f has returned and will not be called again
}

// calleeTurn is how many signals a function is given before other tasks get
// their turn.
const calleeTurn = 64

// offerLocked adds a signal to the queue as the policy demands.
func (c *callee) offerLocked(sig Signal) {
	l := c.l
	if l.fullLocked() {
		switch l.queue.policy {
		case DropNewest:
			l.dropLocked(1)
			return
		case Block, Fail:
			l.tally.overgrown++
		default:
			l.yieldLocked(c.waiting.pop(), &sig)
		}
	}
	c.waiting.push(sig)
	l.shard.accepted++
	if !c.working {
		c.working = true
		l.shard.working++
	}
	c.Notify()
}

// emptyLocked drops the waiting signals and returns their number.
func (c *callee) emptyLocked() (dropped int) {
	dropped = c.waiting.len()
	c.l.dropLocked(dropped)
	c.waiting = fifo[Signal]{}
	c.makeRoomLocked()
	return dropped
}

func (c *callee) makeRoomLocked() {
	for _, room := range c.rooms {
		close(room)
	}
	c.rooms = nil
}

func (c *callee) coreLocked() *core {
	if c.core == nil {
		c.core = &core{}
	}
	return c.core
}

// Run implements exec.Runner.
func (c *callee) Run() (more bool) {
	for range calleeTurn {
		sig, ok := c.take()
		if !ok {
			return false
		}
		c.tell(sig)
	}
	return true
}

// take returns the next signal.
func (c *callee) take() (sig Signal, ok bool) {
	s := c.l.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.waiting.len() > 0 {
		sig = c.waiting.pop()
		c.makeRoomLocked()
		if c.ctx == nil {
			c.ctx, c.cancel = context.WithCancelCause(handlerContext{context.Background(), c.coreLocked()})
		}
		return sig, true
	}
	if cap(c.waiting.items) > defaultBuffer {
		c.waiting = fifo[Signal]{} // releases the memory that a burst needed
	}
	if c.working {
		c.working = false
		s.working--
		for _, ch := range c.quiet {
			close(ch)
		}
		c.quiet = nil
		if s.working == 0 {
			for _, ch := range s.idlers {
				close(ch)
			}
			s.idlers = nil
		}
	}
	return sig, false
}

// tell calls the function.
func (c *callee) tell(sig Signal) {
	returned := false
	defer func() {
		if !returned {
			c.failed(caught(recover()))
		}
	}()
	if len(c.l.n.hooks.slow) > 0 {
		defer c.watch().Stop()
	}
	c.f(c.ctx, sig)
	returned = true
}

// watch reports the call that begins here to the hooks if it is slow.
func (c *callee) watch() *time.Timer {
	bus := c.l.n.bus
	return time.AfterFunc(bus.slow, func() {
		bus.hooks.onSlow(SlowEvent{Source: c.l.source(), For: bus.slow})
	})
}

// failed counts and reports a call that did not return normally.
func (c *callee) failed(err error) {
	c.l.shard.mu.Lock()
	c.l.tally.failed++
	if c.l.closed {
		c.l.shard.gone.failed++ // its tally has already been added
	}
	c.l.shard.mu.Unlock()
	c.l.n.hooks.onFail(FailEvent{Source: c.l.source(), Attempt: 1, Err: err})
}
