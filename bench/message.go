package main

import (
	"fmt"
	"sync/atomic"
)

// message is what every contender carries: three words.
type message struct {
	publisher, seq, check uint64
}

func newMessage(publisher, seq uint64) message {
	return message{publisher, seq, publisher ^ seq ^ magic}
}

const (
	magic         = 0x9e3779b97f4a7c15
	maxPublishers = 8
)

// recorder is what a subscriber does with messages: it checks each one. It is
// used by one handler at a time.
type recorder struct {
	next     [maxPublishers]uint64 // the seq that is due, by publisher
	strict   bool                  // every message must come, in order of its publisher
	got      uint64
	sum      uint64 // of seqs
	want     uint64 // tell done at this many; 0 never
	done     chan struct{}
	disorder uint64
	damage   uint64
	_        [64]byte
	shared   atomic.Uint64 // got, for others to read; kept only where want is 0
	_        [64]byte
}

// take is called for each message received.
func (r *recorder) take(m message) {
	if m.check != m.publisher^m.seq^magic {
		r.damage++
		return
	}
	if m.seq != r.next[m.publisher] {
		r.disorder++
	}
	r.next[m.publisher] = m.seq + 1
	if r.got++; r.got == r.want {
		r.done <- struct{}{}
	}
}

// share is take where several subscribers share the messages.
func (r *recorder) share(m message) {
	if m.check != m.publisher^m.seq^magic {
		r.damage++
		return
	}
	if m.seq < r.next[m.publisher] {
		r.disorder++
	}
	r.next[m.publisher] = m.seq + 1
	r.got++
	r.sum += m.seq
	r.shared.Store(r.got)
}

// verdict says what is wrong with what was received, nil if nothing.
func (r *recorder) verdict() error {
	switch {
	case r.damage > 0:
		return fmt.Errorf("%d messages damaged", r.damage)
	case r.strict && r.disorder > 0:
		return fmt.Errorf("%d messages out of order", r.disorder)
	}
	return nil
}
