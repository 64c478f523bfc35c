package hark

import (
	"context"
	"errors"
	"fmt"

	"github.com/harkbus/hark/driver"
)

// How messages of an engine get into the log of an inbox.

// pump receives messages until the subscription ends. That of a member of a group
// runs the worker itself if that sleeps, and acknowledges what it has done; when a
// handler takes long, another goroutine becomes the pump.
func (in *inbox[T]) pump(ctx context.Context) {
	mine := true
	defer func() {
		if mine {
			in.feeder.Release()
			close(in.pumped)
		}
	}()
	in.handOver()
	for ctx.Err() == nil {
		turn := in.nextTurn(ctx)
		room, err := in.room(turn)
		if err != nil {
			continue
		}
		ms, err := in.sub.Receive(turn, room)
		switch {
		case err != nil && turn.Err() != nil:
			continue
		case err != nil:
			in.ended = err
			if !errors.Is(err, driver.ErrEnded) {
				in.remote.engine.lost(in.local.core.bus, fmt.Errorf("subscription %s: %w", in.name(), err))
			}
			return
		}
		in.received.Add(uint64(len(ms)))
		in.claim()
		more := in.take(ctx, ms)
		mine = false // unless the handlers return
		if mine = in.serve(); !mine || !more {
			return
		}
	}
}

// claim makes the pump run the worker once it has put messages into the log.
func (in *inbox[T]) claim() {
	if !in.feeds || !in.feeder.Claim() {
		return
	}
	in.mu.Lock()
	in.serving = true
	in.mu.Unlock()
}

// serve runs the worker if it is claimed, and acknowledges what is done. It returns
// false if another goroutine has become the pump.
func (in *inbox[T]) serve() (mine bool) {
	if !in.feeder.Serve() {
		return false
	}
	if in.serving { // others only read it
		in.mu.Lock()
		in.serving = false
		in.mu.Unlock()
		in.ack()
	}
	return true
}

// release leaves the worker to others, because the pump has to wait.
func (in *inbox[T]) release() {
	in.feeder.Release()
	in.handOver()
}

// handOver lets the acknowledger acknowledge what the pump has not.
func (in *inbox[T]) handOver() {
	in.mu.Lock()
	serving := in.serving
	in.serving = false
	in.mu.Unlock()
	if serving {
		in.tell()
	}
}

// take puts messages into the log, and gives back those for which that is
// impossible. It reports whether the pump continues.
func (in *inbox[T]) take(ctx context.Context, ms []*driver.Received) bool {
	plain := 0
	for plain < len(ms) && in.isPlain(ms[plain]) {
		plain++
	}
	if n := in.enterPlain(ctx, ms[:plain]); n < plain {
		in.giveBack(ms[n:])
		return false
	}
	if plain == len(ms) {
		if r, ok := in.sub.(driver.Recycler); ok {
			r.Recycle(ms)
		}
		return true
	}
	ms = ms[plain:]
	var incomings []incoming
	if in.bounded == nil {
		incomings = make([]incoming, len(ms))
	}
	for i, m := range ms {
		var at *incoming
		if in.bounded == nil {
			at = &incomings[i]
		} else {
			m, at = alone(m)
		}
		if !in.enter(ctx, m, at) {
			in.giveBack(ms[i:])
			return false
		}
	}
	return true
}

// alone returns a copy of a message, with what it needs here, that keeps in memory none of
// those that came with it: it may stay long after they are done.
func alone(m *driver.Received) (*driver.Received, *incoming) {
	own := &struct {
		received driver.Received
		incoming incoming
	}{received: *m}
	return &own.received, &own.incoming
}

// isPlain reports whether a message has nothing but its value, so that it can
// be treated like one published in process. For a pattern no message is plain,
// since each carries its topic.
func (in *inbox[T]) isPlain(m *driver.Received) bool {
	return !in.stored && in.bounded == nil && !in.encoded && in.local.core.kind == KindTopic && m.Headers == nil && m.ID == "" && !m.HasKey && m.Time.IsZero() && m.Expires.IsZero() && m.Topic == in.local.core.name
}

// enterPlain puts plain messages into the log, and returns how many it put
// there before ctx ended.
func (in *inbox[T]) enterPlain(ctx context.Context, ms []*driver.Received) int {
	log := &in.local.log
	for i := 0; i < len(ms); {
		var err error
		n := log.AppendRun(len(ms)-i, func(slots []entry[T]) int {
			for k := range slots {
				e := &slots[k]
				if e.meta != nil {
					e.meta = nil
				}
				if err = in.decode(ms[i+k], &e.value); err != nil {
					e.value = *new(T)
					return k
				}
			}
			return len(slots)
		})
		switch i += n; {
		case err != nil:
			in.undecodable(ctx, &arrival{Received: ms[i], inbox: in}, nil, err)
			i++
		case n == 0:
			if !in.enterBare(ctx, ms[i]) {
				return i
			}
			i++
		}
	}
	return len(ms)
}

// enterBare puts a plain message into the log when there is room, and reports whether
// the pump continues.
func (in *inbox[T]) enterBare(ctx context.Context, m *driver.Received) bool {
	var e entry[T]
	if err := in.decode(m, &e.value); err != nil {
		in.undecodable(ctx, &arrival{Received: m, inbox: in}, nil, err)
		return true
	}
	return in.local.appendOrWait(ctx, &in.local.log, e) == nil
}

// nextTurn returns the context in which the pump receives, and answers those
// who want to know that it holds nothing.
func (in *inbox[T]) nextTurn(ctx context.Context) context.Context {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, ch := range in.asked {
		close(ch)
	}
	in.asked = nil
	if in.turn == nil || in.turn.Err() != nil {
		in.turn, in.interrupt = context.WithCancel(ctx)
	}
	return in.turn
}

// flushPump waits until everything that the pump has received is in the log.
// It returns false if ctx ends first.
func (in *inbox[T]) flushPump(ctx context.Context) bool {
	ch := make(chan struct{})
	in.mu.Lock()
	in.asked = append(in.asked, ch)
	if in.interrupt != nil {
		in.interrupt()
	}
	in.mu.Unlock()
	select {
	case <-ch:
	case <-in.pumped:
	case <-ctx.Done():
		return false
	}
	return true
}

// lost reports to the hooks that a subscription has permanently ended.
func (e *engine) lost(b *Bus, err error) {
	b.hooks.onConn(ConnEvent{Engine: e.info.Engine, Address: e.info.Address, Err: err})
}

// room waits until more messages may be in flight, and returns how many may be.
func (in *inbox[T]) room(ctx context.Context) (int, error) {
	for {
		in.mu.Lock()
		n := in.window - in.holds
		var wait chan struct{}
		if n <= 0 || in.oversizedLocked() {
			if in.hasRoom == nil {
				in.hasRoom = make(chan struct{})
			}
			wait = in.hasRoom
		}
		in.mu.Unlock()
		if wait == nil {
			return min(n, 256), nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// incoming holds what an arrival needs here.
type incoming struct {
	arrival arrival
	meta    meta
}

// enter puts a message into the log. It reports whether the pump continues.
func (in *inbox[T]) enter(ctx context.Context, m *driver.Received, at *incoming) bool {
	a := &at.arrival
	*a = arrival{Received: m, inbox: in}
	at.meta.fromEngine(m, a)
	e := entry[T]{meta: &at.meta}
	switch {
	case in.stored:
		in.hold(a)
	case in.bounded != nil:
		in.weigh(a)
	}
	if in.encoded && !in.wants(a) {
		return true
	}
	if err := in.decode(m, &e.value); err != nil {
		return in.undecodable(ctx, a, at.meta.failure, err)
	}
	if in.stored {
		return in.local.log.Force(e)
	}
	return in.local.appendOrWait(ctx, &in.local.log, e) == nil
}
