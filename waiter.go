package hark

import (
	"context"
	"fmt"
	"sync/atomic"
)

// waiter is a call of Wait or WaitAny. Whoever decides how the wait ends
// records the outcome and wakes the waiter. For one name, that is whoever
// removes its want while holding the shard's lock. For several names, it is
// whoever sets left to 0.
type waiter struct {
	sleeper
	left  atomic.Int32 // names still missing, if there are several
	name  string       // the last name that came, if there are several
	err   error
	wants []want
	one   [1]want // backing array of wants for one name
}

// want is one name that a waiter waits for. The lock of the name's shard guards
// it.
type want struct {
	waiter     *waiter
	address    *address
	group      *group // nil once satisfied, or if there was nothing to wait for
	next, prev *want  // in group.wants
}

// single reports whether the waiter waits for one name.
func (w *waiter) single() bool { return len(w.wants) == 1 }

// decide reports whether the caller decides how a wait for several names ends,
// because no one has decided before.
func (w *waiter) decide() bool { return w.left.Swap(0) > 0 }

// endLocked ends the wait, unless it has already ended.
func (w *waiter) endLocked(s *shard, err error) {
	switch {
	case w.single():
		w.err = err
		s.wakeLocked(w)
	case w.decide():
		w.err = err
		w.wake()
	}
}

// satisfiedLocked records that t's name has come, and reports whether the wait
// was still going on.
func (t *want) satisfiedLocked(s *shard) bool {
	w := t.waiter
	if w.single() {
		s.wakeLocked(w)
		return true
	}
	for {
		left := w.left.Load()
		if left == 0 {
			return false
		}
		if w.left.CompareAndSwap(left, left-1) {
			if left == 1 {
				w.name = t.address.text
				w.wake()
			}
			return true
		}
	}
}

// wakeLocked wakes a waiter for one name.
func (s *shard) wakeLocked(w *waiter) {
	asleep := w.rouse()
	s.waiters.push(w)
	if asleep {
		w.call()
	}
}

// Wait waits until each of the names has been notified, or latched, at some
// moment since the call began; a name that is latched already counts. Names are
// as for Register: a notification of a type or pattern reaches calls that wait
// for one of its methods or names, and each of those counts as reached.
//
// To catch what may have happened before the call, use Latch, or a listener,
// which stays. If ctx ends first Wait returns its cause; if the bus closes,
// ErrClosed.
func (n *Notifier) Wait(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := n.await(ctx, names, len(names))
	return err
}

// WaitAny waits like Wait until any one of the names has been notified or
// latched, and returns it.
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
	if !woken && !n.giveUp(w) {
		w.wait() // it ended at the same moment
		woken = true
	}
	name, err := w.name, w.err
	if !woken {
		err = context.Cause(ctx)
	}
	if len(names) == 1 {
		name = names[0]
	} else if err != nil || count < len(names) {
		for i := range w.wants {
			n.unwant(&w.wants[i])
		}
	}
	w.name, w.err = "", nil
	if len(names) > 1 || !woken {
		n.putAside(w)
	}
	w.reset() // w may be reused from here on
	if err != nil {
		return "", fail("wait", names[0], err)
	}
	return name, nil
}

// giveUp ends the wait because its context has ended. It returns false if
// someone else has decided the wait.
func (n *Notifier) giveUp(w *waiter) bool {
	if w.single() {
		return n.unwant(&w.wants[0])
	}
	return w.decide()
}

// nameOf returns the address of a name to wait for.
func nameOf(name string) (*address, error) {
	// Names are also targets, which have usually been parsed already.
	a, err := targetOf(name, hashName(name))
	if err == nil && (a.wild || a.single) {
		_, err = parseName(name)
	}
	return a, err
}

// enlist returns a waiter that waits until count of the names have come.
func (n *Notifier) enlist(names []*address, count int) *waiter {
	s := &n.shards[names[0].shard]
	s.mu.Lock()
	w := s.waiterLocked(len(names))
	if len(names) > 1 {
		w.left.Store(int32(count))
	}
	for i, a := range names {
		if i > 0 {
			s = &n.shards[a.shard]
			s.mu.Lock()
		}
		t := &w.wants[i]
		t.waiter, t.address, t.group, t.next, t.prev = w, a, nil, nil, nil
		n.wantLocked(s, t)
		s.mu.Unlock()
	}
	return w
}

// waiterLocked returns a waiter for the given number of names.
func (s *shard) waiterLocked(names int) *waiter {
	w, ok := s.waiters.pop()
	if !ok {
		w = &waiter{sleeper: newSleeper()}
	}
	w.wants = w.one[:]
	if names > 1 {
		w.wants = make([]want, names)
	}
	return w
}

// putAside makes w available for reuse after it has been reset. No one else
// refers to it any more.
func (n *Notifier) putAside(w *waiter) {
	s := &n.shards[w.wants[0].address.shard]
	s.mu.Lock()
	s.waiters.push(w)
	s.mu.Unlock()
}

// wantLocked makes t's waiter wait for its name, unless the name is latched.
func (n *Notifier) wantLocked(s *shard, t *want) {
	if n.state.Load() == stopped {
		t.waiter.endLocked(s, errBusClosed)
		return
	}
	g := n.groupLocked(t.address)
	if g.latched || g.owner.bare.latched {
		t.satisfiedLocked(s)
		n.tidyLocked(s, g)
		return
	}
	t.group, t.next = g, g.wants
	if t.next != nil {
		t.next.prev = t
	}
	g.wants = t
}

// unwant removes t, and reports whether it was still there.
func (n *Notifier) unwant(t *want) bool {
	s := &n.shards[t.address.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	g := t.group
	if g == nil {
		return false
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
	return true
}

// satisfyLocked tells the waiters of the group, and returns their number.
func (g *group) satisfyLocked(s *shard) (reached int) {
	for t := g.takeWants(); t != nil; {
		next := t.next // t may be reused once it is satisfied
		t.group = nil
		if t.satisfiedLocked(s) {
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
			t.waiter.endLocked(s, cause)
			t = next
		}
		n.tidyLocked(s, g)
	})
}
