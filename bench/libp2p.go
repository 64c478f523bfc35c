package main

import (
	"sync"

	p2pevent "github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// libp2p is the event bus of github.com/libp2p/go-libp2p, which has a channel
// of interfaces for each subscription. Its topics are types. The members of a
// group share a subscription.
var libp2p = peer{
	name: "libp2p eventbus",
	slow: 2,
	stream: func(publishers int, subscribers []func(message)) session {
		b := &libp2pBus{Bus: eventbus.NewBus()}
		for _, take := range subscribers {
			b.receive(1024, new(message), take)
		}
		return b.session(publishers)
	},
	group: func(publishers int, subscribers []func(message)) session {
		b := &libp2pBus{Bus: eventbus.NewBus()}
		b.receive(1024, new(message), subscribers...)
		return b.session(publishers)
	},
	quiet: func() session {
		b := &libp2pBus{Bus: eventbus.NewBus()}
		return b.session(1)
	},
	pingpong: func(next func() bool) func() {
		b := &libp2pBus{Bus: eventbus.NewBus()}
		ping, pong := b.emitter(new(message)), b.emitter(new(libp2pPong))
		b.receive(1024, new(message), func(m message) { must(pong.Emit(libp2pPong(m))) })
		b.receive(1024, new(libp2pPong), func(m message) {
			if next() {
				must(ping.Emit(m))
			}
		})
		must(ping.Emit(message{}))
		return b.end
	},
	idle: func(n int) func() {
		b := &libp2pBus{Bus: eventbus.NewBus()}
		for range n {
			b.receive(16, new(message), nil)
		}
		return b.end
	},
}

type libp2pPong message

type libp2pBus struct {
	p2pevent.Bus
	wg      sync.WaitGroup
	closers []func() error
}

// receive starts a goroutine for each function in takes. They share one
// subscription.
func (b *libp2pBus) receive(buffer int, typ any, takes ...func(message)) {
	sub, err := b.Subscribe(typ, eventbus.BufSize(buffer))
	must(err)
	b.closers = append(b.closers, sub.Close)
	for _, take := range takes {
		b.wg.Go(func() {
			for e := range sub.Out() {
				switch m := e.(type) {
				case message:
					take(m)
				case libp2pPong:
					take(message(m))
				}
			}
		})
	}
}

func (b *libp2pBus) emitter(typ any) p2pevent.Emitter {
	em, err := b.Emitter(typ)
	must(err)
	b.closers = append(b.closers, em.Close)
	return em
}

func (b *libp2pBus) session(publishers int) session {
	em := b.emitter(new(message))
	return session{alike(publishers, func(m message) { must(em.Emit(m)) }), b.end}
}

func (b *libp2pBus) end() {
	for _, c := range b.closers {
		must(c())
	}
	b.wg.Wait()
}
