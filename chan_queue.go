package hark

import (
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"
)

// valueQueue is the queue of a channel: values in linked segments that are
// reused. One goroutine at a time may push while one other may pop; the
// channel's two locks ensure this.
type valueQueue[T any] struct {
	limit int    // limit on the number of values; below 0 for none
	mask  uint64 // a segment holds mask+1 values
	wipe  bool   // T refers to other memory, which must not be retained longer than needed
	keep  int    // number of spare segments to keep

	_ [64]byte // keeps writes of one side out of the cache line that the other side reads

	tail   atomic.Uint64 // values pushed so far
	last   *segment[T]   // where the next value goes; used by the pushing side
	popped uint64        // head as last seen by the pushing side

	_ [64]byte

	head   atomic.Uint64 // values popped so far
	first  *segment[T]   // where the next value comes from; used by the popping side
	pushed uint64        // tail as last seen by the popping side

	_ [64]byte

	mu     sync.Mutex // guards the fields below
	spare  *segment[T]
	spares int
}

// segment is a piece of a valueQueue.
type segment[T any] struct {
	values []T
	next   *segment[T]
}

const (
	segmentBytes  = 2048 // approximate size of the values of a segment
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

// room reports whether there is room for one more value. Only the pushing side
// may call it.
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

// any reports whether there is a value. Only the popping side may call it.
func (q *valueQueue[T]) any() bool {
	head := q.head.Load()
	if head != q.pushed {
		return true
	}
	q.pushed = q.tail.Load()
	return head != q.pushed
}

// pop removes and returns the first value, which must exist.
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

// peek returns the first value, which must exist.
func (q *valueQueue[T]) peek() T {
	i := q.head.Load() & q.mask
	if i == 0 {
		return q.first.next.values[0]
	}
	return q.first.values[i]
}

// len is exact if no one pushes or pops.
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

// advance moves to the next segment and keeps the previous one for reuse.
func (q *valueQueue[T]) advance() {
	s := q.first
	q.first = s.next
	s.next = nil
	if s.values == nil {
		return // nothing precedes the first
	}
	q.mu.Lock()
	if q.spares < q.keep {
		s.next, q.spare = q.spare, s
		q.spares++
	}
	q.mu.Unlock()
}
