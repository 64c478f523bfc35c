package main

import "golang.design/x/chann"

const channName = "golang-design/chann"

// channs is golang.design/x/chann: built-in channels, and if unbounded
// (capacity below 0) a goroutine and a slice between two of them.
func channs(capacity int) peer {
	return pipes(channName, func() pipe {
		ch := chann.New[message](chann.Cap(capacity))
		in, out := ch.In(), ch.Out()
		return pipe{
			put: func(m message) { in <- m },
			drain: func(take func(message)) {
				for m := range out {
					take(m)
				}
			},
			close: ch.Close,
		}
	})
}
