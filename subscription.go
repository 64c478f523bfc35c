package hark

import (
	"context"
	"fmt"
)

// Subscription is a handler's claim on messages. It is safe for concurrent
// use.
type Subscription struct{ impl subscriptionImpl }

// subscriptionImpl is what a member does for its Subscription.
type subscriptionImpl interface {
	name() string
	stats() SubscriptionStats
	setPaused(bool)
	drain(context.Context) error
	shut() error
}

// Name returns the name of the subscription's group. For a subscription without
// a group it is a generated name: its topic or pattern, "#" and a number.
func (s *Subscription) Name() string { return s.impl.name() }

// Stats returns the numbers of the subscription, or of its whole group.
func (s *Subscription) Stats() SubscriptionStats { return s.impl.stats() }

// Pause makes the subscription start no more handlers; those that are running
// may finish. Messages published meanwhile wait as its buffer allows. Other
// members of its group continue.
func (s *Subscription) Pause() { s.impl.setPaused(true) }

// Resume ends Pause.
func (s *Subscription) Resume() { s.impl.setPaused(false) }

// Drain stops taking new messages, waits until those published before are done,
// retries included, and closes the subscription. It ends a Pause. If ctx ends
// first, it closes the subscription at once and returns a *CloseError that says
// what was left. The last member of a group drains the group; others hand back
// what they have not begun, as do all members of a group on a stored topic,
// which keeps its place. With the context of one of its own handlers it returns
// ErrWouldDeadlock.
func (s *Subscription) Drain(ctx context.Context) error { return s.impl.drain(ctx) }

// Close ends the subscription at once: it cancels the contexts of its handlers,
// and waits for them to return for as long as the bus's Grace period. Waiting
// messages are dropped and counted as DropClosed, or handed back to the group if
// it has other members or its topic is stored. It is idempotent. Called from a
// handler it does not wait.
func (s *Subscription) Close() error { return s.impl.shut() }

func (m *member[T]) name() string { return m.consumer.subscription() }
func (m *member[T]) stats() SubscriptionStats {
	s := m.consumer.stats()
	s.Paused = m.state.Load()&memberPaused != 0
	return s
}

var errSubscriptionClosed = fmt.Errorf("subscription %w", ErrClosed)

func (m *member[T]) shut() error {
	ctx, cancel := context.WithTimeout(context.Background(), m.consumer.bus.grace)
	defer cancel()
	m.halt() // otherwise a handler whose context ends would make room for the next message
	m.abort(errSubscriptionClosed)
	_, err := m.leave(ctx)
	return err
}

func (m *member[T]) drain(ctx context.Context) error {
	c := m.consumer
	if handlerOf(ctx) == &c.core {
		return fail("drain", c.subscription(), fmt.Errorf("%w: a handler of the subscription called it, and would wait for itself", ErrWouldDeadlock))
	}
	if last := c.lastToLeave(m); last && !c.lasting() {
		m.setPaused(false)
		c.finish()
		c.settle(ctx)
	}
	await(ctx, m.halt())
	cause := context.Cause(ctx)
	m.abort(errSubscriptionClosed)
	hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.bus.grace)
	defer cancel()
	left, err := m.leave(hard)
	if err == nil && left.any() {
		err = &CloseError{Left: []Left{left}, Cause: cause}
	}
	return err
}

// leave ends the member, and with the last member its consumer. It returns what
// an ephemeral consumer left behind, and an error if a handler has not returned
// when ctx ends.
func (m *member[T]) leave(ctx context.Context) (Left, error) {
	c := m.consumer
	quiet := m.halt()
	inside := inHandler()
	returned := inside || await(ctx, quiet)
	left := c.remove(m)
	if !returned {
		return left, fail("close", c.subscription(), fmt.Errorf("a handler has not returned %v after its context ended", c.bus.grace))
	}
	return left, nil
}
