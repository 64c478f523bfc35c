package hark

import (
	"context"
	"sync"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/exec"
)

// remoteNotifier connects a notifier to those of other processes. A
// notification reaches listeners in this process directly, and the others
// through the engine. Latches belong to the engine: they change here only when
// it says so, so that all processes see the changes of a latch in the same
// order.
type remoteNotifier struct {
	n     *Notifier
	conn  driver.Signals
	drops exec.Task // a remoteDrops

	opening   sync.Mutex // guards listening while it may become true
	listening bool
}

// signals returns the engine's signals for the notifications of the bus; nil in
// process.
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

// listen starts receiving signals, once.
func (r *remoteNotifier) listen() error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.listening {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if err := r.conn.Listen(ctx, r.n.accept); err != nil {
		return engineError(err)
	}
	r.listening = true
	return nil
}

// notify signals everyone a means in other processes. here is the number
// reached in this one. It returns the results of Notify.
func (r *remoteNotifier) notify(ctx context.Context, a *address, here int) (int, error) {
	if a.single && here > 0 {
		return here, nil // there is only one, and it is here
	}
	there, err := r.conn.Notify(ctx, a.text)
	if err != nil {
		return here + there, fail("notify", a.text, remoteError(ctx, err))
	}
	return here + there, nil
}

// latch is Latch for a name that has been checked.
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

// remoteError converts the engine's error of a call to one of hark's.
func remoteError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return engineError(err)
}

// room waits until the listeners that a means have room for a signal, if their
// policy is to wait.
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

// accept takes a signal from another process, or a change of a latch from any
// process. It does not block.
func (n *Notifier) accept(s driver.Signal) (reached int) {
	a, err := targetOf(s.Target, hashName(s.Target))
	if err != nil || s.Latch && (a.wild || a.single) {
		return 0 // Notify and Latch send nothing like this
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

// refusesLocked reports whether the listener's policy is Block or Fail and it
// has no room for a signal from outside. If so, it counts the signal as
// dropped.
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

// remoteDrops reports drops. It is a task because the engine must not wait for
// hooks.
type remoteDrops remoteNotifier

// Run implements exec.Runner.
func (r *remoteDrops) Run() (more bool) {
	r.n.reportDrops()
	return false
}
