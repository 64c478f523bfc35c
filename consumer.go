package hark

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/harkbus/hark/internal/exec"
	"github.com/harkbus/hark/internal/feed"
)

// core is the part of a consumer that does not depend on its type. What workers
// write without the lock is not beside the lock.
type core struct {
	mu     sync.Mutex           // guards the sources of a shared consumer, and what says so
	serial uint64               // in the order in which consumers are made
	rare   atomic.Pointer[rare] // nil until first needed
	cfg    *subscribeConfig     // of its first member
	only   *waker               // of the worker, if lone

	delivered atomic.Uint64
	ready     arrivals
	*scope
	wakers atomic.Pointer[[]*waker] // of all workers; nil if lone
	// busy says that there is more to do than to read the sources, so the sole
	// worker must take the lock too.
	busy    atomic.Bool
	over    atomic.Bool // it has ended; written with mu held
	watched atomic.Bool // rare.idler is not nil
	yields  bool        // it drops messages instead of blocking publishers
	grouped bool
	stored  bool
	clears  bool // messages hold pointers
	lone    bool // it has one worker
	sole    bool // it has one worker and no source yields, so it reads without the lock
	keying  bool // a worker is making the keys of the messages that it has claimed; guarded by mu
	closing bool // its last member is leaving, so no other may join; guarded by mu
}

// rare is what most consumers never need.
type rare struct {
	tally tally

	// Guarded by core.mu.
	missed map[DropReason]uint64 // drops not yet reported to the hooks
	idler  chan struct{}         // closed when a worker finds nothing to do; nil if nobody waits for that
	gone   chan struct{}         // closed when the consumer ends; nil until first requested
}

// need returns what most consumers never need.
func (c *core) need() *rare {
	if r := c.rare.Load(); r != nil {
		return r
	}
	c.rare.CompareAndSwap(nil, new(rare))
	return c.rare.Load()
}

// subscription returns the name of its group, or a generated one.
func (c *core) subscription() string {
	if c.grouped {
		return c.cfg.group
	}
	return c.name + "#" + strconv.FormatUint(c.serial, 10)
}

// limits returns the buffer, and what happens when it is full.
func (c *core) limits() queue {
	q := c.cfg.queue
	if c.stored {
		q.buffer = Unbounded
	}
	return q
}

// waker is the part of a worker that does not depend on its type.
type waker struct {
	exec.Task
	tokens chan struct{} // wakes an iterator, which is not a task; otherwise nil
}

// Notify tells the worker that there is something to do. It reports whether it was
// asleep, in which case no one else need be told.
func (w *waker) Notify() bool {
	if w.tokens == nil {
		return w.Task.Notify()
	}
	select {
	case w.tokens <- struct{}{}:
	default:
	}
	return false // it may be busy, so someone else should be told too
}

// consumer is the receiving end for messages of T, from which a subscription or
// all members of a group take them.
//
// Most have one lane and one member with one worker. These are part of it, so
// that an idle subscription is one object, and handling a message on one of very
// many topics touches few cache lines.
type consumer[T any] struct {
	lane   typedLane[T] // the first
	member member[T]    // the first
	core

	// Guarded by core.mu, except when a sole worker reads the sources.
	node    *node       // heads the list of sources
	joined  *member[T]  // heads the list of members
	pending *pending[T] // nil before the first message gets there
	passed  uint64      // messages passed by sources that are gone
	untap   func()      // removes it from the topics of its pattern; nil if it has none

	// place is the position, from 1, in Topic.consumers of a consumer of the
	// topic's own. While it is there, the consumer reads the topic's logs,
	// including those of future lanes. It is 0 otherwise. Topic.mu guards it.
	place int
}

// sources yields the sources. The caller holds mu.
func (c *consumer[T]) sources(yield func(source[T]) bool) {
	for n := c.node; n != nil && yield(n.source.(source[T])); n = n.sibling {
	}
}

// members yields the members in the order in which they joined. The caller holds
// mu.
func (c *consumer[T]) members(yield func(*member[T]) bool) {
	for m := c.joined; m != nil && yield(m); m = m.peer {
	}
}

// arrive marks a source as having something to read. It may be called with a
// log locked.
func (c *core) arrive(n *node) {
	c.ready.push(n)
	c.wake()
}

// wake makes a worker look again: one that sleeps, or else all that run, since
// each of them may already have looked.
func (c *core) wake() {
	if c.lone {
		c.only.Notify()
		return
	}
	for _, w := range *c.wakers.Load() {
		if w.Notify() {
			return
		}
	}
}

// lost counts messages that will not be delivered. The caller holds mu, or a
// message that it took.
func (c *core) lost(why DropReason, n uint64) {
	if n == 0 {
		return
	}
	r := c.need()
	r.tally.dropped.Add(n)
	if len(c.bus.hooks.drop) == 0 {
		return
	}
	if r.missed == nil {
		r.missed = map[DropReason]uint64{}
	}
	r.missed[why] += n
}

// misses counts messages of an engine that were meant for the consumer but did
// not get into its inbox.
func (c *consumer[T]) misses(why DropReason, n uint64) {
	c.mu.Lock()
	c.passed += n
	c.lost(why, n)
	c.mu.Unlock()
	c.report()
}

// report reports the drops since the last call to the hooks. No lock is held.
func (c *core) report() {
	r := c.rare.Load()
	if r == nil || len(c.bus.hooks.drop) == 0 {
		return
	}
	c.mu.Lock()
	missed := r.missed
	r.missed = nil
	c.mu.Unlock()
	for why, n := range missed {
		c.bus.hooks.onDrop(DropEvent{Source: c.source(), Count: int(n), Reason: why})
	}
}

func (c *core) source() Source {
	return Source{Kind: c.kind, Name: c.name, Subscription: c.subscription()}
}

// What a publisher without room sees of a consumer.

// blocker is a source whose consumer blocks publishers.
type blocker interface {
	coreOf() *core
}

func (l *lane[X]) coreOf() *core { return l.core }

// maxOvergrown is how many messages handlers may publish beyond the buffer of a
// subscription that waits for them.
const maxOvergrown = 65536

// overgrow reports whether another message may be let in although waiting
// messages already wait, and counts it.
func (c *core) overgrow(waiting uint64) bool {
	if waiting >= uint64(c.limits().buffer)+maxOvergrown {
		return false
	}
	c.need().tally.overgrown.Add(1)
	return true
}

// addLane implements tap for topics with the consumer's own type.
func (c *consumer[T]) addLane(t *Topic[T], log *feed.Log[entry[T]], start uint64) {
	c.mu.Lock()
	l := &c.lane
	if l.core != nil {
		l = &typedLane[T]{}
	}
	l.core = &c.core
	c.mu.Unlock()
	l.node.source, l.topic = source[T](l), t
	l.attach(log, start, func() { c.addSource(&l.node) })
}

func (c *consumer[T]) addSource(n *node) {
	c.mu.Lock()
	n.sibling, c.node = c.node, n
	c.mu.Unlock()
}

// leaveTopics removes the consumer from the topics that it reads.
func (c *consumer[T]) leaveTopics() {
	if c.untap != nil {
		c.untap()
		return
	}
	c.lane.topic.forget(c)
}

// endLane makes the present end of a log the last that is read of it.
func (c *consumer[T]) endLane(log any) {
	var found source[T]
	c.mu.Lock()
	for src := range c.sources {
		if src.reads(log) {
			found = src
			break
		}
	}
	c.mu.Unlock()
	if found != nil {
		found.finish()
	}
}

// resume ends the pauses of the members for good, so that what waits is handled
// before the bus closes.
func (c *consumer[T]) resume() {
	c.mu.Lock()
	members := slices.Collect(c.members)
	c.mu.Unlock()
	for _, m := range members {
		m.state.Or(memberLeaving)
		m.setPaused(false)
	}
}

// setWakersLocked publishes the wakers to be told of arrivals.
func (c *consumer[T]) setWakersLocked() {
	if c.lone {
		return
	}
	var wakers []*waker
	for m := range c.members {
		for w := range m.workers {
			wakers = append(wakers, &w.waker)
		}
	}
	c.wakers.Store(&wakers)
}

// places returns the ends of the consumer for a Topology.
func (c *consumer[T]) places() []End {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ends []End
	for m := range c.members {
		ends = append(ends, End{Role: m.role(), Name: c.subscription(), At: place(m.at)})
	}
	return ends
}
