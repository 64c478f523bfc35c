package broker

import (
	"sort"
	"sync/atomic"

	"github.com/harkbus/hark/filter"
)

// lane holds the newest frames of a hub that match one filter, for all clients with
// that filter. A client only has a position in it, and no memory of its own. The
// hub's mutex guards it.
type lane struct {
	where   string
	filter  *filter.Filter // nil for all messages
	clients int

	frames []*frame
	head   int    // frames before it are gone
	first  uint64 // the number of the frame at head, from 1
	// from is the sequence of a stored topic from which on the lane has had all
	// matching messages.
	from uint64

	// waiting is how many clients may be waiting for wake. They count themselves,
	// with the mutex held for reading.
	waiting atomic.Int32
	wake    chan struct{}
}

func newLane(where string, f *filter.Filter, from uint64) *lane {
	return &lane{where: where, filter: f, first: 1, from: from, wake: make(chan struct{})}
}

// next is the number of the next frame.
func (l *lane) next() uint64 { return l.first + uint64(len(l.frames)-l.head) }

func (l *lane) push(f *frame) { l.frames = append(l.frames, f) }

// pop removes the oldest frame.
func (l *lane) pop() {
	l.from = l.frames[l.head].seq + 1
	l.frames[l.head] = nil
	l.head++
	l.first++
	if l.head > 64 && l.head > len(l.frames)/2 {
		n := copy(l.frames, l.frames[l.head:])
		clear(l.frames[n:])
		l.frames, l.head = l.frames[:n], 0
	}
}

// rouse returns the channel to close, once the mutex is unlocked, to wake those who
// wait; nil if nobody does.
func (l *lane) rouse() chan struct{} {
	if l.waiting.Swap(0) == 0 {
		return nil
	}
	asleep := l.wake
	l.wake = make(chan struct{})
	return asleep
}

// wakeAll closes channels returned by rouse.
func wakeAll(asleep []chan struct{}) {
	for _, c := range asleep {
		if c != nil {
			close(c)
		}
	}
}

// since returns the number of the first frame with sequence seq or later. It
// returns false if the lane may not have had all of them.
func (l *lane) since(seq uint64) (uint64, bool) {
	if seq < l.from {
		return 0, false
	}
	live := l.frames[l.head:]
	i := sort.Search(len(live), func(i int) bool { return live[i].seq >= seq })
	return l.first + uint64(i), true
}

// read appends the frames from number at on to dst, as many as fit into size and at
// least one, and returns the number of the next frame. lost is how many frames
// before the first were gone.
func (l *lane) read(dst []*frame, at uint64, most, size int) (frames []*frame, next, lost uint64) {
	if at < l.first {
		lost = l.first - at
		at = l.first
	}
	for _, f := range l.frames[l.head+int(at-l.first):] {
		if len(dst) == most || size < f.size() && len(dst) > 0 {
			break
		}
		size -= f.size()
		dst = append(dst, f)
		at++
	}
	return dst, at, lost
}
