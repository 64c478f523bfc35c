package main

import "github.com/asaskevich/EventBus"

// asaskevich is github.com/asaskevich/EventBus with SubscribeAsync, which
// starts a goroutine for each delivery. Its transactional mode, which handles
// one message at a time, is slower.
var asaskevich = peer{
	name:    "asaskevich/EventBus, async",
	slow:    20,
	loose:   true,
	overlap: true,
	stream: func(publishers int, subscribers []func(message)) session {
		bus := EventBus.New()
		for _, take := range subscribers {
			must(bus.SubscribeAsync("t", take, false))
		}
		return session{alike(publishers, func(m message) { bus.Publish("t", m) }), bus.WaitAsync}
	},
	quiet: asaskevichQuiet,
	pingpong: func(next func() bool) func() {
		bus := EventBus.New()
		must(bus.SubscribeAsync("ping", func(m message) { bus.Publish("pong", m) }, false))
		must(bus.SubscribeAsync("pong", func(m message) {
			if next() {
				bus.Publish("ping", m)
			}
		}, false))
		bus.Publish("ping", message{})
		return bus.WaitAsync
	},
	pingSlow: 4,
	idle: func(n int) func() {
		bus := EventBus.New()
		for range n {
			must(bus.SubscribeAsync("t", func(message) {}, false))
		}
		return func() { bus.WaitAsync() }
	},
}

// asaskevichSync is the same with Subscribe. Handlers run in the publisher,
// under the lock of the bus, so none can publish.
var asaskevichSync = peer{
	name: "asaskevich/EventBus, sync",
	slow: 10,
	stream: func(publishers int, subscribers []func(message)) session {
		bus := EventBus.New()
		for _, take := range subscribers {
			must(bus.Subscribe("t", take))
		}
		return session{alike(publishers, func(m message) { bus.Publish("t", m) }), func() {}}
	},
}

func asaskevichQuiet() session {
	bus := EventBus.New()
	return session{alike(1, func(m message) { bus.Publish("t", m) }), func() {}}
}
