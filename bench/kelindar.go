package main

import (
	"context"
	"time"

	"github.com/kelindar/event"
)

// kelindarEvent is a message as kelindar/event wants it.
type kelindarEvent struct{ message }

func (kelindarEvent) Type() uint32 { return 1 }

type kelindarPong struct{ message }

func (kelindarPong) Type() uint32 { return 2 }

// kelindar is github.com/kelindar/event: one queue for each subscriber under a
// common lock, flushed by a timer.
var kelindar = peer{
	name: "kelindar/event",
	stream: func(publishers int, subscribers []func(message)) session {
		d := event.NewDispatcher()
		var cancels []context.CancelFunc
		for _, take := range subscribers {
			cancels = append(cancels, event.Subscribe(d, func(e kelindarEvent) { take(e.message) }))
		}
		return session{
			publish: perMessage(publishers, func(m message) { event.Publish(d, kelindarEvent{m}) }),
			close:   func() { closeAll(cancels); must(d.Close()) },
		}
	},
	pingpong: func(n int) []time.Duration {
		d := event.NewDispatcher()
		rounds := newRounds(n)
		cancels := []context.CancelFunc{
			event.Subscribe(d, func(e kelindarEvent) { event.Publish(d, kelindarPong(e)) }),
			event.Subscribe(d, func(e kelindarPong) {
				if rounds.next() {
					event.Publish(d, kelindarEvent(e))
				}
			}),
		}
		event.Publish(d, kelindarEvent{})
		rounds.wait()
		closeAll(cancels)
		must(d.Close())
		return rounds.took
	},
	pingSlow: 500, // it waits for a timer
}

func closeAll(cancels []context.CancelFunc) {
	for _, cancel := range cancels {
		cancel()
	}
}
