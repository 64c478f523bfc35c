package main

import (
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// nats is core NATS with an embedded server and connections within the
// process, one for publishers and one for each subscriber.
var nats = peer{
	name:   "NATS, in process",
	slow:   8,
	stream: func(p int, subscribers []func(message)) session { return natsSession(p, subscribers, "") },
	group:  func(p int, subscribers []func(message)) session { return natsSession(p, subscribers, "g") },
}

func natsSession(publishers int, subscribers []func(message), group string) session {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, MaxPending: 1 << 30})
	must(err)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		panic("the NATS server does not start")
	}
	var conns []*client.Conn
	connect := func() *client.Conn {
		c, err := client.Connect("", client.InProcessServer(s))
		must(err)
		conns = append(conns, c)
		return c
	}
	for _, take := range subscribers {
		c := connect()
		handle := func(m *client.Msg) { take(decode(m.Data)) }
		var sub *client.Subscription
		var err error
		if group == "" {
			sub, err = c.Subscribe("t", handle)
		} else {
			sub, err = c.QueueSubscribe("t", group, handle)
		}
		must(err)
		must(sub.SetPendingLimits(-1, -1))
		must(c.Flush())
	}
	fs := make([]func(from, to uint64), publishers)
	for p := range fs {
		c := connect()
		fs[p] = func(from, to uint64) {
			for seq := from; seq < to; seq++ {
				must(c.Publish("t", encode(newMessage(uint64(p), seq))))
			}
			must(c.Flush())
		}
	}
	return session{publish: fs, close: func() {
		for _, c := range conns {
			c.Close()
		}
		s.Shutdown()
		s.WaitForShutdown()
	}}
}
