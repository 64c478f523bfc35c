package main

import (
	"fmt"

	"github.com/gookit/event"
)

// gookit is github.com/gookit/event with FireAsync: one channel of 1024 and one
// consumer for all topics, which keeps messages in order.
var gookit = peer{
	name: "gookit/event, async",
	slow: 4,
	stream: func(publishers int, subscribers []func(message)) session {
		em := newGookit()
		for _, take := range subscribers {
			gookitOn(em, "t", take)
		}
		return gookitSession(em, publishers)
	},
	quiet: func() session { return gookitSession(newGookit(), 1) },
	pingpong: func(next func() bool) func() {
		em := newGookit()
		gookitOn(em, "ping", func(m message) { gookitFire(em, "pong", m) })
		gookitOn(em, "pong", func(m message) {
			if next() {
				gookitFire(em, "ping", m)
			}
		})
		gookitFire(em, "ping", message{})
		return func() { must(em.CloseWait()) }
	},
	many: func(subscribers []func(message)) topics {
		em := newGookit()
		names := make([]string, len(subscribers))
		for i, take := range subscribers {
			names[i] = fmt.Sprintf("t%d", i)
			gookitOn(em, names[i], take)
		}
		return topics{
			publish: func(i int, m message) { gookitFire(em, names[i], m) },
			end:     func() { must(em.CloseWait()) },
		}
	},
}

type gookitEvent struct {
	event.BasicEvent
	message
}

func newGookit() *event.Manager {
	return event.NewManager("bench", func(o *event.Options) { o.ConsumerNum, o.ChannelSize = 1, 1024 })
}

func gookitOn(em *event.Manager, name string, take func(message)) {
	em.On(name, event.ListenerFunc(func(e event.Event) error {
		take(e.(*gookitEvent).message)
		return nil
	}))
}

func gookitFire(em *event.Manager, name string, m message) {
	e := &gookitEvent{message: m}
	e.SetName(name)
	em.FireAsync(e)
}

func gookitSession(em *event.Manager, publishers int) session {
	return session{
		publish: alike(publishers, func(m message) { gookitFire(em, "t", m) }),
		end:     func() { must(em.CloseWait()) },
	}
}
