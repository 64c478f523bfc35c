package hark

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harkbus/hark/driver"
)

// What an inbox does for its Subscription in place of its member.

func (in *inbox[T]) name() string          { return in.member.name() }
func (in *inbox[T]) setPaused(paused bool) { in.member.setPaused(paused) }
func (in *inbox[T]) places() []End         { return in.member.consumer.places() }

// stats returns where the messages are. It counts none twice. It may miss one
// that moves on meanwhile, so if any did, it counts again, up to a few times.
func (in *inbox[T]) stats() SubscriptionStats {
	for try := 1; ; try++ {
		if s, still := in.count(); still || try == 3 {
			return s
		}
	}
}

// count makes one attempt at stats. It reports whether nothing moved meanwhile.
func (in *inbox[T]) count() (s SubscriptionStats, still bool) {
	before := in.received.Load()
	lag := in.lag.Load()
	if lag == nil {
		ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
		defer cancel()
		now, err := in.sub.Lag(ctx)
		if err != nil {
			now = driver.Lag{}
		}
		lag = &now
	}
	entering := in.past()
	s = in.member.stats()
	entered := in.past() // taken after s, so that nothing in s exceeds it
	now := in.received.Load()
	less := func(a, b uint64) uint64 { return a - min(a, b) }
	s.Waiting += less(lag.Waiting, less(now, before)) + less(now, entered)
	s.Dropped += lag.Lost
	s.Members = max(s.Members, lag.Members)
	return s, now == before && entered == entering
}

// past returns the number of messages that are or have been in the log, or were
// done before they got there.
func (in *inbox[T]) past() uint64 {
	c := in.member.consumer
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed + in.local.log.Tail()
}

// shut implements Close of a subscription.
func (in *inbox[T]) shut() error {
	in.abandon()
	err := in.member.shut()
	in.depart()
	return err
}

// abandon stops receiving. The messages that the engine and the pump hold for a
// subscription that no one will continue are counted as dropped. abandon
// returns their number.
func (in *inbox[T]) abandon() (dropped int) {
	in.cancelPump()
	<-in.pumped
	if in.shared || !in.abandoned.CompareAndSwap(false, true) {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	lag, err := in.sub.Lag(ctx)
	if err != nil {
		return in.rejected
	}
	in.member.consumer.misses(DropClosed, lag.Waiting)
	in.lag.Store(&driver.Lag{Lost: lag.Lost, Members: lag.Members})
	return in.rejected + int(lag.Waiting)
}

// depart closes the inbox. In a handler, for which it would have to wait, it
// does so when the handler has returned; the bus waits for that.
func (in *inbox[T]) depart() {
	if !inHandler() {
		in.close()
		return
	}
	quiet := in.member.halt()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), in.local.core.bus.grace)
		defer cancel()
		await(ctx, quiet)
		in.close()
	}()
}

func (in *inbox[T]) drain(ctx context.Context) error {
	m := in.member
	if handlerOf(ctx) == &m.consumer.core {
		return fail("drain", m.name(), fmt.Errorf("%w: a handler of the subscription called it, and would wait for itself", ErrWouldDeadlock))
	}
	m.setPaused(false)
	dropped := 0
	if in.shared || in.sub.Drain(ctx) != nil {
		dropped = in.abandon()
	}
	select {
	case <-in.pumped:
	case <-ctx.Done():
		dropped += in.abandon()
	}
	err := m.drain(ctx)
	in.depart()
	var left *CloseError
	switch {
	case dropped == 0:
	case errors.As(err, &left) && len(left.Left) > 0:
		left.Left[0].Waiting += dropped
	case err == nil:
		c := m.consumer
		err = &CloseError{
			Left:  []Left{{Kind: c.kind, Name: c.name, Subscription: c.subscription(), Waiting: dropped}},
			Cause: context.Cause(ctx),
		}
	}
	return err
}

// The inbox as a component of its topic.

func (in *inbox[T]) coreOf() *core { return &in.member.consumer.core }

func (in *inbox[T]) seal() { in.member.consumer.resume() }

func (in *inbox[T]) cancel(cause error) { in.member.consumer.cancel(cause) }

// catchUp waits until everything that the engine now has for the subscription
// is done, or ctx ends.
func (in *inbox[T]) catchUp(ctx context.Context) {
	var target uint64
	if topic := in.remote.topic.Load(); in.stored && topic != nil {
		s, err := (*topic).Stats(ctx)
		if err != nil {
			return
		}
		target = s.Last
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // without the pump, the engine waits in vain
		select {
		case <-in.pumped:
			cancel()
		case <-asking.Done():
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !in.caughtUp(asking, target) {
		select {
		case <-tick.C:
		case <-in.pumped:
			in.member.consumer.settle(ctx)
			return
		case <-ctx.Done():
			return
		}
	}
	in.member.consumer.settle(ctx)
}

// caughtUp reports whether everything up to the sequence target, or everything
// at all if target is 0, has been received by this subscription or its group.
// It also returns true if that cannot be known.
func (in *inbox[T]) caughtUp(ctx context.Context, target uint64) bool {
	if done, err := in.sub.CaughtUp(ctx, target); err == nil && !done {
		return false
	}
	return in.flushPump(ctx)
}

func (in *inbox[T]) work() (received uint64, idle bool) {
	return in.received.Load(), in.member.consumer.idle()
}

func (in *inbox[T]) stop(ctx context.Context, cause error) Left {
	in.cancelPump()
	c := in.member.consumer
	var left Left
	if in.shared { // what waits is handed back
		await(ctx, c.cancel(cause))
		c.mu.Lock()
		left = c.leftLocked()
		c.mu.Unlock()
		left.Waiting, left.Retrying = 0, 0
	} else {
		dropped := 0
		if in.local.core.bus.forced { // otherwise only what others have published since is left
			dropped = in.abandon()
		}
		left = c.stop(ctx, cause)
		if dropped > 0 {
			left.Kind, left.Name, left.Subscription = c.kind, c.name, c.subscription()
			left.Waiting += dropped
		}
	}
	in.close()
	return left
}
