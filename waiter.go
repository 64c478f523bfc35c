package hark

import (
	"context"
	"fmt"
	"sync/atomic"
)

// waiter is a call of Wait or WaitAny.
type waiter struct {
	sleeper              // woken by whoever decides how the wait ends
	left    atomic.Int32 // names to go
	over    atomic.Bool  // that is decided
	// Set by whoever decided, before it wakes.
	name  string
	err   error
	wants []want
	next  *waiter // in Notifier.spare
}

// want is one name that a waiter waits for. It is guarded by the lock of the
// shard of the name.
type want struct {
	waiter     *waiter
	address    *address
	group      *group // nil once it is satisfied, or if it never had to be
	next, prev *want  // in group.wants
}

// end decides how the wait ends, and reports whether that was still open.
func (w *waiter) end(name string, err error) bool {
	if w.over.Swap(true) {
		return false
	}
	w.name, w.err = name, err
	w.wake()
	return true
}

// satisfied notes that one more name has come, and reports whether the wait was
// still going on.
func (w *waiter) satisfied(name string) bool {
	if w.over.Load() {
		return false
	}
	return w.left.Add(-1) != 0 || w.end(name, nil)
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
	w := n.waiter(len(names), count)
	if err := w.parse(names); err != nil {
		n.release(w)
		return "", fail("wait", "", err)
	}
	if err := n.refuses(ctx); err != nil {
		n.release(w)
		return "", fail("wait", names[0], err)
	}
	n.waiters.Add(1)
	for i := range w.wants {
		n.want(&w.wants[i], w)
	}
	woken := w.sleep(ctx)
	if !woken && w.over.Swap(true) {
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
	n.waiters.Add(-1)
	n.release(w) // nobody refers to it any more
	if err != nil {
		return "", fail("wait", names[0], err)
	}
	return name, nil
}

// parse finds out what the names stand for.
func (w *waiter) parse(names []string) error {
	for i, name := range names {
		// Names are targets too, and those have been parsed, as a rule.
		a, err := targetOf(name, hashName(name))
		if err == nil && (a.wild || a.single) {
			_, err = parseName(name)
		}
		if err != nil {
			return err
		}
		w.wants[i].address = a
	}
	return nil
}

const (
	spareWaiters = 64 // kept for use again
	spareWants   = 16 // that one of them may have
)

// waiter returns a waiter for that many names, of which count must come.
func (n *Notifier) waiter(names, count int) *waiter {
	n.spareMu.Lock()
	w := n.spare
	if w != nil {
		n.spare, w.next = w.next, nil
		n.spares--
	}
	n.spareMu.Unlock()
	if w == nil {
		w = &waiter{sleeper: newSleeper()}
	}
	if cap(w.wants) < names {
		w.wants = make([]want, names)
	}
	w.wants = w.wants[:names]
	w.left.Store(int32(count))
	return w
}

// release gives w back, once nobody refers to it any more.
func (n *Notifier) release(w *waiter) {
	clear(w.wants)
	if cap(w.wants) > spareWants {
		w.wants = nil
	}
	w.reset()
	w.over.Store(false)
	w.name, w.err = "", nil
	n.spareMu.Lock()
	defer n.spareMu.Unlock()
	if n.spares < spareWaiters {
		w.next, n.spare = n.spare, w
		n.spares++
	}
}

// want lets w wait for the name in t, unless that is latched.
func (n *Notifier) want(t *want, w *waiter) {
	s := &n.shards[t.address.shard]
	t.waiter = w
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.state.Load() == stopped {
		w.end("", errBusClosed)
		return
	}
	g := n.groupLocked(t.address)
	if g.latched || g.owner.bare.latched {
		w.satisfied(g.name())
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
			t.waiter.end("", cause)
			t = next
		}
		n.tidyLocked(s, g)
	})
}
