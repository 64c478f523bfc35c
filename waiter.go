package hark

import (
	"context"
	"fmt"
	"sync/atomic"
)

// waiter is a call of Wait or WaitAny.
type waiter struct {
	woken chan struct{} // gets one token
	left  atomic.Int32  // names to go
	over  atomic.Bool   // somebody has decided how it ends, and sends the token
	// Set by whoever decided, before the token.
	name string
	err  error
	one  [1]want
}

// want is one name that a waiter waits for. It is guarded by the lock of the
// shard of the name.
type want struct {
	waiter     *waiter
	address    *address
	group      *group // nil once it is satisfied, or if it never had to be
	next, prev *want  // in group.wants
}

// end decides how the wait ends, unless that is decided.
func (w *waiter) end(name string, err error) {
	if w.over.Swap(true) {
		return
	}
	w.name, w.err = name, err
	w.woken <- struct{}{}
}

// satisfied notes that one more name has come, and reports whether the wait was
// still going on.
func (w *waiter) satisfied(name string) bool {
	if w.over.Load() {
		return false
	}
	if w.left.Add(-1) == 0 {
		w.end(name, nil)
	}
	return true
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
	w := &waiter{woken: make(chan struct{}, 1)}
	w.left.Store(int32(count))
	wants := w.one[:]
	if len(names) > 1 {
		wants = make([]want, len(names))
	}
	for i, name := range names {
		// Names are targets too, and those have been parsed, as a rule.
		a, err := targetOf(name, hashName(name))
		if err == nil && (a.wild || a.single) {
			_, err = parseName(name)
		}
		if err != nil {
			return "", fail("wait", "", err)
		}
		wants[i].address = a
	}
	if err := n.refuses(ctx); err != nil {
		return "", fail("wait", names[0], err)
	}
	n.waiters.Add(1)
	defer n.waiters.Add(-1)
	for i := range wants {
		n.want(&wants[i], w)
	}
	var err error
	select {
	case <-w.woken:
		err = w.err
	default:
		select {
		case <-w.woken:
			err = w.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil || count < len(wants) {
		for i := range wants {
			n.unwant(&wants[i])
		}
	}
	if err != nil {
		return "", fail("wait", names[0], err)
	}
	return w.name, nil
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
		n.tidyLocked(s, g)
		w.satisfied(g.name())
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
