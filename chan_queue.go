package hark

import (
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"
)

// valueQueue is the queue of a channel: values in segments that are chained
// and used again. One goroutine at a time may push, and one may pop at the
// same time; the channel's two locks see to that.
type valueQueue[T any] struct {
	limit int    // values that there may be at most; below 0 none
	mask  uint64 // a segment holds mask+1 values
	wipe  bool   // T refers to other memory, which must not be held longer than needed
	keep  int    // spare segments kept

	_ [64]byte // one side must not slow down the other by writing beside what it reads

	tail   atomic.Uint64 // values pushed so far
	last   *segment[T]   // where the next goes; for the pushing side
	popped uint64        // head as the pushing side saw it last

	_ [64]byte

	head   atomic.Uint64 // values popped so far
	first  *segment[T]   // where the next comes from; for the popping side
	pushed uint64        // tail as the popping side saw it last

	_ [64]byte

	mu     sync.Mutex // guards what follows
	spare  *segment[T]
	spares int
}

// segment is a piece of a valueQueue.
type segment[T any] struct {
	values []T
	next   *segment[T]
}

const (
	segmentBytes  = 2048 // about what the values of a segment take
	unboundedKeep = 16
)

func (q *valueQueue[T]) init(limit int) {
	q.limit = limit
	n, size := uint64(16), uint64(unsafe.Sizeof(*new(T)))
	for n*size < segmentBytes && n < 256 && (limit < 0 || n < uint64(limit)) {
		n *= 2
	}
	q.mask = n - 1
	q.keep = unboundedKeep
	if limit >= 0 {
		q.keep = limit/int(n) + 2
	}
	q.wipe = refers(reflect.TypeFor[T]())
	q.first = &segment[T]{}
	q.last = q.first
}

// refers reports whether values of type t may refer to other memory.
func refers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return false
	case reflect.Array:
		return t.Len() > 0 && refers(t.Elem())
	case reflect.Struct:
		for field := range t.Fields() {
			if refers(field.Type) {
				return true
			}
		}
		return false
	}
	return true
}

// room reports whether there is room for one more. It is for the pushing side.
func (q *valueQueue[T]) room() bool {
	if q.limit < 0 || q.tail.Load()-q.popped < uint64(q.limit) {
		return true
	}
	q.popped = q.head.Load()
	return q.tail.Load()-q.popped < uint64(q.limit)
}

// push adds v at the end, whether or not there is room.
func (q *valueQueue[T]) push(v T) {
	tail := q.tail.Load()
	i := tail & q.mask
	if i == 0 {
		q.extend()
	}
	q.last.values[i] = v
	q.tail.Store(tail + 1)
}

// any reports whether there is a value. It is for the popping side.
func (q *valueQueue[T]) any() bool {
	head := q.head.Load()
	if head != q.pushed {
		return true
	}
	q.pushed = q.tail.Load()
	return head != q.pushed
}

// pop takes out the first value, which must be there.
func (q *valueQueue[T]) pop() T {
	head := q.head.Load()
	i := head & q.mask
	if i == 0 {
		q.advance()
	}
	slot := &q.first.values[i]
	v := *slot
	if q.wipe {
		var zero T
		*slot = zero
	}
	q.head.Store(head + 1)
	return v
}

// peek returns the first value, which must be there.
func (q *valueQueue[T]) peek() T {
	i := q.head.Load() & q.mask
	if i == 0 {
		return q.first.next.values[0]
	}
	return q.first.values[i]
}

// len is exact if nobody pushes or pops.
func (q *valueQueue[T]) len() int { return int(q.tail.Load() - q.head.Load()) }

// extend adds a segment at the end.
func (q *valueQueue[T]) extend() {
	q.mu.Lock()
	s := q.spare
	if s != nil {
		q.spare, s.next = s.next, nil
		q.spares--
	}
	q.mu.Unlock()
	if s == nil {
		s = &segment[T]{values: make([]T, q.mask+1)}
	}
	q.last.next = s
	q.last = s
}

// advance goes on to the next segment and puts the one left aside for use
// again.
func (q *valueQueue[T]) advance() {
	s := q.first
	q.first = s.next
	s.next = nil
	if s.values == nil {
		return // the one before the first
	}
	q.mu.Lock()
	if q.spares < q.keep {
		s.next, q.spare = q.spare, s
		q.spares++
	}
	q.mu.Unlock()
}
