package hark

import (
	"sync/atomic"

	"github.com/harkbus/hark/internal/feed"
)

// source is one log that a consumer of T reads. Its methods are called by one
// worker at a time; where the consumer is shared, with its lock held, except
// opened and tidy.
type source[T any] interface {
	// claim copies the next messages to dst and passes them.
	claim(dst []Message[T]) int
	// opened lets publishers know of the room that claim made.
	opened()
	// arm reports whether the source sleeps now; if not there is more.
	arm() bool
	// tidy lets go of what has been read, once asleep.
	tidy()
	// lag returns how many messages wait, and how many have been passed.
	lag() (waiting, passed uint64)
	// overflow applies the policy of a subscription that gives way.
	overflow()
	// oldest returns the meta of the message that has waited longest, nil if
	// that is not known.
	oldest() *meta
	// reads reports whether it is a cursor on log.
	reads(log any) bool
	// finish makes what is there now the last, lets publishers no longer wait
	// for it, and has it looked at once more.
	finish()
	// over reports whether what finish made the last has been passed.
	over() bool
	// detach ends the source and returns how many messages it did not pass.
	detach() uint64
}

// node links a source into the list of those that have something to read.
type node struct {
	link   *node
	source any // source[T] of the consumer's T
}

// lane is a consumer's cursor on one log of a topic of X.
type lane[X any] struct {
	node
	cursor feed.Cursor[entry[X]]
	topic  *Topic[X]
	core   *core
	start  uint64        // ordinal where it began
	early  atomic.Uint32 // whether Ready came before the consumer knew the lane
	until  atomic.Uint64 // ordinal where it ends, plus one; 0 if nowhere yet
	kept   []entry[X]    // under DropNewest: what waited when the buffer was full
}

// typedLane feeds a consumer of the same type, boxedLane one of any.
type (
	typedLane[T any] struct{ lane[T] }
	boxedLane[X any] struct{ lane[X] }
)

// The states of lane.early.
const (
	laneNew   uint32 = iota // unknown to its consumer
	laneEarly               // unknown, and there is something to read
	laneKnown
)

// attach begins to read log. known makes the lane one of its consumer's
// sources, before which it must not arrive.
func (l *lane[X]) attach(log *feed.Log[entry[X]], start uint64, known func()) {
	q := l.core.queue
	gates := q.policy == Block || q.policy == Fail
	buffer := uint64(q.buffer)
	if q.buffer == Unbounded || l.topic.core.retention != nil {
		gates, buffer = false, feed.Unbounded
	}
	yields := l.core.yields || l.topic.core.retention != nil
	armed := log.Attach(&l.cursor, l, start, buffer, gates, yields)
	l.start = l.cursor.Started()
	known()
	if !l.early.CompareAndSwap(laneNew, laneKnown) || !armed {
		l.early.Store(laneKnown)
		l.core.arrive(&l.node)
	}
}

// Ready implements feed.Reader.
func (l *lane[X]) Ready(*feed.Cursor[entry[X]]) {
	if !l.early.CompareAndSwap(laneNew, laneEarly) {
		l.core.arrive(&l.node)
	}
}

// Yield implements feed.Reader.
func (l *lane[X]) Yield(c *feed.Cursor[entry[X]]) {
	l.core.mu.Lock()
	defer l.core.mu.Unlock()
	if l.core.over.Load() {
		return // about to be detached, and accounted for
	}
	if floor := c.Floor(); c.Pos() < floor {
		l.core.lost(DropRetention, floor-c.Pos())
		c.Skip(floor)
	}
	l.overflow()
}

// overflow applies the policy of a subscription that gives way: it leaves at
// most the buffer's worth of messages waiting. It is called before each claim
// and now and then by publishers, always between two claims, so what it drops
// is what would have been dropped one by one.
func (l *lane[X]) overflow() {
	c := &l.cursor
	if !l.core.yields || l.core.queue.buffer == Unbounded || l.topic.core.retention != nil {
		return
	}
	buffer := uint64(l.core.queue.buffer)
	waiting := c.Lag()
	if until := l.until.Load(); until > 0 { // what follows is not for it
		waiting = until - 1 - c.Pos()
	}
	switch l.core.queue.policy {
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

// peek returns what can be claimed next, in place.
func (l *lane[X]) peek(most int) []entry[X] {
	if l.core.yields {
		l.overflow()
		if len(l.kept) > 0 {
			return l.kept[:min(most, len(l.kept))]
		}
	}
	if until := l.until.Load(); until > 0 {
		if most = int(min(uint64(most), until-1-l.cursor.Next())); most == 0 {
			return nil
		}
	}
	return l.cursor.Peek(most)
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
	seq := l.cursor.Next()
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
	seq := l.cursor.Next()
	es := l.peek(len(dst))
	for i := range es {
		m := &dst[i]
		m.Value = es[i].value
		m.from(&l.topic.core, es[i].meta, seq+uint64(i))
	}
	l.pass(len(es))
	return len(es)
}

// from says where a message comes from. What is the same as last time is not
// written again: storing a pointer costs more than comparing it.
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
	passed = l.cursor.Pos() - l.start
	waiting = l.cursor.Lag()
	if until := l.until.Load(); until > 0 {
		waiting = until - 1 - (passed + l.start)
	}
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

// arrivals is a list that sources join from anywhere and one worker at a time
// takes from.
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

// first returns the source whose turn it is, nil without one.
func (a *arrivals) first() *node {
	if a.stack.Load() != nil {
		last := a.stack.Swap(nil) // the stack has the newest first
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

// any reports whether a source is in the list.
func (a *arrivals) any() bool { return a.head != nil || a.stack.Load() != nil }

// drop takes the first source out.
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
