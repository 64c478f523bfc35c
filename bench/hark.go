package main

import (
	"context"
	"fmt"
	"time"

	"github.com/harkbus/hark"
)

var background = context.Background()

// harkTopic publishes with Topic.Publish, from any goroutine.
var harkTopic = peer{
	name: "hark",
	stream: func(publishers int, subscribers []func(message)) session {
		return harkSession(publishers, subscribers, func(t *hark.Topic[message], p int) func(from, to uint64) {
			return func(from, to uint64) {
				for seq := from; seq < to; seq++ {
					must(t.Publish(background, newMessage(uint64(p), seq)))
				}
			}
		})
	},
	group: func(publishers int, subscribers []func(message)) session {
		return harkSession(publishers, subscribers, func(t *hark.Topic[message], p int) func(from, to uint64) {
			return func(from, to uint64) {
				for seq := from; seq < to; seq++ {
					must(t.Publish(background, newMessage(uint64(p), seq)))
				}
			}
		}, hark.Group("g"))
	},
	pingpong: harkPingPong,
	many: func(n int, subscriber func(message)) manySession {
		bus := hark.New()
		topics := make([]*hark.Topic[message], n)
		for i := range topics {
			topics[i] = harkOpen(bus, fmt.Sprintf("t.%d", i))
			subscribe(topics[i], subscriber)
		}
		return manySession{
			publish: func(i int, m message) { must(topics[i].Publish(background, m)) },
			close:   func() { must(bus.Close(background)) },
		}
	},
	idle: func(n int) func() {
		bus := hark.New()
		t := harkOpen(bus, "t")
		nothing := func(context.Context, *hark.Message[message]) error { return nil }
		for range n {
			_, err := t.Subscribe(nothing)
			must(err)
		}
		return func() { must(bus.Close(background)) }
	},
	quiet: func(n int) {
		t := harkOpen(hark.New(), "t")
		for i := range n {
			must(t.Publish(background, message{0, uint64(i), 0}))
		}
	},
}

// harkPublisher publishes through a Publisher for each publishing goroutine.
var harkPublisher = peer{
	name:   "hark, publisher handle",
	stream: func(n int, subscribers []func(message)) session { return harkSession(n, subscribers, throughHandle) },
	group: func(n int, subscribers []func(message)) session {
		return harkSession(n, subscribers, throughHandle, hark.Group("g"))
	},
}

// harkBatch publishes with PublishAll, 64 messages at a time.
var harkBatch = peer{
	name: "hark, PublishAll of 64",
	stream: func(n int, subscribers []func(message)) session {
		return harkSession(n, subscribers, func(t *hark.Topic[message], p int) func(from, to uint64) {
			batch := make([]message, 0, 64)
			return func(from, to uint64) {
				for seq := from; seq < to; {
					batch = batch[:0]
					for ; len(batch) < cap(batch) && seq < to; seq++ {
						batch = append(batch, newMessage(uint64(p), seq))
					}
					must(t.PublishAll(background, batch))
				}
			}
		})
	},
}

func throughHandle(t *hark.Topic[message], p int) func(from, to uint64) {
	h := t.Publisher()
	return func(from, to uint64) {
		for seq := from; seq < to; seq++ {
			must(h.Publish(background, newMessage(uint64(p), seq)))
		}
	}
}

func harkSession(publishers int, subscribers []func(message), publisher func(*hark.Topic[message], int) func(from, to uint64), opts ...hark.SubscribeOption) session {
	bus := hark.New()
	t := harkOpen(bus, "t")
	s := session{close: func() { must(bus.Close(background)) }}
	for _, sub := range subscribers {
		subscribe(t, sub, opts...)
	}
	for p := range publishers {
		s.publish = append(s.publish, publisher(t, p))
	}
	return s
}

func harkPingPong(n int) []time.Duration {
	bus := hark.New()
	ping, pong := harkOpen(bus, "ping"), harkOpen(bus, "pong")
	rounds := newRounds(n)
	_, err := ping.Subscribe(func(ctx context.Context, m *hark.Message[message]) error { return pong.Publish(ctx, m.Value) })
	must(err)
	_, err = pong.Subscribe(func(ctx context.Context, m *hark.Message[message]) error {
		if !rounds.next() {
			return nil
		}
		return ping.Publish(ctx, m.Value)
	})
	must(err)
	must(ping.Publish(background, message{}))
	rounds.wait()
	must(bus.Close(background))
	return rounds.took
}

func harkOpen(bus *hark.Bus, name string) *hark.Topic[message] {
	t, err := hark.NewTopic[message](bus, name)
	must(err)
	return t
}

func subscribe(t *hark.Topic[message], f func(message), opts ...hark.SubscribeOption) {
	_, err := t.Subscribe(func(_ context.Context, m *hark.Message[message]) error {
		f(m.Value)
		return nil
	}, opts...)
	must(err)
}

// must stops the benchmark: what it measures would not be what it says.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
