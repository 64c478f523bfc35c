package hark

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/internal/feed"
)

// core is the part of a consumer that does not depend on its type.
type core struct {
	bus     *Bus
	topic   string // its topic or pattern
	name    string // its group, or a made-up name
	serial  uint64 // in the order in which consumers are made
	queue   queue
	asked   queue // what the options said
	yields  bool  // it gives way instead of holding up publishers
	grouped bool
	stored  bool
	pattern bool // topic is a pattern
	clears  bool // messages hold pointers
	sole    bool // one worker, and no source yields: it reads without the lock
	ready   arrivals
	tally   tally
	// busy says that there is more to do than to read the sources, so that
	// the sole worker must take the lock too.
	busy   atomic.Bool
	over   atomic.Bool // it has ended; written with mu held
	wakers atomic.Pointer[[]waker]

	mu     sync.Mutex            // guards what follows, and the sources of a shared consumer
	missed map[DropReason]uint64 // drops that no hook has been told of
	idlers []chan struct{}       // closed when a worker finds nothing to do
	gone   chan struct{}         // closed when it ends; nil unless somebody asked
}

// waker is told that there is something to do; it reports whether it was
// asleep, so that nobody else need be told.
type waker interface{ Notify() bool }

// tally counts what became of messages; see SubscriptionStats.
type tally struct {
	delivered, filtered, dropped, dead atomic.Uint64
	undecided                          atomic.Uint64 // part of filtered
	failed, redelivered, overgrown     atomic.Uint64
	watched                            atomic.Int32 // len(idlers)
}

// done returns how many messages are done with.
func (t *tally) done() uint64 {
	return t.delivered.Load() + t.filtered.Load() + t.dropped.Load() + t.dead.Load()
}

// consumer is the receiving end of messages of T: what a subscription, or all
// members of a group, take them from.
type consumer[T any] struct {
	core
	// Guarded by core.mu, but for a sole worker that reads the sources.
	sources []source[T]
	passed  uint64 // messages passed by sources that are gone
	members []*member[T]
	aside   aside[T]
	closing bool   // its last member has left: no other may join
	untap   func() // takes the consumer out of its topics

	// Guarded by Topic.mu; for a consumer of a topic's own.
	place  int  // in Topic.consumers, from 1; 0 if it is not there
	tapped bool // it reads the logs, and those of lanes to come
}

// arrive readies a source that has something to read. It may be called with
// a log locked.
func (c *core) arrive(n *node) {
	c.ready.push(n)
	c.wake()
}

// wake sees to it that a worker looks again: one that sleeps, or else all that
// run, since each of them may have looked before.
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

// report tells the hooks of drops since the last time. No lock is held.
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
	return Source{Kind: c.kind(), Name: c.topic, Subscription: c.name}
}

func (c *core) kind() Kind {
	if c.pattern {
		return KindPattern
	}
	return KindTopic
}

// The part of a consumer that a publisher without room meets.

// blocker is a source whose consumer holds up publishers.
type blocker interface {
	coreOf() *core
}

func (l *lane[X]) coreOf() *core { return l.core }

// maxOvergrown is how many messages handlers may publish beyond the buffer of
// a subscription that waits for them.
const maxOvergrown = 65536

// overgrow reports whether another message may be let in although waiting
// messages wait already, and counts it.
func (c *core) overgrow(waiting uint64) bool {
	if waiting >= uint64(c.queue.buffer)+maxOvergrown {
		return false
	}
	c.tally.overgrown.Add(1)
	return true
}

// take moves messages to w's buffer and returns how many. With last, sources
// that have nothing are put to sleep; without, they are left to be looked at
// once more.
func (c *consumer[T]) take(w *worker[T], last bool) int {
	var few, some [4]source[T]
	asleep := few[:0]
	c.mu.Lock()
	n, from := c.takeLocked(w, some[:0])
	if n == 0 && last {
		asleep = c.sleepLocked(asleep)
	}
	more := n > 0 && (c.aside.runnable.len() > 0 || c.ready.any())
	c.mu.Unlock()
	for _, src := range from {
		src.opened()
	}
	for _, src := range asleep {
		c.tidy(src)
	}
	if more {
		c.wakeSleeper()
	}
	c.report()
	return n
}

// takeLocked takes a message from aside, or else messages from the source whose
// turn it is. It appends the sources that it claimed from, be it only to put
// their messages aside, to from.
func (c *consumer[T]) takeLocked(w *worker[T], from []source[T]) (int, []source[T]) {
	if c.over.Load() || w.member.state.Load()&memberHalts != 0 {
		return 0, from
	}
	for {
		h := c.aside.pop()
		c.setTimerLocked()
		if h != nil {
			w.buf[0], w.held = h.Message, h
			return 1, from
		}
		if c.aside.n >= c.window() {
			return 0, from // until some of them are done
		}
		chunk := c.fair(w)
		if chunk > len(w.buf) {
			w.buf = make([]Message[T], chunk)
		}
		n, src := c.claimLocked(w.buf[:chunk])
		if src != nil && !slices.Contains(from, src) {
			from = append(from, src)
		}
		if n == 0 || !c.ordered(w.buf[:n]) {
			return n, from
		}
		for i := range n {
			c.aside.enter(hold(&w.buf[i]))
		}
		c.busy.Store(true)
	}
}

// claimLocked claims from the next source that has messages, which it returns.
func (c *consumer[T]) claimLocked(dst []Message[T]) (n int, from source[T]) {
	first := c.ready.first()
	for node := first; node != nil; {
		src := node.source.(source[T])
		n = src.claim(dst)
		c.ready.rotate()
		if n > 0 {
			return n, src
		}
		if node = c.ready.head; node == first {
			break
		}
	}
	return 0, nil
}

// sleepLocked puts the sources to sleep that have nothing to read, and appends
// them to asleep.
func (c *consumer[T]) sleepLocked(asleep []source[T]) []source[T] {
	if c.over.Load() || c.aside.n >= c.window() {
		return asleep // they have not been looked at
	}
	for node := c.ready.first(); node != nil; node = c.ready.first() {
		src := node.source.(source[T])
		// Out of the list first: once asleep it may join again at once.
		c.ready.drop()
		if !src.arm() {
			c.arrive(node)
			break
		}
		asleep = append(asleep, src)
	}
	return asleep
}

// tidy cleans up behind a source that sleeps. No lock is held.
func (c *consumer[T]) tidy(src source[T]) {
	src.tidy()
	if src.over() {
		c.retire(src)
	}
}

// retire lets go of a source that has nothing more to give.
func (c *consumer[T]) retire(src source[T]) {
	c.mu.Lock()
	i := slices.Index(c.sources, src)
	if i >= 0 {
		c.sources = slices.Delete(c.sources, i, i+1)
		_, passed := src.lag()
		c.passed += passed
	}
	c.mu.Unlock()
	if i >= 0 {
		src.detach()
	}
}

// ordered reports whether one of the messages has to wait for others of its
// key: always if there are several workers and it has a key; with one worker
// only while a message of some key waits for another attempt.
func (c *consumer[T]) ordered(ms []Message[T]) bool {
	if c.sole && c.aside.empty() {
		return false
	}
	for i := range ms {
		if m := &ms[i]; m.topic.keyOf != nil || m.meta != nil && m.meta.hasKey {
			return true
		}
	}
	return false
}

// fair returns how many messages worker w may take at a time: no more than its
// share of what waits.
func (c *consumer[T]) fair(w *worker[T]) int {
	if c.sole || w.chunk == 1 {
		return w.chunk
	}
	if c.queue.policy != Block && c.queue.buffer != Unbounded {
		return 1 // what is dropped is decided as late as possible
	}
	var waiting uint64
	for _, src := range c.sources {
		n, _ := src.lag()
		waiting += n
	}
	return int(min(uint64(w.chunk), 1+waiting/uint64(2*len(*c.wakers.Load()))))
}

// window is how many messages may be outside the log: waiting for another
// attempt, or for their key.
func (c *core) window() int {
	if c.queue.buffer == Unbounded {
		return defaultBuffer
	}
	return max(c.queue.buffer, minWindow)
}

const minWindow = 64

// wakeSleeper wakes a worker if one sleeps, to share the work.
func (c *core) wakeSleeper() {
	for _, w := range *c.wakers.Load() {
		if t, ok := w.(interface{ Asleep() bool }); ok && t.Asleep() && w.Notify() {
			return
		}
	}
}

// addLane implements tap for topics of the consumer's own type.
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

// endLane makes what is in a log now the last that is read of it.
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

// countsLocked returns what waits, and what has been passed to workers so far.
func (c *consumer[T]) countsLocked() (waiting, passed uint64) {
	passed = c.passed
	for _, src := range c.sources {
		w, p := src.lag()
		waiting, passed = waiting+w, passed+p
	}
	return waiting, passed
}

// idle reports whether every message so far is done with, or will not be
// because there is no member to do it.
func (c *consumer[T]) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) == 0 {
		return true
	}
	done := c.tally.done()
	waiting, passed := c.countsLocked()
	return waiting == 0 && done == passed
}

// settle waits until the consumer is idle or ctx ends.
func (c *consumer[T]) settle(ctx context.Context) {
	for {
		ch := make(chan struct{})
		c.mu.Lock()
		c.idlers = append(c.idlers, ch)
		c.tally.watched.Store(int32(len(c.idlers)))
		c.mu.Unlock()
		if c.over.Load() || c.idle() {
			c.unwatch(ch)
			return
		}
		select {
		case <-ch:
		case <-ctx.Done():
			c.unwatch(ch)
			return
		}
	}
}

// ended returns what is closed when the consumer has ended.
func (c *core) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil {
		c.gone = make(chan struct{})
		if c.over.Load() {
			close(c.gone)
		}
	}
	return c.gone
}

func (c *core) unwatch(ch chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.idlers, ch); i >= 0 {
		c.idlers = slices.Delete(c.idlers, i, i+1)
		c.tally.watched.Store(int32(len(c.idlers)))
	}
}

// tellIdle lets those that wait for idleness look.
func (c *core) tellIdle() {
	if c.tally.watched.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.idlers {
		close(ch)
	}
	c.idlers = nil
	c.tally.watched.Store(0)
}

// stats returns the numbers of the consumer.
func (c *consumer[T]) stats() SubscriptionStats {
	c.mu.Lock()
	s := c.statsLocked()
	c.mu.Unlock()
	c.report()
	return s
}

func (c *consumer[T]) statsLocked() SubscriptionStats {
	for _, src := range c.sources {
		if c.yields {
			src.overflow()
		}
	}
	s := SubscriptionStats{
		Name:        c.name,
		Members:     len(c.members),
		Delivered:   c.tally.delivered.Load(),
		Filtered:    c.tally.filtered.Load(),
		Undecided:   c.tally.undecided.Load(),
		Dropped:     c.tally.dropped.Load(),
		Dead:        c.tally.dead.Load(),
		Failed:      c.tally.failed.Load(),
		Redelivered: c.tally.redelivered.Load(),
		Overgrown:   c.tally.overgrown.Load(),
		Retrying:    uint64(c.aside.retrying),
	}
	done := s.Delivered + s.Filtered + s.Dropped + s.Dead
	waiting, passed := c.countsLocked()
	s.Waiting = waiting + uint64(c.aside.n-c.aside.retrying)
	s.InFlight = passed - done - uint64(c.aside.n)
	if c.pattern {
		s.Pattern = c.topic
	}
	s.OldestAge = c.oldestLocked()
	return s
}

// oldestLocked returns the age of the oldest message whose time is known and
// that waits.
func (c *consumer[T]) oldestLocked() time.Duration {
	var oldest time.Time
	note := func(m *meta) {
		if m != nil && (oldest.IsZero() || m.time.Before(oldest)) {
			oldest = m.time
		}
	}
	for _, h := range c.aside.timed {
		note(h.meta)
	}
	for _, h := range c.aside.runnable.items[c.aside.runnable.head:] {
		note(h.meta)
	}
	if !c.sole {
		for _, src := range c.sources {
			note(src.oldest())
		}
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(oldest))
}

// lasting reports whether the consumer stays when its last member leaves: a
// group on a stored topic keeps its place.
func (c *core) lasting() bool { return c.grouped && c.stored }

// lastToLeave marks m as about to leave and reports whether nobody stays.
func (c *consumer[T]) lastToLeave(m *member[T]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.state.Or(memberLeaving)
	for _, other := range c.members {
		if other != m && other.state.Load()&(memberLeaving|memberClosed) == 0 {
			return false
		}
	}
	return slices.Contains(c.members, m)
}

// finish makes the messages that are there now the last ones.
func (c *consumer[T]) finish() {
	c.untap()
	c.mu.Lock()
	sources := slices.Clone(c.sources)
	c.mu.Unlock()
	for _, src := range sources {
		src.finish()
	}
}

// remove takes a member out. With the last one an ephemeral consumer ends: its
// sources are detached, and what was not done is counted as dropped and
// returned.
func (c *consumer[T]) remove(m *member[T]) Left {
	c.mu.Lock()
	i := slices.Index(c.members, m)
	if i < 0 {
		c.mu.Unlock()
		return Left{}
	}
	c.members = slices.Delete(c.members, i, i+1)
	c.setWakersLocked()
	last := len(c.members) == 0
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

// end detaches the consumer from its topic for good.
func (c *consumer[T]) end() Left {
	c.untap()
	c.mu.Lock()
	if c.over.Load() {
		c.mu.Unlock()
		return Left{}
	}
	left := c.leftLocked()
	c.over.Store(true)
	sources := c.sources
	c.sources = nil
	for _, src := range sources {
		_, passed := src.lag()
		c.passed += passed
	}
	// What waits outside the log has been passed, what waits in it has not.
	c.lost(DropClosed, uint64(c.aside.n))
	c.passed += uint64(left.Waiting) - uint64(c.aside.n-c.aside.retrying)
	c.lost(DropClosed, uint64(left.Waiting)-uint64(c.aside.n-c.aside.retrying))
	if c.aside.timer != nil {
		c.aside.timer.Stop()
	}
	c.aside = aside[T]{}
	if c.gone != nil {
		close(c.gone)
	}
	c.mu.Unlock()
	for _, src := range sources {
		src.detach()
	}
	c.report()
	c.tellIdle()
	return left
}

// leftLocked returns what is not done.
func (c *consumer[T]) leftLocked() Left {
	s := c.statsLocked()
	return Left{
		Kind: c.kind(), Name: c.topic, Subscription: c.name,
		Waiting: int(s.Waiting), InFlight: int(s.InFlight), Retrying: int(s.Retrying),
	}
}

// stop ends the consumer when its bus closes: handlers' contexts are cancelled
// and it waits for them until ctx ends.
func (c *consumer[T]) stop(ctx context.Context, cause error) Left {
	quiet := c.cancel(cause)
	await(ctx, quiet)
	left := c.end()
	if len(quiet) == 0 { // what waits for a group without members is its topic's
		return Left{}
	}
	return left
}

// cancel halts the members and cancels their contexts. It returns what is
// closed when they have stopped.
func (c *consumer[T]) cancel(cause error) (quiet []chan struct{}) {
	c.mu.Lock()
	members := slices.Clone(c.members)
	c.mu.Unlock()
	for _, m := range members {
		quiet = append(quiet, m.halt()...)
		m.abort(cause)
	}
	return quiet
}

// resume ends the pauses of the members for good, so that what waits is
// handled before the bus closes.
func (c *consumer[T]) resume() {
	c.mu.Lock()
	members := slices.Clone(c.members)
	c.mu.Unlock()
	for _, m := range members {
		m.state.Or(memberLeaving)
		m.setPaused(false)
	}
}

// setWakersLocked publishes who is to be told of arrivals.
func (c *consumer[T]) setWakersLocked() {
	var wakers []waker
	for _, m := range c.members {
		for _, w := range m.workers {
			wakers = append(wakers, w)
		}
	}
	c.wakers.Store(&wakers)
}

// places returns who is at the ends of the consumer.
func (c *consumer[T]) places() []End {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ends []End
	for _, m := range c.members {
		ends = append(ends, End{Role: m.role, Name: c.name, At: place(m.at)})
	}
	return ends
}
