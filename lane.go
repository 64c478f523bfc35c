package hark

import (
	"sync/atomic"

	"github.com/harkbus/hark/internal/feed"
)

// source is one log that a consumer of T reads. Its methods are called by one
// worker at a time. If the consumer is shared, they are called with its lock
// held, except opened and tidy.
type source[T any] interface {
	// claim copies the next messages to dst and passes them.
	claim(dst []Message[T]) int
	// opened tells publishers of the room that claim made.
	opened()
	// arm puts the source to sleep. It returns false if there is more to read.
	arm() bool
	// tidy releases what has been read, once the source sleeps.
	tidy()
	// lag returns how many messages wait and how many have been passed.
	lag() (waiting, passed uint64)
	// overflow applies the policy of a subscription that drops messages.
	overflow()
	// oldest returns the meta of the longest waiting message, or nil if that is
	// unknown.
	oldest() *meta
	// reads reports whether the source is a cursor on log.
	reads(log any) bool
	// finish makes what is there now the last. Publishers no longer wait for
	// the source, and it is looked at once more.
	finish()
	// over reports whether everything up to the end set by finish has been
	// passed.
	over() bool
	// detach ends the source and returns how many messages it has not passed.
	detach() uint64
}

// node links a source into the list of sources that have something to read.
type node struct {
	link    *node
	sibling *node // in the list of all sources; guarded by core.mu
	source  any   // a source[T] of the consumer's T
}

// lane is a consumer's cursor on one log of a topic of X.
type lane[X any] struct {
	node
	cursor feed.Cursor[entry[X]]
	topic  *Topic[X]
	core   *core
	early  atomic.Uint32 // whether Ready was called before the consumer knew the lane
	until  atomic.Uint64 // ordinal at which it ends, plus one; 0 if not set
	kept   []entry[X]    // under DropNewest: the messages that waited when the buffer became full
}

// typedLane feeds a consumer of the same type, boxedLane a consumer of any.
type (
	typedLane[T any] struct{ lane[T] }
	boxedLane[X any] struct{ lane[X] }
)

// The states of lane.early.
const (
	laneNew   uint32 = iota // unknown to its consumer
	laneEarly               // unknown, with something to read
	laneKnown
)

// attach starts reading log. known adds the lane to its consumer's sources; the
// lane must not arrive before that.
func (l *lane[X]) attach(log *feed.Log[entry[X]], start uint64, known func()) {
	q := l.core.limits()
	gates := q.policy == Block || q.policy == Fail
	buffer := uint64(q.buffer)
	if q.buffer == Unbounded || l.topic.core.retention != nil {
		gates, buffer = false, feed.Unbounded
	}
	yields := l.core.yields || l.topic.core.retention != nil
	armed := log.Attach(&l.cursor, l, start, buffer, gates, yields)
	known()
	if !l.early.CompareAndSwap(laneNew, laneKnown) || !armed {
		l.early.Store(laneKnown)
		l.core.arrive(&l.node)
	}
}

// Ready implements feed.Reader.
func (l *lane[X]) Ready(*feed.Cursor[entry[X]]) {
	if l.early.Load() == laneKnown || !l.early.CompareAndSwap(laneNew, laneEarly) {
		l.core.arrive(&l.node)
	}
}

// Yield implements feed.Reader.
func (l *lane[X]) Yield(c *feed.Cursor[entry[X]]) {
	l.core.mu.Lock()
	defer l.core.mu.Unlock()
	if l.core.over.Load() {
		return // about to be detached and accounted for
	}
	if pos, floor := c.Pos(), c.Floor(); pos < floor {
		missed := l.meant(pos, floor-pos)
		l.core.lost(DropRetention, missed)
		c.Skip(pos + missed)
	}
	l.overflow()
}

// overflow applies the policy of a subscription that drops messages: it leaves
// at most a full buffer waiting. It is called before each claim, and at times
// by publishers, always between two claims, so it drops exactly what would have
// been dropped one by one.
func (l *lane[X]) overflow() {
	c := &l.cursor
	if !l.core.yields || l.core.limits().buffer == Unbounded || l.topic.core.retention != nil {
		return
	}
	buffer := uint64(l.core.limits().buffer)
	waiting := l.meant(c.Pos(), c.Lag())
	switch l.core.limits().policy {
	case DropOldest, Latest:
		if waiting > buffer {
			l.core.lost(DropOverflow, waiting-buffer)
			c.Skip(c.Pos() + waiting - buffer)
		}
	case DropNewest:
		if uint64(len(l.kept))+waiting <= buffer {
			return
		}
		end := c.Pos() + waiting
		for uint64(len(l.kept)) < buffer {
			es := c.Peek(int(buffer) - len(l.kept))
			l.kept = append(l.kept, es...)
			c.Pass(len(es))
		}
		l.core.lost(DropOverflow, end-c.Pos())
		c.Skip(end)
	}
}

// peek returns in place what can be claimed next.
func (l *lane[X]) peek(most int) []entry[X] {
	if l.core.yields {
		l.overflow()
		if len(l.kept) > 0 {
			return l.kept[:min(most, len(l.kept))]
		}
	}
	if most = int(l.meant(l.cursor.Pos(), uint64(most))); most == 0 {
		return nil
	}
	return l.cursor.Peek(most)
}

// meant returns how many of the n messages from pos on are for this lane: those after
// its end are not.
func (l *lane[X]) meant(pos, n uint64) uint64 {
	if until := l.until.Load(); until > 0 {
		return min(n, until-1-min(pos, until-1))
	}
	return n
}

func (l *lane[X]) pass(n int) {
	if len(l.kept) > 0 {
		clear(l.kept[:n])
		if l.kept = l.kept[n:]; len(l.kept) == 0 {
			l.kept = nil
		}
		return
	}
	l.cursor.Pass(n)
}

func (l *typedLane[T]) claim(dst []Message[T]) int {
	seq := l.cursor.Pos()
	es := l.peek(len(dst))
	for i := range es {
		m := &dst[i]
		m.Value = es[i].value
		m.from(&l.topic.core, es[i].meta, seq+uint64(i))
	}
	l.pass(len(es))
	return len(es)
}

func (l *boxedLane[X]) claim(dst []Message[any]) int {
	seq := l.cursor.Pos()
	es := l.peek(len(dst))
	for i := range es {
		m := &dst[i]
		m.Value = es[i].value
		m.from(&l.topic.core, es[i].meta, seq+uint64(i))
	}
	l.pass(len(es))
	return len(es)
}

// from sets where a message comes from. It does not write what has not changed,
// because storing a pointer costs more than comparing it.
func (d *Delivery) from(topic *topicCore, m *meta, seq uint64) {
	if d.topic != topic {
		d.topic = topic
	}
	if d.meta != m {
		d.meta = m
	}
	d.seq, d.attempt = seq, 0
	if a := d.arrival(); a != nil {
		d.attempt = int32(min(a.Deliveries, 1<<30) - 1)
	}
}

func (l *lane[X]) opened() { l.cursor.Opened() }
func (l *lane[X]) tidy()   { l.cursor.Tidy() }

func (l *lane[X]) arm() bool {
	return l.over() || l.cursor.Arm()
}

func (l *lane[X]) lag() (waiting, passed uint64) {
	passed = l.cursor.Pos() - l.cursor.Started()
	waiting = l.meant(passed+l.cursor.Started(), l.cursor.Lag())
	kept := uint64(len(l.kept))
	return waiting + kept, passed - kept
}

func (l *lane[X]) oldest() *meta {
	if l.topic.core.retention == nil && !l.topic.core.inbox || l.over() {
		return nil
	}
	if es := l.cursor.Look(); len(es) > 0 {
		return es[0].meta
	}
	return nil
}

func (l *lane[X]) reads(log any) bool { return log == any(l.cursor.Log()) }

func (l *lane[X]) finish() {
	l.until.CompareAndSwap(0, l.cursor.Log().Tail()+1)
	l.cursor.Release()
	l.cursor.Rouse()
}

func (l *lane[X]) over() bool {
	until := l.until.Load()
	return until > 0 && l.cursor.Pos() >= until-1 && len(l.kept) == 0
}

func (l *lane[X]) detach() uint64 {
	waiting, _ := l.lag()
	l.cursor.Log().Detach(&l.cursor)
	return waiting
}

// arrivals is a list that sources join from any goroutine, and from which one
// worker at a time takes.
type arrivals struct {
	stack atomic.Pointer[node]
	head  *node // taken from stack, in order of arrival
	last  *node
}

func (a *arrivals) push(n *node) {
	for {
		top := a.stack.Load()
		n.link = top
		if a.stack.CompareAndSwap(top, n) {
			return
		}
	}
}

// first returns the source whose turn it is, or nil.
func (a *arrivals) first() *node {
	if a.stack.Load() != nil {
		last := a.stack.Swap(nil) // the newest is on top of the stack
		var list *node
		for n := last; n != nil; {
			n.link, list, n = list, n, n.link
		}
		if a.head == nil {
			a.head = list
		} else {
			a.last.link = list
		}
		a.last = last
	}
	return a.head
}

// any reports whether the list has a source.
func (a *arrivals) any() bool { return a.head != nil || a.stack.Load() != nil }

// drop removes the first source.
func (a *arrivals) drop() {
	n := a.head
	if a.head = n.link; a.head == nil {
		a.last = nil
	}
	n.link = nil
}

// rotate gives the next source its turn.
func (a *arrivals) rotate() {
	if n := a.head; n != nil && n != a.last {
		a.drop()
		a.last.link = n
		a.last = n
	}
}
