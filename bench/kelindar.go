package main

import (
	"context"

	"github.com/kelindar/event"
)

// kelindarEvent is a message as kelindar/event requires it: of a type with a
// number.
type kelindarEvent struct{ message }

func (kelindarEvent) Type() uint32 { return 1 }

type kelindarPong struct{ message }

func (kelindarPong) Type() uint32 { return 2 }

// kelindar is github.com/kelindar/event, which has a queue for each subscriber
// under a common lock, flushed by a timer.
var kelindar = peer{
	name: "kelindar/event",
	stream: func(publishers int, subscribers []func(message)) session {
		d := event.NewDispatcher()
		var cancels []context.CancelFunc
		for _, take := range subscribers {
			cancels = append(cancels, event.Subscribe(d, func(e kelindarEvent) { take(e.message) }))
		}
		return session{kelindarPublish(d, publishers), func() { cancelAll(cancels); must(d.Close()) }}
	},
	quiet: func() session {
		d := event.NewDispatcher()
		return session{kelindarPublish(d, 1), func() { must(d.Close()) }}
	},
	pingpong: func(next func() bool) func() {
		d := event.NewDispatcher()
		cancels := []context.CancelFunc{
			event.Subscribe(d, func(e kelindarEvent) { event.Publish(d, kelindarPong(e)) }),
			event.Subscribe(d, func(e kelindarPong) {
				if next() {
					event.Publish(d, kelindarEvent(e))
				}
			}),
		}
		event.Publish(d, kelindarEvent{})
		return func() { cancelAll(cancels); must(d.Close()) }
	},
	pingSlow: 500, // each round trip waits for the timer
	idle: func(n int) func() {
		d := event.NewDispatcher()
		var cancels []context.CancelFunc
		for range n {
			cancels = append(cancels, event.Subscribe(d, func(kelindarEvent) {}))
		}
		return func() { cancelAll(cancels); must(d.Close()) }
	},
}

func kelindarPublish(d *event.Dispatcher, publishers int) []func(from, to uint64) {
	fs := make([]func(from, to uint64), publishers)
	for p := range fs {
		fs[p] = func(from, to uint64) {
			for seq := from; seq < to; seq++ {
				event.Publish(d, kelindarEvent{newMessage(uint64(p), seq)})
			}
		}
	}
	return fs
}

func cancelAll(cancels []context.CancelFunc) {
	for _, cancel := range cancels {
		cancel()
	}
}
