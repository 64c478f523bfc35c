package broker

import (
	"context"
	"sync"
	"time"
)

// callContext ends with the context of a request, or at a deadline. Most calls
// never wait, so it creates the timer only when Done is called.
type callContext struct {
	request  context.Context
	deadline time.Time

	mu     sync.Mutex // guards the fields below
	timed  context.Context
	cancel context.CancelFunc
}

// started returns the context with the timer, creating it if needed.
func (c *callContext) started() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.cancel = context.WithDeadline(c.request, c.deadline)
	}
	return c.timed
}

// current returns the context to ask for the state: the one with the timer, if it
// exists.
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

// Value implements context.Context. Through it, contexts derived from this one find
// the context with the timer, because they call Done first.
func (c *callContext) Value(key any) any { return c.current().Value(key) }

// end ends the context if anybody waits for it. Otherwise it is enough that
// net/http ends the context of the request.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}
