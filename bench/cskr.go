package main

import (
	"fmt"
	"sync"

	"github.com/cskr/pubsub/v2"
)

// cskr is github.com/cskr/pubsub, which puts one goroutine between the
// publishers and a channel for each subscriber.
var cskr = peer{
	name: "cskr/pubsub",
	slow: 4,
	stream: func(publishers int, subscribers []func(message)) session {
		ps := pubsub.New[string, message](1024)
		var wg sync.WaitGroup
		for _, take := range subscribers {
			receive(&wg, ps.Sub("t"), take)
		}
		return cskrSession(ps, &wg, publishers)
	},
	group: func(publishers int, subscribers []func(message)) session {
		ps := pubsub.New[string, message](1024)
		var wg sync.WaitGroup
		ch := ps.Sub("t")
		for _, take := range subscribers {
			receive(&wg, ch, take)
		}
		return cskrSession(ps, &wg, publishers)
	},
	quiet: func() session {
		return cskrSession(pubsub.New[string, message](1024), new(sync.WaitGroup), 1)
	},
	pingpong: func(next func() bool) func() {
		ps := pubsub.New[string, message](1024)
		var wg sync.WaitGroup
		receive(&wg, ps.Sub("ping"), func(m message) { ps.Pub(m, "pong") })
		receive(&wg, ps.Sub("pong"), func(m message) {
			if next() {
				ps.Pub(m, "ping")
			}
		})
		ps.Pub(message{}, "ping")
		return func() { ps.Shutdown(); wg.Wait() }
	},
	many: func(subscribers []func(message)) topics {
		ps := pubsub.New[string, message](16)
		var wg sync.WaitGroup
		names := make([]string, len(subscribers))
		for i, take := range subscribers {
			names[i] = fmt.Sprintf("t%d", i)
			receive(&wg, ps.Sub(names[i]), take)
		}
		return topics{
			publish: func(i int, m message) { ps.Pub(m, names[i]) },
			end:     func() { ps.Shutdown(); wg.Wait() },
		}
	},
	idle: func(n int) func() {
		ps := pubsub.New[string, message](16)
		var wg sync.WaitGroup
		for range n {
			receive(&wg, ps.Sub("t"), nil)
		}
		return func() { ps.Shutdown(); wg.Wait() }
	},
}

func cskrSession(ps *pubsub.PubSub[string, message], wg *sync.WaitGroup, publishers int) session {
	return session{
		publish: alike(publishers, func(m message) { ps.Pub(m, "t") }),
		end:     func() { ps.Shutdown(); wg.Wait() },
	}
}
