package main

import (
	"errors"
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
	disorder uint64 // not 0 if a message came out of order
	damage   uint64 // not 0 if one was damaged
	_        [64]byte
	shared   atomic.Uint64 // got, for others to read; kept only where want is 0
	_        [64]byte
}

// take is called for each message received. It does little, because what it
// costs is added to what every contender costs.
func (r *recorder) take(m message) {
	next := &r.next[m.publisher%maxPublishers]
	r.damage |= m.check ^ m.publisher ^ m.seq ^ magic
	r.disorder |= m.seq ^ *next
	*next = m.seq + 1
	if r.got++; r.got == r.want {
		r.done <- struct{}{}
	}
}

// share is take where several subscribers share the messages.
func (r *recorder) share(m message) {
	r.damage |= m.check ^ m.publisher ^ m.seq ^ magic
	r.got++
	r.sum += m.seq
	r.shared.Store(r.got)
}

// verdict says what is wrong with what was received, nil if nothing.
func (r *recorder) verdict() error {
	switch {
	case r.damage > 0:
		return errors.New("messages are damaged")
	case r.strict && r.disorder > 0:
		return errors.New("messages are out of order")
	}
	return nil
}
