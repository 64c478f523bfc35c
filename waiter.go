package hark

import (
	"context"
	"fmt"
	"sync/atomic"
)

// waiter is a call of Wait or WaitAny.
type waiter struct {
	sleeper              // woken by whoever decides how the wait ends
	left    atomic.Int32 // names to go, 0 once that is decided
	// Set by whoever decided, before it wakes.
	name  string
	err   error
	wants []want
	next  *waiter // in shard.waiters
}

// want is one name that a waiter waits for. It is guarded by the lock of the
// shard of the name.
type want struct {
	waiter     *waiter
	address    *address
	group      *group // nil once it is satisfied, or if it never had to be
	next, prev *want  // in group.wants
}

// decide reports whether it is the caller who decides how the wait ends; it was
// still going on then.
func (w *waiter) decide() bool { return w.left.Swap(0) > 0 }

// end ends the wait, if it is still going on.
func (w *waiter) end(err error) {
	if w.decide() {
		w.err = err
		w.wake()
	}
}

// satisfied notes that one more name has come, and reports whether the wait was
// still going on.
func (w *waiter) satisfied(name string) bool {
	for {
		left := w.left.Load()
		if left == 0 {
			return false
		}
		if w.left.CompareAndSwap(left, left-1) {
			if left == 1 {
				w.name = name
				w.wake()
			}
			return true
		}
	}
}

// Wait waits until each of the names has been notified, or latched, at some
// moment since the call began; one that is latched already counts. Names are as
// for Register: a notification of a type or pattern reaches those who wait for
// one of its methods or names, and each name that comes so counts as reached.
//
// To miss nothing that may have happened before the call use Latch, or a
// listener, which stays. When ctx ends first Wait returns its cause, when the
// bus closes ErrClosed.
func (n *Notifier) Wait(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := n.await(ctx, names, len(names))
	return err
}

// WaitAny waits like Wait until one of the names has come, and returns it.
func (n *Notifier) WaitAny(ctx context.Context, names ...string) (string, error) {
	if len(names) == 0 {
		return "", fail("wait", "", fmt.Errorf("%w: no name to wait for", ErrInvalidOption))
	}
	return n.await(ctx, names, 1)
}

func (n *Notifier) await(ctx context.Context, names []string, count int) (string, error) {
	if ctx.Err() != nil {
		return "", fail("wait", names[0], context.Cause(ctx))
	}
	var room [4]*address
	addresses := room[:0]
	for _, name := range names {
		a, err := nameOf(name)
		if err != nil {
			return "", fail("wait", "", err)
		}
		addresses = append(addresses, a)
	}
	if err := n.refuses(ctx); err != nil {
		return "", fail("wait", names[0], err)
	}
	w := n.enlist(addresses, count)
	woken := w.sleep(ctx)
	if !woken && !w.decide() {
		w.wait() // it ended at the same moment
		woken = true
	}
	name, err := w.name, w.err
	if !woken {
		err = context.Cause(ctx)
	}
	if err != nil || count < len(names) {
		for i := range w.wants {
			n.unwant(&w.wants[i])
		}
	}
	n.release(w) // nobody refers to it any more
	if err != nil {
		return "", fail("wait", names[0], err)
	}
	return name, nil
}

// nameOf returns the address of a name to wait for.
func nameOf(name string) (*address, error) {
	// Names are targets too, and those have been parsed, as a rule.
	a, err := targetOf(name, hashName(name))
	if err == nil && (a.wild || a.single) {
		_, err = parseName(name)
	}
	return a, err
}

const (
	spareWaiters = 32 // kept by a shard for use again
	spareWants   = 16 // that one of them may have
)

// enlist returns a waiter that waits until count of the names have come.
func (n *Notifier) enlist(names []*address, count int) *waiter {
	s := &n.shards[names[0].shard]
	s.mu.Lock()
	w := s.waiterLocked(len(names))
	w.left.Store(int32(count))
	for i, a := range names {
		if i > 0 {
			s = &n.shards[a.shard]
			s.mu.Lock()
		}
		t := &w.wants[i]
		t.waiter, t.address = w, a
		n.wantLocked(s, t)
		s.mu.Unlock()
	}
	return w
}

// waiterLocked returns a waiter with room for that many names.
func (s *shard) waiterLocked(names int) *waiter {
	w := s.waiters
	if w != nil {
		s.waiters, w.next = w.next, nil
		s.spares--
	} else {
		w = &waiter{sleeper: newSleeper()}
	}
	if cap(w.wants) < names {
		w.wants = make([]want, names)
	}
	w.wants = w.wants[:names]
	return w
}

// release gives w back, once nobody refers to it any more.
func (n *Notifier) release(w *waiter) {
	s := &n.shards[w.wants[0].address.shard]
	clear(w.wants)
	if cap(w.wants) > spareWants {
		w.wants = nil
	}
	w.name, w.err = "", nil
	w.reset()
	s.mu.Lock()
	if s.spares < spareWaiters {
		w.next, s.waiters = s.waiters, w
		s.spares++
	}
	s.mu.Unlock()
}

// wantLocked lets the waiter of t wait for its name, unless that is latched.
func (n *Notifier) wantLocked(s *shard, t *want) {
	if n.state.Load() == stopped {
		t.waiter.end(errBusClosed)
		return
	}
	g := n.groupLocked(t.address)
	if g.latched || g.owner.bare.latched {
		t.waiter.satisfied(g.name())
		n.tidyLocked(s, g)
		return
	}
	t.group, t.next = g, g.wants
	if t.next != nil {
		t.next.prev = t
	}
	g.wants = t
}

// unwant takes t out, if it is still there.
func (n *Notifier) unwant(t *want) {
	s := &n.shards[t.address.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	g := t.group
	if g == nil {
		return
	}
	if t.prev == nil {
		g.wants = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.group = nil
	n.tidyLocked(s, g)
}

// satisfyLocked tells those who wait for the group, and returns how many.
func (g *group) satisfyLocked() (reached int) {
	name := g.name()
	for t := g.takeWants(); t != nil; {
		next := t.next
		t.group = nil
		if t.waiter.satisfied(name) {
			reached++
		}
		t = next
	}
	return reached
}

func (g *group) takeWants() *want {
	t := g.wants
	g.wants = nil
	return t
}

// endWaits makes all calls of Wait return cause.
func (n *Notifier) endWaits(cause error) {
	n.eachGroup(func(s *shard, g *group) {
		for t := g.takeWants(); t != nil; {
			next := t.next
			t.group = nil
			t.waiter.end(cause)
			t = next
		}
		n.tidyLocked(s, g)
	})
}
