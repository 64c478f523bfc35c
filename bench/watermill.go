package main

import (
	"context"
	"fmt"
	"sync"

	wm "github.com/ThreeDotsLabs/watermill"
	wmsg "github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// watermill is the GoChannel of github.com/ThreeDotsLabs/watermill. Publishing
// does not wait for acknowledgements. Messages get the kind of ID that its
// documentation uses, which is also the cheapest of the three that it offers.
var watermill = peer{
	name:     "Watermill GoChannel",
	slow:     100,
	pingSlow: 10,
	loose:    true, // a goroutine for each message
	stream: func(publishers int, subscribers []func(message)) session {
		w := newWatermill(1024)
		for _, take := range subscribers {
			w.receive("t", take)
		}
		return session{alike(publishers, w.publish), w.end}
	},
	group: func(publishers int, subscribers []func(message)) session {
		w := newWatermill(1024)
		w.receive("t", subscribers...)
		return session{alike(publishers, w.publish), w.end}
	},
	quiet: func() session {
		w := newWatermill(1024)
		return session{alike(1, w.publish), w.end}
	},
	pingpong: func(next func() bool) func() {
		w := newWatermill(1024)
		w.receive("ping", func(m message) { w.publishTo("pong", m) })
		w.receive("pong", func(m message) {
			if next() {
				w.publishTo("ping", m)
			}
		})
		w.publishTo("ping", message{})
		return w.end
	},
	many: func(subscribers []func(message)) topics {
		w := newWatermill(16)
		names := make([]string, len(subscribers))
		for i, take := range subscribers {
			names[i] = fmt.Sprintf("t%d", i)
			w.receive(names[i], take)
		}
		return topics{func(i int, m message) { w.publishTo(names[i], m) }, w.end}
	},
	idle: func(n int) func() {
		w := newWatermill(16)
		for range n {
			w.receive("t", nil)
		}
		return w.end
	},
}

type watermillBus struct {
	pubSub *gochannel.GoChannel
	wg     sync.WaitGroup
}

func newWatermill(buffer int64) *watermillBus {
	return &watermillBus{pubSub: gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: buffer}, wm.NopLogger{})}
}

func (w *watermillBus) publish(m message) { w.publishTo("t", m) }

func (w *watermillBus) publishTo(topic string, m message) {
	must(w.pubSub.Publish(topic, wmsg.NewMessage(wm.NewUUID(), encode(m))))
}

// receive starts a goroutine for each function in takes. They share one
// subscription.
func (w *watermillBus) receive(topic string, takes ...func(message)) {
	ch, err := w.pubSub.Subscribe(context.Background(), topic)
	must(err)
	for _, take := range takes {
		w.wg.Go(func() {
			for m := range ch {
				take(decode(m.Payload))
				m.Ack()
			}
		})
	}
}

func (w *watermillBus) end() {
	must(w.pubSub.Close())
	w.wg.Wait()
}
