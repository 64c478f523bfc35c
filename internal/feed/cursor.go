package feed

import (
	"math"
	"sync/atomic"
)

// Unbounded is the buffer of a cursor that never holds up an appender.
const Unbounded = math.MaxUint64 >> 2

// Reader owns cursors.
type Reader[E any] interface {
	// Ready reports that entries follow the armed cursor c, which has been
	// disarmed. It is called with the log locked, and must not block or call
	// the log.
	Ready(c *Cursor[E])
	// Yield asks the reader to move c, a cursor made with Yields, past what its
	// policy drops. It is called with the log locked, and may call only methods
	// of c.
	Yield(c *Cursor[E])
}

// Cursor is a reader's place in a log. Its methods are for its reader, which
// calls them from one goroutine at a time (a cursor that yields: with the lock
// held that Yield takes). Make one with Log.Attach.
type Cursor[E any] struct {
	log    *Log[E]
	reader Reader[E]
	seg    atomic.Pointer[segment[E]] // holds pos, or ends there; nil before the first entry
	pos    atomic.Uint64              // ordinal of the next entry to read; only the reader moves it
	armed  atomic.Bool
	index  int32  // in Log.cursors; guarded by Log.mu
	start  uint64 // ordinal at which the cursor began
	buffer uint64 // how many entries may wait
	gates  bool   // appenders wait while buffer entries wait
	yields bool   // the log may ask it to skip entries
}

// FromNow is the start of a cursor on the entries appended from now on.
const FromNow = math.MaxUint64

// Attach makes c a cursor on the entries from ordinal start on, or from the
// oldest that is kept. gates makes appending wait when buffer entries wait for
// c; yields says that the reader gives way instead. It reports whether c is
// armed; otherwise entries wait already.
func (l *Log[E]) Attach(c *Cursor[E], r Reader[E], start, buffer uint64, gates, yields bool) (armed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.log, c.reader, c.buffer = l, r, buffer
	c.gates, c.yields = gates && buffer < Unbounded, yields
	c.index = int32(len(l.cursors))
	if l.cursors == nil {
		l.cursors = l.one[:0]
	}
	if l.cursors = append(l.cursors, c); len(l.cursors) == 2 {
		l.one[0] = nil // they have another array now
	}
	l.attached.Store(int32(len(l.cursors)))
	l.trimLocked()
	// Arm before the tail is read: an entry appended meanwhile is either before
	// the start or wakes the reader.
	l.sleepers.Add(1)
	c.armed.Store(true)
	next := l.Tail()
	armed = true
	if start < next {
		next = max(start, l.first)
		c.armed.Store(false)
		l.sleepers.Add(-1)
		armed = false
	}
	c.start = next
	c.pos.Store(next)
	if l.head != nil {
		c.seg.Store(l.head.seek(next))
	}
	if c.gates {
		l.limit.Store(min(l.limit.Load(), next+buffer))
	}
	return armed
}

// Detach ends c. It returns the number of entries it had not read.
func (l *Log[E]) Detach(c *Cursor[E]) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.cursors) - 1
	l.cursors[c.index] = l.cursors[last]
	l.cursors[c.index].index = c.index
	l.cursors[last] = nil
	l.cursors = l.cursors[:last]
	l.attached.Store(int32(last))
	if c.armed.CompareAndSwap(true, false) {
		l.sleepers.Add(-1)
	} else {
		l.left = true
	}
	l.releaseLocked() // appenders that waited for c need not
	// Looking at all cursors each time would make ending many of them
	// quadratic. Only the end of the last of the slowest, or of the last one
	// awake, matters.
	pos := c.pos.Load()
	if pos <= l.low {
		l.holders--
	}
	if pos <= l.low && l.holders <= 0 || int(l.sleepers.Load()) == last {
		l.sweepLocked()
	}
	return l.Tail() - pos
}

// Log returns the log that c reads.
func (c *Cursor[E]) Log() *Log[E] { return c.log }

// Reader returns the reader of c.
func (c *Cursor[E]) Reader() Reader[E] { return c.reader }

// Pos returns the ordinal of the entry that Peek returns first. Anybody may call
// it.
func (c *Cursor[E]) Pos() uint64 { return c.pos.Load() }

// Started returns the ordinal at which c began.
func (c *Cursor[E]) Started() uint64 { return c.start }

// Lag returns how many entries wait. Anybody may call it.
func (c *Cursor[E]) Lag() uint64 {
	pos := c.pos.Load() // pos first, so that the difference is never negative
	return c.log.Tail() - pos
}

// Roomy reports whether there is enough room for it to be worth the while of
// an appender that waits. Anybody may call it.
func (c *Cursor[E]) Roomy() bool { return c.Lag() <= c.buffer/2 }

// Peek returns up to most entries that follow, in place: they are valid until
// Pass. It returns none only if there are none. c must not be armed.
func (c *Cursor[E]) Peek(most int) []E {
	next := c.pos.Load()
	n := c.log.Tail() - next
	if n == 0 {
		return nil
	}
	s := c.seg.Load()
	if next == s.end() {
		s = s.next
		c.seg.Store(s)
	}
	i := next - s.base
	return s.slots[i:min(i+n, i+uint64(most), uint64(len(s.slots)))]
}

// Look returns the entry that follows if that is known without moving c, which
// may be armed.
func (c *Cursor[E]) Look() []E {
	s, next := c.seg.Load(), c.pos.Load()
	if s == nil || c.log.Tail() == next {
		return nil
	}
	s = s.seek(next)
	i := next - s.base
	return s.slots[i : i+1]
}

// Pass moves c over n entries. Opened must follow.
func (c *Cursor[E]) Pass(n int) { c.pos.Store(c.pos.Load() + uint64(n)) }

// Opened lets appenders that wait know of entries passed. It takes the log's
// lock, so it must not be called with the lock held that Yield takes.
func (c *Cursor[E]) Opened() {
	if c.log.waiting.Load() != 0 {
		c.log.room()
	}
}

// Skip passes entries up to ordinal n without reading them, for a cursor that
// yields; it may be called from Yield.
func (c *Cursor[E]) Skip(n uint64) {
	s := c.seg.Load()
	if s == nil { // never read from: only Yield gets here
		s = c.log.head
	}
	c.seg.Store(s.seek(n))
	c.pos.Store(n)
}

// Floor returns the ordinal of the oldest entry that is kept. It may be called
// from Yield only.
func (c *Cursor[E]) Floor() uint64 { return c.log.first }

// Arm puts c to sleep: its reader will be told by Ready when an entry follows.
// It reports false, and leaves c awake, if one has followed already.
func (c *Cursor[E]) Arm() bool {
	// Increment the count first. It is then never below the number of armed
	// cursors, even while another one is being woken, so an appender that reads
	// zero may pass.
	c.log.sleepers.Add(1)
	c.armed.Store(true)
	if c.log.Tail() != c.pos.Load() && c.armed.CompareAndSwap(true, false) {
		c.log.sleepers.Add(-1)
		return false
	}
	return true
}

// Tidy clears what has been read if c was the last to go to sleep. It takes
// the log's lock, as Opened does.
func (c *Cursor[E]) Tidy() {
	l := c.log
	if l.pointers.Load() && !l.keep && l.sleepers.Load() == l.attached.Load() {
		l.Sweep()
	}
}

// Rouse wakes the reader as if an entry had followed, if c is armed.
func (c *Cursor[E]) Rouse() {
	c.log.mu.Lock()
	c.log.rouseLocked(c)
	c.log.mu.Unlock()
}

// Release lets appenders no longer wait for c.
func (c *Cursor[E]) Release() {
	c.log.mu.Lock()
	c.gates = false
	c.log.releaseLocked()
	c.log.mu.Unlock()
}
