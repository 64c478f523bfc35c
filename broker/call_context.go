package broker

import (
	"context"
	"sync"
	"time"
)

// callContext ends with the context of a request, or at a deadline. Most calls wait for
// nothing, so the timer is made when somebody asks for Done.
type callContext struct {
	request  context.Context
	deadline time.Time

	mu     sync.Mutex // guards what follows
	timed  context.Context
	cancel context.CancelFunc
}

// started returns the context with the timer.
func (c *callContext) started() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.cancel = context.WithDeadline(c.request, c.deadline)
	}
	return c.timed
}

// current returns what knows the state: the context with the timer if there is one.
func (c *callContext) current() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		return c.request
	}
	return c.timed
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) {
	if at, ok := c.request.Deadline(); ok && at.Before(c.deadline) {
		return at, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.started().Done() }

// Err implements context.Context.
func (c *callContext) Err() error {
	if !time.Now().Before(c.deadline) {
		return c.started().Err()
	}
	return c.current().Err()
}

// Value implements context.Context. Contexts made of this one find that with the timer
// by it, because they ask for Done first.
func (c *callContext) Value(key any) any { return c.current().Value(key) }

// end ends it if anybody waits for that: net/http ends the context of the request.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}
