package main

import (
	"context"
	"fmt"

	"github.com/harkbus/hark"
)

const (
	plainHark = "hark"
	handle    = "hark, publisher handle"
	batch     = "hark, PublishAll of 64"
)

var background = context.Background()

// harkTopic publishes with Topic.Publish from any goroutine.
var harkTopic = peer{
	name:   plainHark,
	stream: harkStream(throughTopic),
	group:  harkStream(throughTopic, hark.Group("g")),
	quiet:  harkQuiet(throughTopic),
	pingpong: func(next func() bool) func() {
		bus := hark.New()
		ping, pong := harkOpen(bus, "ping"), harkOpen(bus, "pong")
		harkHandle(ping, func(ctx context.Context, m message) error { return pong.Publish(ctx, m) })
		harkHandle(pong, func(ctx context.Context, m message) error {
			if !next() {
				return nil
			}
			return ping.Publish(ctx, m)
		})
		must(ping.Publish(background, message{}))
		return harkEnd(bus)
	},
	many: func(subscribers []func(message)) topics {
		bus := hark.New()
		ts := make([]*hark.Topic[message], len(subscribers))
		for i, take := range subscribers {
			ts[i] = harkOpen(bus, fmt.Sprintf("t.%d", i))
			harkSubscribe(ts[i], take)
		}
		return topics{func(i int, m message) { must(ts[i].Publish(background, m)) }, harkEnd(bus)}
	},
	idle: func(n int) func() { return harkEnd(harkIdle(n, 1)) },
}

// harkPublisher publishes with one Publisher for each publishing goroutine. In
// the ping-pong, each of the two handlers has a Publisher too.
var harkPublisher = peer{
	name:   handle,
	stream: harkStream(throughHandle),
	group:  harkStream(throughHandle, hark.Group("g")),
	quiet:  harkQuiet(throughHandle),
	pingpong: func(next func() bool) func() {
		bus := hark.New()
		ping, pong := harkOpen(bus, "ping"), harkOpen(bus, "pong")
		toPing, toPong := ping.Publisher(), pong.Publisher()
		harkHandle(ping, func(ctx context.Context, m message) error { return toPong.Publish(ctx, m) })
		harkHandle(pong, func(ctx context.Context, m message) error {
			if !next() {
				return nil
			}
			return toPing.Publish(ctx, m)
		})
		must(ping.Publish(background, message{}))
		return harkEnd(bus)
	},
}

// harkBatch publishes with PublishAll, 64 messages at a time.
var harkBatch = peer{
	name:   batch,
	stream: harkStream(inBatches),
	group:  harkStream(inBatches, hark.Group("g")),
	quiet:  harkQuiet(inBatches),
}

// harkManyTopics spreads its subscriptions over 10,000 topics.
var harkManyTopics = peer{
	name: "hark, over 10,000 topics",
	idle: func(n int) func() { return harkEnd(harkIdle(n, topicCount)) },
}

// harkWay returns the publishing function of publisher p.
type harkWay func(t *hark.Topic[message], p int) func(from, to uint64)

func throughTopic(t *hark.Topic[message], p int) func(from, to uint64) {
	return func(from, to uint64) {
		for seq := from; seq < to; seq++ {
			must(t.Publish(background, newMessage(uint64(p), seq)))
		}
	}
}

func throughHandle(t *hark.Topic[message], p int) func(from, to uint64) {
	h := t.Publisher()
	return func(from, to uint64) {
		for seq := from; seq < to; seq++ {
			must(h.Publish(background, newMessage(uint64(p), seq)))
		}
	}
}

func inBatches(t *hark.Topic[message], p int) func(from, to uint64) {
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
}

func harkStream(way harkWay, opts ...hark.SubscribeOption) func(int, []func(message)) session {
	return func(publishers int, subscribers []func(message)) session {
		bus := hark.New()
		t := harkOpen(bus, "t")
		for _, take := range subscribers {
			harkSubscribe(t, take, opts...)
		}
		return harkSession(bus, t, publishers, way)
	}
}

func harkQuiet(way harkWay) func() session {
	return func() session {
		bus := hark.New()
		return harkSession(bus, harkOpen(bus, "t"), 1, way)
	}
}

func harkSession(bus *hark.Bus, t *hark.Topic[message], publishers int, way harkWay) session {
	s := session{end: harkEnd(bus)}
	for p := range publishers {
		s.publish = append(s.publish, way(t, p))
	}
	return s
}

func harkIdle(n, topics int) *hark.Bus {
	bus := hark.New()
	nothing := func(context.Context, *hark.Message[message]) error { return nil }
	for i := range topics {
		t := harkOpen(bus, fmt.Sprintf("t.%d", i))
		for range n/topics + min(1, max(0, n%topics-i)) {
			_, err := t.Subscribe(nothing)
			must(err)
		}
	}
	return bus
}

func harkOpen(bus *hark.Bus, name string) *hark.Topic[message] {
	t, err := hark.NewTopic[message](bus, name)
	must(err)
	return t
}

func harkSubscribe(t *hark.Topic[message], take func(message), opts ...hark.SubscribeOption) {
	_, err := t.Subscribe(func(_ context.Context, m *hark.Message[message]) error {
		take(m.Value)
		return nil
	}, opts...)
	must(err)
}

func harkHandle(t *hark.Topic[message], f func(context.Context, message) error) {
	_, err := t.Subscribe(func(ctx context.Context, m *hark.Message[message]) error { return f(ctx, m.Value) })
	must(err)
}

func harkEnd(bus *hark.Bus) func() {
	return func() { must(bus.Close(background)) }
}
