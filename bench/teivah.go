package main

import (
	"sync"

	"github.com/teivah/broadcast"
)

// teivah is github.com/teivah/broadcast, which has a channel for each listener
// under a common lock. The members of a group share a listener.
var teivah = peer{
	name: "teivah/broadcast",
	slow: 2,
	stream: func(publishers int, subscribers []func(message)) session {
		relay := broadcast.NewRelay[message]()
		var wg sync.WaitGroup
		for _, take := range subscribers {
			receive(&wg, relay.Listener(1024).Ch(), take)
		}
		return session{alike(publishers, relay.Notify), func() { relay.Close(); wg.Wait() }}
	},
	group: func(publishers int, subscribers []func(message)) session {
		relay := broadcast.NewRelay[message]()
		var wg sync.WaitGroup
		ch := relay.Listener(1024).Ch()
		for _, take := range subscribers {
			receive(&wg, ch, take)
		}
		return session{alike(publishers, relay.Notify), func() { relay.Close(); wg.Wait() }}
	},
	quiet: func() session {
		relay := broadcast.NewRelay[message]()
		return session{alike(1, relay.Notify), relay.Close}
	},
	pingpong: func(next func() bool) func() {
		ping, pong := broadcast.NewRelay[message](), broadcast.NewRelay[message]()
		var wg sync.WaitGroup
		receive(&wg, ping.Listener(1024).Ch(), pong.Notify)
		receive(&wg, pong.Listener(1024).Ch(), func(m message) {
			if next() {
				ping.Notify(m)
			}
		})
		ping.Notify(message{})
		return func() { ping.Close(); pong.Close(); wg.Wait() }
	},
	idle: func(n int) func() {
		relay := broadcast.NewRelay[message]()
		var wg sync.WaitGroup
		for range n {
			receive(&wg, relay.Listener(16).Ch(), nil)
		}
		return func() { relay.Close(); wg.Wait() }
	},
}
