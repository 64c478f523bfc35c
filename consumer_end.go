package hark

import (
	"context"
	"slices"
)

// How a consumer becomes idle, and how it ends.

// idle reports whether every message so far is done, or will not be because
// there is no member to handle it.
func (c *consumer[T]) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined == nil {
		return true
	}
	done := c.done()
	waiting, passed := c.countsLocked()
	return waiting == 0 && done == passed
}

// settle waits until the consumer is idle or ctx ends.
func (c *consumer[T]) settle(ctx context.Context) {
	if c.idle() { // makes no channel
		return
	}
	for {
		c.mu.Lock()
		r := c.need()
		if r.idler == nil {
			r.idler = make(chan struct{})
			c.watched.Store(true)
		}
		idler := r.idler
		c.mu.Unlock()
		if c.over.Load() || c.idle() {
			return
		}
		select {
		case <-idler:
		case <-ctx.Done():
			return
		}
	}
}

// ended returns a channel that is closed when the consumer has ended.
func (c *core) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.need()
	if r.gone == nil {
		r.gone = make(chan struct{})
		if c.over.Load() {
			close(r.gone)
		}
	}
	return r.gone
}

// tellIdle wakes those who wait for idleness.
func (c *core) tellIdle() {
	if !c.watched.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.need(); r.idler != nil {
		close(r.idler)
		r.idler = nil
		c.watched.Store(false)
	}
}

// lasting reports whether the consumer remains after its last member has left:
// a group on a stored topic keeps its place.
func (c *core) lasting() bool { return c.grouped && c.stored }

// lastToLeave records that m is about to leave, and reports whether no other
// member remains. In that case no one can join any more, unless the consumer
// outlives its last member.
func (c *consumer[T]) lastToLeave(m *member[T]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.state.Or(memberLeaving)
	last := false
	for other := range c.members {
		if other == m {
			last = true
		} else if other.state.Load()&(memberLeaving|memberClosed) == 0 {
			return false
		}
	}
	c.closing = c.closing || last && !c.lasting()
	return last
}

// finish makes the messages that are there now the last ones.
func (c *consumer[T]) finish() {
	c.finishSources() // first: once it is untapped, another consumer gets what is published
	c.leaveTopics()
	c.finishSources() // for publishers that have come meanwhile
}

func (c *consumer[T]) finishSources() {
	c.mu.Lock()
	sources := slices.Collect(c.sources)
	c.mu.Unlock()
	for _, src := range sources {
		src.finish()
	}
}

// remove removes a member. With its last member an ephemeral consumer ends: its
// sources are detached, and what was not done is counted as dropped and
// returned.
func (c *consumer[T]) remove(m *member[T]) Left {
	c.mu.Lock()
	at := &c.joined
	for *at != nil && *at != m {
		at = &(*at).peer
	}
	if *at == nil {
		c.mu.Unlock()
		return Left{}
	}
	*at = m.peer
	c.setWakersLocked()
	last := c.joined == nil
	ends := last && !c.lasting()
	c.closing = c.closing || ends
	c.mu.Unlock()
	if ends {
		return c.end()
	}
	c.wake()
	c.tellIdle() // without members it has nothing to do
	return Left{}
}

// end permanently detaches the consumer from its topic.
func (c *consumer[T]) end() Left {
	c.leaveTopics()
	c.mu.Lock()
	if c.over.Load() {
		c.mu.Unlock()
		return Left{}
	}
	left := c.leftLocked()
	c.over.Store(true)
	sources := slices.Collect(c.sources)
	c.node = nil
	for _, src := range sources {
		_, passed := src.lag()
		c.passed += passed
	}
	// Pending messages have already been passed; those in the log have not.
	c.lost(DropClosed, uint64(c.pending.len()))
	inLog := uint64(left.Waiting - (c.pending.len() - c.pending.attempts()))
	c.passed += inLog
	c.lost(DropClosed, inLog)
	if c.pending != nil && c.pending.timer != nil {
		c.pending.timer.Stop()
	}
	c.pending = nil
	if r := c.rare.Load(); r != nil && r.gone != nil {
		close(r.gone)
	}
	c.mu.Unlock()
	for _, src := range sources {
		src.detach()
	}
	c.report()
	c.tellIdle()
	return left
}

// leftLocked returns the messages that are not done.
func (c *consumer[T]) leftLocked() Left {
	s := c.statsLocked()
	return Left{
		Kind: c.kind, Name: c.name, Subscription: c.subscription(),
		Waiting: int(s.Waiting), InFlight: int(s.InFlight), Retrying: int(s.Retrying),
	}
}

// stop ends the consumer when its bus closes. It cancels the contexts of the
// handlers and waits for them until ctx ends.
func (c *consumer[T]) stop(ctx context.Context, cause error) Left {
	quiet := c.cancel(cause)
	await(ctx, quiet)
	left := c.end()
	if len(quiet) == 0 { // what waits for a group without members belongs to its topic
		return Left{}
	}
	return left
}

// cancel halts the members and cancels their contexts. It returns channels that
// are closed when their workers have stopped.
func (c *consumer[T]) cancel(cause error) (quiet []chan struct{}) {
	c.mu.Lock()
	members := slices.Collect(c.members)
	c.mu.Unlock()
	for _, m := range members {
		quiet = append(quiet, m.halt()...)
		m.abort(cause)
	}
	return quiet
}
