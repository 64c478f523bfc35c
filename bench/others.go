package main

import (
	"sync"

	"github.com/asaskevich/EventBus"
	"github.com/cskr/pubsub/v2"
	"github.com/gookit/event"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/teivah/broadcast"
)

// cskr is github.com/cskr/pubsub: one goroutine between publishers and a
// channel for each subscriber.
var cskr = peer{
	name: "cskr/pubsub",
	slow: 4,
	stream: func(publishers int, subscribers []func(message)) session {
		ps := pubsub.New[string, message](1024)
		var wg sync.WaitGroup
		for _, take := range subscribers {
			receive(&wg, ps.Sub("t"), take)
		}
		return session{
			publish: perMessage(publishers, func(m message) { ps.Pub(m, "t") }),
			close:   func() { ps.Shutdown(); wg.Wait() },
		}
	},
}

// asaskevich is github.com/asaskevich/EventBus with SubscribeAsync: a goroutine
// for each delivery.
var asaskevich = peer{
	name:  "asaskevich/EventBus, async",
	slow:  20,
	loose: true,
	stream: func(publishers int, subscribers []func(message)) session {
		bus := EventBus.New()
		for _, take := range subscribers {
			var mu sync.Mutex // handlers overlap
			must(bus.SubscribeAsync("t", func(m message) {
				mu.Lock()
				defer mu.Unlock()
				take(m)
			}, false))
		}
		return session{
			publish: perMessage(publishers, func(m message) { bus.Publish("t", m) }),
			close:   bus.WaitAsync,
		}
	},
}

// gookit is github.com/gookit/event with FireAsync: a channel of 1024 and one
// consumer.
var gookit = peer{
	name: "gookit/event, async",
	slow: 4,
	stream: func(publishers int, subscribers []func(message)) session {
		em := event.NewManager("bench", func(o *event.Options) { o.ConsumerNum, o.ChannelSize = 1, 1024 })
		for _, take := range subscribers {
			em.On("t", event.ListenerFunc(func(e event.Event) error {
				take(e.(*gookitEvent).message)
				return nil
			}))
		}
		return session{
			publish: perMessage(publishers, func(m message) {
				e := &gookitEvent{message: m}
				e.SetName("t")
				em.FireAsync(e)
			}),
			close: func() { must(em.CloseWait()) },
		}
	},
}

type gookitEvent struct {
	event.BasicEvent
	message
}

// teivah is github.com/teivah/broadcast: a channel for each listener under a
// common lock.
var teivah = peer{
	name: "teivah/broadcast",
	slow: 2,
	stream: func(publishers int, subscribers []func(message)) session {
		relay := broadcast.NewRelay[message]()
		var wg sync.WaitGroup
		for _, take := range subscribers {
			receive(&wg, relay.Listener(1024).Ch(), take)
		}
		return session{
			publish: perMessage(publishers, relay.Notify),
			close:   func() { relay.Close(); wg.Wait() },
		}
	},
}

// libp2p is the event bus of github.com/libp2p/go-libp2p.
var libp2p = peer{
	name: "libp2p eventbus",
	slow: 2,
	stream: func(publishers int, subscribers []func(message)) session {
		bus := eventbus.NewBus()
		var wg sync.WaitGroup
		var closers []func() error
		for _, take := range subscribers {
			sub, err := bus.Subscribe(new(message), eventbus.BufSize(1024))
			must(err)
			closers = append(closers, sub.Close)
			wg.Go(func() {
				for e := range sub.Out() {
					take(e.(message))
				}
			})
		}
		em, err := bus.Emitter(new(message))
		must(err)
		return session{
			publish: perMessage(publishers, func(m message) { must(em.Emit(m)) }),
			close: func() {
				for _, c := range closers {
					must(c())
				}
				wg.Wait()
				must(em.Close())
			},
		}
	},
}

func receive(wg *sync.WaitGroup, ch <-chan message, take func(message)) {
	wg.Go(func() {
		for m := range ch {
			take(m)
		}
	})
}
