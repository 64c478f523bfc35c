// Package feed is the in-process engine: an append-only log with a cursor for
// each reader.
//
// Publishing appends once, whatever the number of readers; each reader copies
// out runs of entries at its own pace. The publish path is a lock in one bit
// of the tail counter and one atomic store, and one load tells whether a
// reader sleeps. Readers take no lock of the log. The log is a chain of
// segments: those that every cursor has passed are used again, so that an
// unbounded reader that never catches up gives back what it has read.
//
// Lock order: Log.mu, then the lock bit, then the mutex of a reader.
package feed

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Log is a sequence of entries. An entry's ordinal counts from 0. Make one
// with Init.
//
// What appending touches comes first, then what waking a reader touches: with
// very many quiet logs each of them is in no cache.
type Log[E any] struct {
	// word is twice the number of entries, plus one while an appender holds the
	// lock bit. A log with a single writer does not use the bit.
	word atomic.Uint64
	// limit is the ordinal at which appending takes the slow path: the end of
	// the segment, or of the room that the slowest blocking cursor leaves.
	limit    atomic.Uint64
	base     uint64       // that of tail
	slots    []E          // those of tail; written, like base, with mu and the lock bit held
	sleepers atomic.Int32 // number of armed cursors
	waiting  atomic.Int32 // number of appenders that wait for room
	attached atomic.Int32 // len(cursors)
	pointers atomic.Bool  // entries hold pointers, so consumed ones are cleared
	sole     bool         // only one goroutine at a time appends
	keep     bool         // a stored log: entries stay until trimmed
	closed   bool         // guarded, like the fields below, by mu
	sealed   bool

	mu      sync.Mutex // guards the fields below
	cursors []*Cursor[E]
	one     [1]*Cursor[E] // the array of cursors while there is only one
	tail    *segment[E]   // where the next entry goes
	head    *segment[E]
	spare   *segment[E] // passed segments of full size, for reuse
	spares  int
	swept   uint64 // entries before this ordinal have been cleared
	low     uint64 // ordinal of the slowest cursors at the last sweep
	holders int    // how many of those cursors have not been detached
	waiters []chan struct{}
	left    bool // a reader may not know yet that its cursor has been detached

	// Only for stored logs.
	first   uint64 // ordinal of the oldest entry kept
	most    uint64 // how many entries to keep; 0 for all
	expired func(*E) bool
}

// Config describes a log.
type Config[E any] struct {
	Sole     bool // only one goroutine at a time appends
	Pointers bool // the entries hold pointers
	// Keep makes a stored log: entries stay after every cursor has passed them.
	// Most limits their number, unless it is 0. Expired, unless it is nil,
	// decides which of the oldest may go. The cursors of a stored log must
	// yield.
	Keep    bool
	Most    uint64
	Expired func(*E) bool
}

// Init makes l an empty log.
func (l *Log[E]) Init(c Config[E]) {
	l.sole, l.keep, l.most, l.expired = c.Sole, c.Keep, c.Most, c.Expired
	l.pointers.Store(c.Pointers)
}

// NotePointers says that entries hold pointers from now on.
func (l *Log[E]) NotePointers() {
	if !l.pointers.Load() {
		l.pointers.Store(true)
	}
}

// Tail returns how many entries have been appended.
func (l *Log[E]) Tail() uint64 { return l.word.Load() >> 1 }

// lock takes the lock bit and returns the word without it.
func (l *Log[E]) lock() uint64 {
	w := l.word.Load()
	if w&1 == 0 && l.word.CompareAndSwap(w, w|1) {
		return w
	}
	return l.lockSlow()
}

// lockSlow spins for as long as an append may take, and then yields, so that an
// appender that lost its core while holding the bit gets one.
func (l *Log[E]) lockSlow() uint64 {
	for spins := 0; ; spins++ {
		w := l.word.Load()
		if w&1 == 0 && l.word.CompareAndSwap(w, w|1) {
			return w
		}
		if spins%64 == 63 {
			runtime.Gosched()
		}
	}
}

// Append appends e and reports whether it did; if not, Grow says why.
func (l *Log[E]) Append(e E) bool {
	w := l.lock()
	n := w >> 1
	if n >= l.limit.Load() {
		l.word.Store(w)
		return false
	}
	l.slots[n-l.base] = e
	l.word.Store(w + 2)
	if l.sleepers.Load() != 0 {
		l.wake()
	}
	return true
}

// AppendSole is Append for a log with a single writer.
func (l *Log[E]) AppendSole(e E) bool {
	w := l.word.Load()
	n := w >> 1
	if n >= l.limit.Load() {
		return false
	}
	l.slots[n-l.base] = e
	l.word.Store(w + 2)
	if l.sleepers.Load() != 0 {
		l.wake()
	}
	return true
}

// TryAppend is Append or AppendSole, whichever is right for l.
func (l *Log[E]) TryAppend(e E) bool {
	if l.sole {
		return l.AppendSole(e)
	}
	return l.Append(e)
}

// AppendRun appends as many of n entries as there is room for without the slow
// path, and returns how many. fill writes them, from the first on, and returns how
// many it has written; those are appended. Unless the log has a single writer, fill
// is called with the log locked.
func (l *Log[E]) AppendRun(n int, fill func(slots []E) int) int {
	var w uint64
	if l.sole {
		w = l.word.Load()
	} else {
		w = l.lock()
	}
	at, limit := w>>1, l.limit.Load()
	if at >= limit {
		l.word.Store(w)
		return 0
	}
	n = int(min(uint64(n), limit-at))
	i := at - l.base
	n = fill(l.slots[i : i+uint64(n)])
	l.word.Store(w + 2*uint64(n))
	if n > 0 && l.sleepers.Load() != 0 {
		l.wake()
	}
	return n
}

// Room says whether an entry can be appended.
type Room uint8

// The results of Grow.
const (
	Open   Room = iota // try again
	Full               // the returned cursor has no room
	Closed             // the log is closed
	Sealed             // only Enter and Force may append
)

// Grow makes room after a failed append: it starts a segment and gives back
// those that every cursor has passed. If a cursor has no room it is returned.
func (l *Log[E]) Grow() (Room, *Cursor[E]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.growLocked()
}

func (l *Log[E]) growLocked() (Room, *Cursor[E]) {
	if l.closed {
		return Closed, nil
	}
	if !l.sole {
		w := l.lock()
		defer l.word.Store(w)
	}
	n := l.Tail()
	gate, by := l.gateLocked()
	if n >= gate {
		return Full, by
	}
	if l.sealed {
		return Sealed, nil
	}
	if l.tail == nil || n == l.tail.end() {
		l.extendLocked(n)
	}
	l.limit.Store(min(gate, l.tail.end()))
	return Open, nil
}

// Enter appends e to a sealed log if there is room; otherwise it says, as Grow
// does, why not.
func (l *Log[E]) Enter(e E) (Room, *Cursor[E]) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Closed, nil
	}
	if gate, by := l.gateLocked(); l.Tail() >= gate {
		l.mu.Unlock()
		return Full, by
	}
	l.appendLocked(e)
	l.mu.Unlock()
	l.wakeSleepers()
	return Open, nil
}

// Force appends e, room or not, and reports false only if the log is closed.
// On a log with a single writer only that writer may call it.
func (l *Log[E]) Force(e E) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.appendLocked(e)
	l.mu.Unlock()
	l.wakeSleepers()
	return true
}

func (l *Log[E]) appendLocked(e E) {
	var w uint64
	if l.sole {
		w = l.word.Load()
	} else {
		w = l.lock()
	}
	n := w >> 1
	if l.tail == nil || n == l.tail.end() {
		l.extendLocked(n)
	}
	l.slots[n-l.base] = e
	l.word.Store(w + 2)
}

func (l *Log[E]) wakeSleepers() {
	if l.sleepers.Load() != 0 {
		l.wake()
	}
}

// gateLocked returns the first ordinal that may not be appended yet, and the
// cursor that prevents it.
func (l *Log[E]) gateLocked() (uint64, *Cursor[E]) {
	gate, by := uint64(math.MaxUint64), (*Cursor[E])(nil)
	for _, c := range l.cursors {
		if c.gates {
			if g := c.pos.Load() + c.buffer; g < gate {
				gate, by = g, c
			}
		}
	}
	return gate, by
}

// extendLocked starts a segment at ordinal n. The caller holds the lock bit.
func (l *Log[E]) extendLocked(n uint64) {
	l.trimLocked()
	for _, c := range l.cursors {
		if c.yields {
			c.reader.Yield(c)
		}
	}
	l.sweepLocked()
	if l.tail != nil && l.quietLocked(n) {
		// Readers that have passed everything do not look at a segment before
		// they have seen that the tail has moved.
		l.tail.base, l.base = n, n
		return
	}
	s := l.spare
	switch {
	case l.tail == nil:
		s = newSegment[E]()
	case s != nil:
		l.spare = s.next
		l.spares--
	default:
		s = &segment[E]{slots: make([]E, min(4*len(l.tail.slots), maxSegment))}
	}
	s.base, s.next = n, nil
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail, l.base, l.slots = s, n, s.slots
}

// quietLocked reports whether the tail is the only segment, every cursor has
// passed all n entries, and, while a larger segment is to be had, sleeps. The
// segment can then be written again from its start: a log that is never behind
// stays in the few cache lines of its first segment.
func (l *Log[E]) quietLocked(n uint64) bool {
	if l.keep || l.left || l.head != l.tail {
		return false
	}
	for _, c := range l.cursors {
		if c.pos.Load() != n || len(l.slots) < maxSegment && !c.armed.Load() {
			return false
		}
	}
	return true
}

// sweepLocked releases the segments that every cursor has left and clears the
// entries that all have read, so that the log retains nothing that will not be
// read.
func (l *Log[E]) sweepLocked() {
	if l.keep || l.head == nil {
		return
	}
	if l.head == l.tail && (!l.pointers.Load() || l.swept >= l.Tail()) {
		return // there is nothing to release, wherever the cursors are
	}
	// A cursor at the ordinal just past the end of a segment still refers to
	// that segment, hence the strict comparisons below.
	low := l.Tail()
	l.holders = 0
	for _, c := range l.cursors {
		switch pos := c.pos.Load(); {
		case pos < low:
			low, l.holders = pos, 1
		case pos == low:
			l.holders++
		}
	}
	l.low = low
	for l.head != l.tail && l.head.end() < low {
		s := l.head
		if l.pointers.Load() {
			clear(s.slots[max(l.swept, s.base)-s.base:])
		}
		l.swept = s.end()
		l.head = s.next
		if l.spares < maxSpares && len(s.slots) == maxSegment {
			s.next, l.spare = l.spare, s
			l.spares++
		}
	}
	if !l.pointers.Load() {
		return
	}
	for s := l.head; s != nil && l.swept < low; s = s.next {
		from, to := max(l.swept, s.base), min(low, s.end())
		clear(s.slots[from-s.base : to-s.base])
		l.swept = to
	}
}

// Sweep clears what every cursor has read. A log does so by itself when it starts a
// segment.
func (l *Log[E]) Sweep() {
	l.mu.Lock()
	l.sweepLocked()
	l.mu.Unlock()
}

// trimLocked drops the entries that a stored log need not keep. Their segments
// are left to the garbage collector, because a reader may still be in them.
func (l *Log[E]) trimLocked() {
	if !l.keep || l.head == nil {
		return
	}
	n := l.Tail()
	if l.most > 0 && n > l.most {
		l.first = max(l.first, n-l.most)
	}
	for l.head != l.tail && l.head.end() <= l.first {
		l.head = l.head.next
	}
	if l.expired == nil {
		return
	}
	for ; l.first < n; l.first++ {
		if l.head != l.tail && l.head.end() <= l.first {
			l.head = l.head.next
		}
		if !l.expired(&l.head.slots[l.first-l.head.base]) {
			return
		}
	}
}

// Kept returns how many entries a stored log holds.
func (l *Log[E]) Kept() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trimLocked()
	return l.Tail() - l.first
}

// Find returns the ordinal of the first kept entry that reached reports true
// for, which must be false up to some entry and true from there on; the tail
// if there is none.
func (l *Log[E]) Find(reached func(*E) bool) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trimLocked()
	tail, n := l.Tail(), l.first
	for s := l.head; s != nil && n < tail; n++ {
		if s = s.seek(n); reached(&s.slots[n-s.base]) {
			break
		}
	}
	return n
}

// wake wakes the readers whose cursors are armed.
func (l *Log[E]) wake() {
	l.mu.Lock()
	for _, c := range l.cursors {
		l.rouseLocked(c)
	}
	l.mu.Unlock()
}

func (l *Log[E]) rouseLocked(c *Cursor[E]) {
	if c.armed.Load() && c.armed.CompareAndSwap(true, false) {
		l.sleepers.Add(-1)
		if c.seg.Load() == nil && l.head != nil {
			c.seg.Store(l.head.seek(c.pos.Load()))
		}
		c.reader.Ready(c)
	}
}

// WaitRoom returns a channel that is closed when appending is worth another
// try, or nil if it is now.
func (l *Log[E]) WaitRoom() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{})
	l.waiters = append(l.waiters, ch)
	l.waiting.Store(int32(len(l.waiters)))
	if room, _ := l.growLocked(); room != Full {
		l.waiters = l.waiters[:len(l.waiters)-1]
		l.waiting.Store(int32(len(l.waiters)))
		return nil
	}
	return ch
}

// Forget takes back what WaitRoom returned, when its caller waits no longer.
func (l *Log[E]) Forget(ch <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, waiter := range l.waiters {
		if waiter == ch {
			l.waiters = slices.Delete(l.waiters, i, i+1)
			l.waiting.Store(int32(len(l.waiters)))
			return
		}
	}
}

// room wakes the waiting appenders if there is enough room to be worth a switch
// of goroutines, or if the slowest reader has nothing left to read.
func (l *Log[E]) room() {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.Tail()
	gate, by := l.gateLocked()
	if n >= gate || by != nil && gate-n < (by.buffer+1)/2 && by.pos.Load() != n {
		return
	}
	l.releaseLocked()
}

func (l *Log[E]) releaseLocked() {
	for _, ch := range l.waiters {
		close(ch)
	}
	clear(l.waiters)
	l.waiters = l.waiters[:0]
	l.waiting.Store(0)
}

// Seal makes Append and its like fail from now on, and lets those that wait for
// room look again. Enter and Force still append. On a log with a single writer
// an append that has begun may still succeed.
func (l *Log[E]) Seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = true
	l.blockLocked()
}

// blockLocked makes all appenders take the slow path.
func (l *Log[E]) blockLocked() {
	if !l.sole { // nobody may append while the limit changes
		w := l.lock()
		defer l.word.Store(w)
	}
	l.limit.Store(0)
	l.releaseLocked()
}

// Close refuses further entries. What is there can still be read.
func (l *Log[E]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.blockLocked()
}
