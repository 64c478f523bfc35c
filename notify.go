package hark

import (
	"context"
	"slices"

	"github.com/harkbus/hark/internal/names"
)

// Notify signals everyone that the target reaches. It returns how many
// listeners, and names that calls of Wait wait for, it reached; reaching none is
// not an error. The target is
//
//   - a name, "orders.placed", or a type with all its methods,
//     "counter.Counter"
//   - one method of a type, "counter.Counter#OnIncrement", or a function of a
//     package, "counter#OnIncrement"
//   - one listener, as Listener.ID returns it
//   - a pattern of names or types, "orders.*", ">", and in front of a method:
//     "*.Counter#OnIncrement". A pattern looks at every name there is.
//
// Notify does not wait for listeners, and may be called from them. The exception
// is listeners with EachSignal and Overflow(Block): if one has no room, nobody
// is reached until it has, or until ctx ends and Notify returns its cause. If
// Notify would have to wait for the very listener that calls it, directly or
// through other handlers, the signal is let in beyond the buffer; past 65,536
// such signals Notify returns ErrWouldDeadlock. If a listener with
// Overflow(Fail) has no room, nobody is reached and Notify returns ErrFull.
//
// Over an engine, Notify first signals the listeners of this process, as
// described above, and then those of the others. It waits for the answers of the
// other processes, about as long as a message and its answer take, until ctx
// ends, or at most two seconds. A process that does not answer in time is
// signalled but not counted, and Notify does not wait for it again before it has
// been heard of. While the connection is down Notify waits for it, at most until
// ctx ends. An error then says that other processes were not reached, or that this is not
// known, and the count is that of this process. Listeners of other processes
// hold up nobody: one with Overflow(Block) takes up to 65,536 signals beyond its
// buffer, and signals beyond that, or without room under Overflow(Fail), are
// dropped there and counted. Signals of one process arrive in the order it sent
// them.
//
// If ctx has already ended, nobody is notified. Once the bus is being closed
// only handlers may notify, and others get ErrClosed.
func (n *Notifier) Notify(ctx context.Context, target string) (reached int, err error) {
	if ctx.Err() != nil {
		return 0, fail("notify", target, context.Cause(ctx))
	}
	h := hashName(target)
	a := targets[h%targetSlots].Load()
	if a == nil || a.text != target {
		if a, err = targetOf(target, h); err != nil {
			return 0, fail("notify", "", err)
		}
	}
	if !a.wild && n.present[a.slot].Load() == 0 && n.state.Load() == open && n.remote == nil {
		return 0, nil
	}
	if reached, err = n.send(ctx, a, false); err != nil {
		return 0, fail("notify", target, err)
	}
	if n.remote == nil {
		return reached, nil
	}
	return n.remote.notify(ctx, a, reached)
}

// Latch notifies the name and makes that last. Until Unlatch, listeners
// registered under it get a signal at once, and calls of Wait for it do not
// wait. Latching a type latches all its methods. If the name is latched already,
// Latch does nothing and signals nobody.
//
// It waits and fails as Notify does, and then has not latched the name. The name
// must not be a pattern or a listener's ID.
//
// Over an engine a latch holds in all processes, including those that come
// later, until someone ends it, even if the process that set it is gone. Latch
// returns when the latch is stored and holds here; after an error other than
// ErrFull it may be stored nevertheless. Another process that sees several
// changes at once may signal its listeners only for the last. An engine that
// stores nothing returns ErrUnsupported.
func (n *Notifier) Latch(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return fail("latch", name, context.Cause(ctx))
	}
	a, err := parseName(name)
	if err != nil {
		return fail("latch", "", err)
	}
	if n.remote != nil {
		err = n.remote.latch(ctx, &a)
	} else {
		_, err = n.send(ctx, &a, true)
	}
	if err != nil {
		return fail("latch", name, err)
	}
	return nil
}

// Unlatch ends Latch. A name that is not latched is left alone.
func (n *Notifier) Unlatch(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return fail("unlatch", name, context.Cause(ctx))
	}
	a, err := parseName(name)
	if err != nil {
		return fail("unlatch", "", err)
	}
	if err = n.refuses(ctx); err == nil {
		if n.remote != nil {
			err = n.remote.store(ctx, &a, false)
		} else {
			n.unlatch(&a)
		}
	}
	if err != nil {
		return fail("unlatch", name, err)
	}
	return nil
}

func (n *Notifier) unlatch(a *address) {
	s := &n.shards[a.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.find(a); g != nil {
		g.latched = false
		n.tidyLocked(s, g)
	}
}

// find returns the group of a's name or method, or nil.
func (s *shard) find(a *address) *group {
	o := s.owner(a.owner)
	switch {
	case o == nil:
		return nil
	case a.member == "":
		return &o.bare
	}
	return o.methods[a.member]
}

// send signals everyone a means. If latch is true, it also latches a.
func (n *Notifier) send(ctx context.Context, a *address, latch bool) (reached int, err error) {
	if n.state.Load() != open {
		if err := n.refuses(ctx); err != nil {
			return 0, err
		}
	}
	first, strict := n.lock(a)
	if latch && n.latchedLocked(a) {
		n.unlock(a)
		return 0, nil
	}
	for forced := false; strict; {
		full := n.fullLocked(a)
		if full == nil || forced && full.queue.policy == Block {
			break
		}
		n.unlock(a)
		if full.queue.policy == Fail {
			return 0, ErrFull
		}
		if forced, err = full.awaitRoom(ctx); err != nil {
			return 0, err
		}
		_, strict = n.lock(a)
	}
	if n.state.Load() == stopped {
		n.unlock(a)
		return 0, errBusClosed
	}
	if latch && !n.latchLocked(a) {
		n.unlock(a)
		return 0, nil
	}
	reached = n.deliverLocked(a, false)
	if reached > 0 {
		first.notified++
	} else if first.idle != nil {
		n.endRestLocked(first) // so that notifying no one again takes no lock
	}
	n.unlock(a)
	n.reportDrops()
	return reached, nil
}

// latchLocked latches the name. It returns false if the name was already
// latched.
func (n *Notifier) latchLocked(a *address) bool {
	g := n.groupLocked(a)
	was := g.latched
	g.latched = true
	return !was
}

// latchedLocked reports whether the name itself is latched.
func (n *Notifier) latchedLocked(a *address) bool {
	g := n.shards[a.shard].find(a)
	return g != nil && g.latched
}

// lock locks the shards that a may be in. It returns the first of them, and
// whether any of them has strict listeners.
func (n *Notifier) lock(a *address) (first *shard, strict bool) {
	if !a.wild {
		s := &n.shards[a.shard]
		s.mu.Lock()
		return s, s.strict > 0
	}
	for i := range n.shards {
		n.shards[i].mu.Lock()
		strict = strict || n.shards[i].strict > 0
	}
	return &n.shards[0], strict
}

func (n *Notifier) unlock(a *address) {
	if !a.wild {
		n.shards[a.shard].mu.Unlock()
		return
	}
	for i := range n.shards {
		n.shards[i].mu.Unlock()
	}
}

// deliverLocked signals everyone a means. A signal from outside the process
// cannot wait for room: it is dropped where others would wait.
func (n *Notifier) deliverLocked(a *address, outside bool) (reached int) {
	s := &n.shards[a.shard]
	if a.single {
		l := s.single(a)
		if l == nil || outside && l.refusesLocked() {
			return 0
		}
		l.offerLocked(Signal{a.text, 1})
		return 1
	}
	if a.wild {
		n.visitLocked(a, func(s *shard, g *group) { reached += n.signalLocked(s, g, a, outside) })
		return reached
	}
	o := s.owner(a.owner)
	switch {
	case o == nil:
	case a.member == "":
		reached = n.signalLocked(s, &o.bare, a, outside)
		if len(o.methods) > 0 {
			for _, g := range o.methods {
				reached += n.signalLocked(s, g, a, outside)
			}
		}
	default:
		if g := o.methods[a.member]; g != nil {
			reached = n.signalLocked(s, g, a, outside)
		}
	}
	return reached
}

// signalLocked signals everyone in the group.
func (n *Notifier) signalLocked(s *shard, g *group, a *address, outside bool) (reached int) {
	reached = len(g.listeners)
	for _, l := range g.listeners {
		if outside && l.refusesLocked() {
			reached--
			continue
		}
		l.offerLocked(Signal{a.text, 1})
	}
	if g.wants != nil {
		reached += g.satisfyLocked(s)
		n.restLocked(s, g)
	}
	return reached
}

// single returns the listener that a means, or nil.
func (s *shard) single(a *address) *Listener {
	l := s.ids[a.id]
	if l == nil || l.group.owner.name != a.owner || l.group.method != a.member {
		return nil
	}
	return l
}

// visitLocked calls f for each group that a means. f may remove the group.
func (n *Notifier) visitLocked(a *address, f func(*shard, *group)) {
	if !a.wild {
		s := &n.shards[a.shard]
		if o := s.owner(a.owner); o != nil {
			o.visit(s, a, f)
		}
		return
	}
	for i := range n.shards {
		s := &n.shards[i]
		for _, o := range s.owners {
			if names.Match(a.owner, o.name) {
				o.visit(s, a, f)
			}
		}
	}
}

func (o *owner) visit(s *shard, a *address, f func(*shard, *group)) {
	if a.member != "" {
		if g := o.methods[a.member]; g != nil {
			f(s, g)
		}
		return
	}
	f(s, &o.bare)
	for _, g := range o.methods {
		f(s, g)
	}
}

// fullLocked returns a listener that has no room for a signal to a and whose
// policy is Fail or Block. One with Fail takes precedence.
func (n *Notifier) fullLocked(a *address) (full *Listener) {
	look := func(l *Listener) {
		switch {
		case l.queue.policy != Block && l.queue.policy != Fail || !l.fullLocked():
		case full == nil || l.queue.policy == Fail:
			full = l
		}
	}
	if a.single {
		if l := n.shards[a.shard].single(a); l != nil {
			look(l)
		}
		return full
	}
	n.visitLocked(a, func(s *shard, g *group) {
		if s.strict == 0 {
			return
		}
		for _, l := range g.listeners {
			look(l)
		}
	})
	return full
}

// awaitRoom waits until the listener may have room, or ctx ends. If it would
// wait for the caller itself, it returns at once with forced set: the signal
// must be let in beyond the buffer.
func (l *Listener) awaitRoom(ctx context.Context) (forced bool, err error) {
	waits := l.n.waits
	l.shard.mu.Lock()
	core := l.call.coreLocked()
	l.shard.mu.Unlock()
	from := handlerOf(ctx)
	if from == nil && inHandler() || from != nil && !waits.enter(from, core) {
		l.shard.mu.Lock()
		defer l.shard.mu.Unlock()
		if l.call.waiting.len() >= l.queue.buffer+maxOvergrown {
			return false, ErrWouldDeadlock
		}
		return true, nil
	}
	if from != nil {
		defer waits.leave(from, core)
	}
	l.shard.mu.Lock()
	if l.closed || !l.fullLocked() {
		l.shard.mu.Unlock()
		return false, nil
	}
	room := make(chan struct{})
	l.call.rooms = append(l.call.rooms, room)
	l.shard.mu.Unlock()
	select {
	case <-room:
		return false, nil
	case <-ctx.Done():
	}
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	l.call.rooms = slices.DeleteFunc(l.call.rooms, func(c chan struct{}) bool { return c == room })
	return false, context.Cause(ctx)
}

// reportDrops reports the drops since the last call to the hooks. No lock is
// held.
func (n *Notifier) reportDrops() {
	if !n.dropped.Load() || !n.dropped.Swap(false) {
		return
	}
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		var events []DropEvent
		for _, l := range s.dropping {
			e := DropEvent{Source: l.source(), Count: l.unreported, Reason: DropOverflow}
			if l.closed {
				e.Reason = DropClosed
			}
			l.unreported = 0
			events = append(events, e)
		}
		s.dropping = nil
		s.mu.Unlock()
		for _, e := range events {
			n.hooks.onDrop(e)
		}
	}
}
