package hark

import (
	"context"
	"sync"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/exec"
)

// remoteNotifier connects a notifier with those of other processes. What is
// notified here reaches listeners here at once and the others through the
// engine. Latches are the engine's: here they change when it says so, so that
// all processes see the changes of one in the same order.
type remoteNotifier struct {
	n     *Notifier
	conn  driver.Signals
	drops exec.Task // a remoteDrops

	opening   sync.Mutex // guards listening, while that may become true
	listening bool
}

// signals returns what carries the notifications of the bus; nil in process.
func (b *Bus) signals() (driver.Signals, error) {
	if b.engine == nil {
		return nil, nil
	}
	conn, ok := b.engine.conn.(driver.Signals)
	if !ok {
		return nil, b.engine.refuse("notifications")
	}
	return conn, nil
}

func newRemoteNotifier(n *Notifier, conn driver.Signals) *remoteNotifier {
	r := &remoteNotifier{n: n, conn: conn}
	r.drops.Init(n.pool, (*remoteDrops)(r))
	return r
}

// listen begins to take signals, once.
func (r *remoteNotifier) listen() error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.listening {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.conn.Listen(ctx, r.n.accept); err != nil {
		return engineError(err)
	}
	r.listening = true
	return nil
}

// notify signals whom a means in other processes, after here were reached in
// this one, and returns what Notify does.
func (r *remoteNotifier) notify(ctx context.Context, a *address, here int) (int, error) {
	if a.single && here > 0 {
		return here, nil // there is but one
	}
	there, err := r.conn.Notify(ctx, a.text)
	if err != nil {
		return here + there, fail("notify", a.text, remoteError(ctx, err))
	}
	return here + there, nil
}

// latch is Latch once the name is known to be good.
func (r *remoteNotifier) latch(ctx context.Context, a *address) error {
	if err := r.n.refuses(ctx); err != nil {
		return err
	}
	if err := r.n.room(ctx, a); err != nil {
		return err
	}
	return r.store(ctx, a, true)
}

func (r *remoteNotifier) store(ctx context.Context, a *address, set bool) error {
	if err := r.conn.Latch(ctx, a.text, set); err != nil {
		return remoteError(ctx, err)
	}
	return nil
}

// remoteError makes the engine's error of a call one of hark's.
func remoteError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return engineError(err)
}

// room waits until the listeners that a means have room for a signal, where
// they want to be waited for.
func (n *Notifier) room(ctx context.Context, a *address) error {
	for {
		_, strict := n.lock(a)
		var full *Listener
		if strict && !n.latchedLocked(a) {
			full = n.fullLocked(a)
		}
		n.unlock(a)
		if full == nil {
			return nil
		}
		if full.queue.policy == Fail {
			return ErrFull
		}
		if forced, err := full.awaitRoom(ctx); forced || err != nil {
			return err
		}
	}
}

// accept takes a signal of another process, or the change of a latch by any. It
// does not block.
func (n *Notifier) accept(s driver.Signal) (reached int) {
	a, err := targetOf(s.Target, hashName(s.Target))
	if err != nil || s.Latch && (a.wild || a.single) {
		return 0 // nothing that Notify or Latch sends
	}
	if s.Latch && !s.Set {
		n.unlatch(a)
		return 0
	}
	first, _ := n.lock(a)
	state := n.state.Load()
	if state == stopped || state == sealed && !s.Latch || s.Latch && !n.latchLocked(a) {
		n.unlock(a)
		return 0
	}
	reached = n.deliverLocked(a, true)
	if reached > 0 {
		first.notified++
	}
	n.unlock(a)
	if n.dropped.Load() {
		n.remote.drops.Notify()
	}
	return reached
}

// refusesLocked reports whether the listener, which others would wait for, has
// no room for a signal from outside, and then counts it as dropped.
func (l *Listener) refusesLocked() bool {
	most := l.queue.buffer
	switch {
	case l.queue.policy != Block && l.queue.policy != Fail || most == Unbounded:
		return false
	case l.queue.policy == Block:
		most += maxOvergrown
	}
	if l.waitingLocked() < most {
		return false
	}
	l.tally.notified++
	l.dropLocked(1)
	return true
}

// remoteDrops is a task, because the engine must not wait for hooks.
type remoteDrops remoteNotifier

// Run implements exec.Runner.
func (r *remoteDrops) Run() (more bool) {
	r.n.reportDrops()
	return false
}
