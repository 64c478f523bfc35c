package main

import (
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// nats is core NATS: an embedded server that listens nowhere, and connections
// within the process, one for each publisher and each subscriber. It carries
// bytes, so each message is encoded, and it never waits for subscribers.
var nats = peer{
	name:     "NATS, in process",
	slow:     8,
	pingSlow: 20,
	stream: func(publishers int, subscribers []func(message)) session {
		b := newNATS()
		for _, take := range subscribers {
			b.subscribe(b.connect(), "t", "", take)
		}
		return b.session(publishers)
	},
	group: func(publishers int, subscribers []func(message)) session {
		b := newNATS()
		for _, take := range subscribers {
			b.subscribe(b.connect(), "t", "g", take)
		}
		return b.session(publishers)
	},
	quiet: func() session { return newNATS().session(1) },
	pingpong: func(next func() bool) func() {
		b := newNATS()
		one, two := b.connect(), b.connect()
		b.subscribe(one, "ping", "", func(m message) { must(one.Publish("pong", encode(m))) })
		b.subscribe(two, "pong", "", func(m message) {
			if next() {
				must(two.Publish("ping", encode(m)))
			}
		})
		b.flush()
		must(two.Publish("ping", encode(message{})))
		return b.end
	},
	many: func(subscribers []func(message)) topics {
		b := newNATS()
		in, out := b.connect(), b.connect()
		names := make([]string, len(subscribers))
		for i, take := range subscribers {
			names[i] = fmt.Sprintf("t%d", i)
			b.subscribe(in, names[i], "", take)
		}
		b.flush()
		return topics{func(i int, m message) { must(out.Publish(names[i], encode(m))) }, b.end}
	},
	idle: func(n int) func() {
		b := newNATS()
		c := b.connect()
		for range n {
			b.subscribe(c, "t", "", func(message) {})
		}
		b.flush()
		return b.end
	},
}

type natsBus struct {
	server *server.Server
	conns  []*client.Conn
}

func newNATS() *natsBus {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, MaxPending: 1 << 30})
	must(err)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("the NATS server does not start")
	}
	return &natsBus{server: s}
}

func (b *natsBus) connect() *client.Conn {
	c, err := client.Connect("", client.InProcessServer(b.server))
	must(err)
	b.conns = append(b.conns, c)
	return c
}

func (b *natsBus) subscribe(c *client.Conn, subject, group string, take func(message)) {
	handle := func(m *client.Msg) { take(decode(m.Data)) }
	sub, err := c.QueueSubscribe(subject, group, handle)
	must(err)
	must(sub.SetPendingLimits(-1, -1))
}

// flush waits until the server knows of all subscriptions.
func (b *natsBus) flush() {
	for _, c := range b.conns {
		must(c.Flush())
	}
}

func (b *natsBus) session(publishers int) session {
	b.flush()
	s := session{end: b.end}
	for p := range uint64(publishers) {
		c := b.connect()
		s.publish = append(s.publish, func(from, to uint64) {
			for seq := from; seq < to; seq++ {
				must(c.Publish("t", encode(newMessage(p, seq))))
			}
			must(c.Flush())
		})
	}
	return s
}

func (b *natsBus) end() {
	for _, c := range b.conns {
		c.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}
