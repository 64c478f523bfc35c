package hark

import (
	"context"
	"fmt"
	"time"
)

// What an inbox has in flight, and what it reports to the engine.

// hold records that a is in flight.
func (in *inbox[T]) hold(a *arrival) {
	in.mu.Lock()
	defer in.mu.Unlock()
	last := in.held.prev
	a.prev, a.next = last, &in.held
	last.next, in.held.prev = a, a
	in.holds++
}

// letGoLocked records that a is no longer in flight, and reports whether it was.
func (in *inbox[T]) letGoLocked(a *arrival) bool {
	if a.next == nil {
		return false
	}
	a.prev.next, a.next.prev = a.next, a.prev
	a.prev, a.next = nil, nil
	in.holds--
	return true
}

// settled implements arrival.inbox.
func (in *inbox[T]) settled(a *arrival) {
	if !in.stored && in.bounded == nil {
		return
	}
	in.mu.Lock()
	in.size -= a.size
	a.size = 0
	if in.letGoLocked(a) && in.shared {
		in.done = append(in.done, a.Received)
	}
	acknowledge := in.shared && !in.serving
	hasRoom := in.hasRoom
	if hasRoom != nil && in.holds <= in.window/2 && !in.oversizedLocked() {
		in.hasRoom = nil
	} else {
		hasRoom = nil
	}
	in.mu.Unlock()
	if hasRoom != nil {
		close(hasRoom)
	}
	if acknowledge {
		in.tell()
	}
}

// weigh counts a in the size of the messages in the log. The pump calls it.
func (in *inbox[T]) weigh(a *arrival) {
	size := a.Size()
	in.mu.Lock()
	a.size = size
	in.size += size
	in.mu.Unlock()
	if in.unswept += size; in.unswept >= in.bounded.MaxHeld() {
		in.local.log.Sweep() // it may be long before the log does
		in.unswept = 0
	}
}

// oversizedLocked reports whether the messages in the log are as large as they may be.
func (in *inbox[T]) oversizedLocked() bool {
	if in.bounded == nil {
		return false
	}
	most := in.bounded.MaxHeld()
	return most > 0 && in.size >= most
}

// tell wakes the acknowledger.
func (in *inbox[T]) tell() {
	select {
	case in.news <- struct{}{}:
	default:
	}
}

// acknowledge tells the engine which messages are done, and that the others are
// still being handled.
func (in *inbox[T]) acknowledge() {
	defer close(in.acked)
	every := in.remote.engine.info.Lease / 3
	if every <= 0 {
		every = time.Hour
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-in.news:
			in.ack()
		case <-tick.C:
			in.extend()
		case <-in.over:
			in.ack()
			return
		}
	}
}

func (in *inbox[T]) ack() {
	in.mu.Lock()
	done := in.done
	in.done = nil
	in.mu.Unlock()
	if len(done) == 0 {
		return
	}
	ctx := &lazyContext{make: func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), engineTimeout)
	}}
	defer ctx.end()
	if err := in.sub.Ack(ctx, done); err != nil { // the messages will come again
		in.remote.engine.lost(in.local.core.bus, fmt.Errorf("acknowledge to %s: %w", in.name(), err))
	}
}

func (in *inbox[T]) extend() {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	_ = in.sub.Extend(ctx) // if this fails, messages come again, which at-least-once allows
}
