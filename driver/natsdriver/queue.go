package natsdriver

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// queue holds what has come for a subscription and has not been received, bounded in
// messages and in bytes. What finds no room is dropped, and counted.
type queue struct {
	room   int
	bounds *bounds
	wake   chan struct{} // has a token when take is to look again
	taken  []arrival     // what take last returned

	mu      sync.Mutex // guards the fields below
	waiting []arrival
	head    int       // arrivals before it have been taken
	parked  []arrival // they follow what was sent before them, once that has come
	size    int       // of waiting and parked
	moved   uint64    // messages that the server has sent, added or not
	lost    uint64
	over    bool         // nothing more is added
	watches []queueWatch // those that wait for messages to be moved
}

// arrival is a message that the server has sent, or one that was handed over.
type arrival struct {
	msg    *nats.Msg
	handed *driver.Received
	size   int
}

// queueWatch waits until so many messages have been moved.
type queueWatch struct {
	moved uint64
	done  chan struct{}
}

const (
	// maxMoved is how many messages are moved to a queue before others get its lock.
	maxMoved = 256
	// maxTakenBytes is how large the messages are together that are received at once,
	// unless one alone is larger.
	maxTakenBytes = 256 << 10
	// A message takes arrivalBytes of memory beside its text, and each of its headers
	// headerBytes.
	arrivalBytes, headerBytes = 256, 64
)

// bounds are how large the messages in the queues of a connection may be.
type bounds struct {
	each, all int // 0 for any size
	queues    atomic.Int64
}

// share returns how large the messages in one queue may be.
func (b *bounds) share() int {
	if b.all == 0 {
		return math.MaxInt
	}
	return min(b.each, b.all/int(max(b.queues.Load(), 1)))
}

func newQueue(room int, b *bounds) *queue {
	b.queues.Add(1)
	return &queue{room: room, bounds: b, wake: make(chan struct{}, 1)}
}

// move adds a message that the server has sent, and those that have come after it.
func (q *queue) move(m *nats.Msg, after <-chan *nats.Msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.rouse()
	q.moveLocked(m)
	for range maxMoved {
		select {
		case m := <-after:
			q.moveLocked(m)
			continue
		default:
		}
		break
	}
	kept := q.watches[:0]
	for _, w := range q.watches {
		if q.moved >= w.moved {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	q.watches = kept
}

func (q *queue) moveLocked(m *nats.Msg) {
	q.moved++
	q.waiting = q.addLocked(q.waiting, arrival{msg: m, size: m.Size() + arrivalBytes + headerBytes*len(m.Header)})
}

// addLocked appends a message to waiting or parked, if there is room for it.
func (q *queue) addLocked(to []arrival, a arrival) []arrival {
	n := len(q.waiting) - q.head + len(q.parked)
	switch {
	case q.over:
		return to
	case n >= q.room, n > 0 && q.size+a.size > q.bounds.share():
		q.lost++
		return to
	}
	q.size += a.size
	return append(to, a)
}

// put adds a message that is handed over.
func (q *queue) put(r *driver.Received, park bool) {
	a := arrival{handed: r, size: r.Size()}
	q.mu.Lock()
	defer q.mu.Unlock()
	if park {
		q.parked = q.addLocked(q.parked, a)
	} else {
		q.waiting = q.addLocked(q.waiting, a)
		q.rouse()
	}
}

// release lets parked messages follow what has come.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, q.parked...)
	q.parked = nil
	q.rouse()
}

// rouse makes take look again.
func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default: // it has not looked yet
	}
}

// take returns between 1 and most messages, in a slice that the next call reuses. It must
// be called by one goroutine at a time.
func (q *queue) take(ctx context.Context, most int) ([]arrival, error) {
	clear(q.taken)
	for {
		q.mu.Lock()
		q.takeLocked(most)
		over := q.over
		q.mu.Unlock()
		switch {
		case len(q.taken) > 0:
			return q.taken, nil
		case over:
			return nil, driver.ErrEnded
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (q *queue) takeLocked(most int) {
	all, size := q.waiting[q.head:], 0
	q.taken = q.taken[:0]
	for _, a := range all[:min(most, len(all))] {
		if size += a.size; size > maxTakenBytes && len(q.taken) > 0 {
			break
		}
		q.size -= a.size
		q.taken = append(q.taken, a)
	}
	clear(all[:len(q.taken)])
	q.head += len(q.taken)
	if q.head == len(q.waiting) || q.head > 64 && q.head > len(q.waiting)/2 {
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
}

// await waits until so many messages have been moved, or no more will be.
func (q *queue) await(ctx context.Context, moved uint64) error {
	q.mu.Lock()
	if q.moved >= moved || q.over {
		q.mu.Unlock()
		return nil
	}
	w := queueWatch{moved, make(chan struct{})}
	q.watches = append(q.watches, w)
	q.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end says that nothing more comes, and drops what waits if nobody is to receive it.
func (q *queue) end(drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.over {
		q.over = true
		q.bounds.queues.Add(-1)
	}
	for _, w := range q.watches {
		close(w.done)
	}
	q.watches = nil
	if drop {
		q.waiting, q.head, q.parked, q.size = nil, 0, nil, 0
	}
	q.rouse()
}

func (q *queue) dropParked() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.parked {
		q.size -= a.size
	}
	q.parked = nil
}

func (q *queue) hasParked() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.parked) > 0
}

// count returns how many messages are there, how many the server has sent, and how many
// found no room.
func (q *queue) count() (waiting int, moved, lost uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) - q.head + len(q.parked), q.moved, q.lost
}
