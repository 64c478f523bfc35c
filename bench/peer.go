package main

import "time"

// peer is a contender. A nil function is a workload that it cannot do, or that
// says nothing about it.
type peer struct {
	name     string
	slow     int  // how many times fewer messages it gets
	pingSlow int  // how many times fewer round trips
	loose    bool // it does not keep messages in order, which is noted and no fault

	// stream opens publishers that reach every subscriber.
	stream func(publishers int, subscribers []func(message)) session
	// group opens publishers whose messages go to one of the subscribers each.
	group func(publishers int, subscribers []func(message)) session
	// pingpong returns how long each of n round trips between two handlers
	// took.
	pingpong func(n int) []time.Duration
	// many opens n topics with one subscriber each.
	many func(n int, subscriber func(message)) manySession
	// idle opens n subscribers that get nothing.
	idle func(n int) (close func())
	// quiet publishes n messages that nobody gets.
	quiet func(n int)
}

// session is what stream and group open.
type session struct {
	// publish has a function for each publisher, called from a goroutine of
	// its own: it publishes the messages from seq from up to before to.
	publish []func(from, to uint64)
	close   func()
}

type manySession struct {
	publish func(topic int, m message)
	close   func()
}

// perMessage makes the publish functions of a session from one that publishes
// a message.
func perMessage(publishers int, publish func(m message)) []func(from, to uint64) {
	fs := make([]func(from, to uint64), publishers)
	for p := range fs {
		fs[p] = func(from, to uint64) {
			for seq := from; seq < to; seq++ {
				publish(newMessage(uint64(p), seq))
			}
		}
	}
	return fs
}

var peers = []peer{
	harkTopic, harkPublisher, harkBatch,
	channel, unbuffered, bounded, unbounded,
	kelindar, cskr, asaskevich, watermill, gookit, teivah, libp2p, nats,
}
