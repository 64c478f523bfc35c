package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const maxPublishers = 8

// waitTimeout is how long the harness waits for messages before it reports them as
// missing.
const waitTimeout = time.Minute

// recorder is the subscribers' handler. It checks each message. Its cost is
// added to that of every contender, so it does little.
type recorder struct {
	next     [maxPublishers]uint64 // the seq expected next, by publisher
	got      uint64
	want     uint64 // signal done at this many; 0 for never
	done     chan<- struct{}
	disorder uint64  // not 0 if a message was not its publisher's next; a count where that is no fault
	damage   uint64  // not 0 if a message was damaged
	ledger   *ledger // nil where the order proves that all arrived
	end      *ending // of a group
	_        [64]byte
	shared   atomic.Uint64 // copy of got for the ending to read
	_        [64]byte
}

// take checks a message. It is called by one goroutine at a time.
func (r *recorder) take(m message) {
	next := &r.next[m.publisher%maxPublishers]
	r.damage |= m.damage()
	r.disorder |= m.seq ^ *next
	*next = m.seq + 1
	if r.got++; r.got == r.want {
		r.done <- struct{}{}
	}
}

// takeLoose is take for contenders that do not keep messages in order.
func (r *recorder) takeLoose(m message) {
	next := &r.next[m.publisher%maxPublishers]
	r.damage |= m.damage()
	if m.seq != *next {
		r.disorder++
	}
	*next = m.seq + 1
	r.ledger.mark(m)
	if r.got++; r.got == r.want {
		r.done <- struct{}{}
	}
}

// takeShared is take for contenders whose handlers of one subscription run
// concurrently.
func (r *recorder) takeShared(m message) {
	if m.damage() != 0 {
		atomic.OrUint64(&r.damage, m.damage())
	}
	if atomic.SwapUint64(&r.next[m.publisher%maxPublishers], m.seq+1) != m.seq {
		atomic.AddUint64(&r.disorder, 1)
	}
	r.ledger.markShared(m)
	want := r.want // read before the message counts: it may change after the last message
	if atomic.AddUint64(&r.got, 1) == want {
		r.done <- struct{}{}
	}
}

// share is take for a member of a group, which sees some of the messages. Those
// of one publisher are in ascending order.
func (r *recorder) share(m message) {
	next := &r.next[m.publisher%maxPublishers]
	r.damage |= m.damage()
	if m.seq < *next {
		r.disorder++
	}
	*next = m.seq + 1
	r.ledger.mark(m)
	r.got++
	r.shared.Store(r.got)
	if r.end.near.Load() {
		r.end.check()
	}
}

// verdict checks what a subscriber of everything received once each publisher
// has published each messages.
func (r *recorder) verdict(publishers int, each uint64, loose bool) error {
	if total := each * uint64(publishers); r.got != total {
		return fmt.Errorf("got %d messages, want %d", r.got, total)
	}
	if r.damage != 0 {
		return errors.New("messages are damaged")
	}
	if r.disorder > 0 && !loose {
		return errors.New("messages are out of order")
	}
	if r.ledger != nil {
		return complete(each, r.ledger)
	}
	return nil // in order and complete in number, so each arrived once
}

// ending detects when a group has received everything, without a counter that
// all members write.
type ending struct {
	members []*recorder
	want    atomic.Uint64
	near    atomic.Bool // if true, members check after each message
	done    chan struct{}
}

func (e *ending) got() (got uint64) {
	for _, r := range e.members {
		got += r.shared.Load()
	}
	return got
}

// check signals done once if everything has been received. A member stores its
// count before it reads near, and wait sets near before it reads the counts, so
// one of the two sees the last message.
func (e *ending) check() {
	if e.got() >= e.want.Load() && e.near.CompareAndSwap(true, false) {
		e.done <- struct{}{}
	}
}

// wait is called after everything has been published. It makes members check
// only when little is left, because the checks cost them time.
func (e *ending) wait() error {
	for deadline := time.Now().Add(waitTimeout); e.got()+1024 < e.want.Load(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("got %d messages, want %d", e.got(), e.want.Load())
		}
	}
	e.near.Store(true)
	e.check()
	select {
	case <-e.done:
		return nil
	case <-time.After(waitTimeout):
		return fmt.Errorf("got %d messages, want %d", e.got(), e.want.Load())
	}
}

// await waits for n signals.
func await(done <-chan struct{}, n int) error {
	timeout := time.After(waitTimeout)
	for i := range n {
		select {
		case <-done:
		case <-timeout:
			return fmt.Errorf("%d of %d subscribers miss messages", n-i, n)
		}
	}
	return nil
}
