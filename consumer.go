package hark

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/harkbus/hark/internal/feed"
)

// core is the part of a consumer that does not depend on its type.
type core struct {
	bus     *Bus
	kind    Kind // of what topic names: a topic, pattern or request
	topic   string
	name    string // its group, or a generated name
	serial  uint64 // in the order in which consumers are made
	queue   queue
	yields  bool // it drops messages instead of blocking publishers
	grouped bool
	stored  bool
	clears  bool // messages hold pointers
	lone    bool // it has one worker
	sole    bool // it has one worker and no source yields, so it reads without the lock
	keying  bool // a worker is making the keys of the messages that it has claimed; guarded by mu
	closing bool // its last member is leaving, so no other may join; guarded by mu
	ready   arrivals
	tally   tally
	// busy says that there is more to do than to read the sources, so the sole
	// worker must take the lock too.
	busy    atomic.Bool
	over    atomic.Bool // it has ended; written with mu held
	watched atomic.Bool // idler is not nil
	wakers  atomic.Pointer[[]waker]

	mu     sync.Mutex            // guards the fields below, and the sources of a shared consumer
	missed map[DropReason]uint64 // drops not yet reported to the hooks
	idler  chan struct{}         // closed when a worker finds nothing to do; nil if nobody waits for that
	gone   chan struct{}         // closed when the consumer ends; nil until first requested
}

// waker is told that there is something to do. It reports whether it was
// asleep, in which case no one else need be told.
type waker interface{ Notify() bool }

// consumer is the receiving end for messages of T, from which a subscription or
// all members of a group take them.
type consumer[T any] struct {
	core
	// Guarded by core.mu, except when a sole worker reads the sources.
	sources []source[T]
	passed  uint64 // messages passed by sources that are gone
	members []*member[T]
	pending *pending[T] // nil before the first message gets there
	untap   func()      // removes the consumer from its topics

	// place is the position, from 1, in Topic.consumers of a consumer of the
	// topic's own. While it is there, the consumer reads the topic's logs,
	// including those of future lanes. It is 0 otherwise. Topic.mu guards it.
	place int
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
	for _, w := range *c.wakers.Load() {
		if w.Notify() {
			return
		}
	}
}

// lost counts messages that will not be delivered. The caller holds mu, or a
// message that it took.
func (c *core) lost(why DropReason, n uint64) {
	c.tally.dropped.Add(n)
	if n == 0 || len(c.bus.hooks.drop) == 0 {
		return
	}
	if c.missed == nil {
		c.missed = map[DropReason]uint64{}
	}
	c.missed[why] += n
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
	if len(c.bus.hooks.drop) == 0 {
		return
	}
	c.mu.Lock()
	missed := c.missed
	c.missed = nil
	c.mu.Unlock()
	for why, n := range missed {
		c.bus.hooks.onDrop(DropEvent{Source: c.source(), Count: int(n), Reason: why})
	}
}

func (c *core) source() Source {
	return Source{Kind: c.kind, Name: c.topic, Subscription: c.name}
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
	if waiting >= uint64(c.queue.buffer)+maxOvergrown {
		return false
	}
	c.tally.overgrown.Add(1)
	return true
}

// addLane implements tap for topics with the consumer's own type.
func (c *consumer[T]) addLane(t *Topic[T], log *feed.Log[entry[T]], start uint64) {
	l := &typedLane[T]{}
	l.node.source, l.topic, l.core = source[T](l), t, &c.core
	l.attach(log, start, func() { c.addSource(l) })
}

func (c *consumer[T]) addSource(src source[T]) {
	c.mu.Lock()
	c.sources = append(c.sources, src)
	c.mu.Unlock()
}

// endLane makes the present end of a log the last that is read of it.
func (c *consumer[T]) endLane(log any) {
	c.mu.Lock()
	i := slices.IndexFunc(c.sources, func(src source[T]) bool { return src.reads(log) })
	var src source[T]
	if i >= 0 {
		src = c.sources[i]
	}
	c.mu.Unlock()
	if src != nil {
		src.finish()
	}
}

// resume ends the pauses of the members for good, so that what waits is handled
// before the bus closes.
func (c *consumer[T]) resume() {
	c.mu.Lock()
	members := slices.Clone(c.members)
	c.mu.Unlock()
	for _, m := range members {
		m.state.Or(memberLeaving)
		m.setPaused(false)
	}
}

// setWakersLocked publishes the wakers to be told of arrivals.
func (c *consumer[T]) setWakersLocked() {
	var wakers []waker
	for _, m := range c.members {
		for _, w := range m.workers {
			wakers = append(wakers, w)
		}
	}
	c.wakers.Store(&wakers)
}

// places returns the ends of the consumer for a Topology.
func (c *consumer[T]) places() []End {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ends []End
	for _, m := range c.members {
		ends = append(ends, End{Role: m.role, Name: c.name, At: place(m.at)})
	}
	return ends
}
