package main

import (
	"sync"
	"time"
)

// peer is a contender. A nil function is a workload that it cannot do, or that
// says nothing about it.
type peer struct {
	name     string
	slow     int  // how many times fewer messages it gets, so that it is done in time
	pingSlow int  // how many times fewer round trips
	alone    bool // it has one publisher only
	loose    bool // it does not keep messages in order, which is noted and no fault
	overlap  bool // handlers of one subscription run at the same time, so it is loose too

	// stream opens publishers whose messages reach every subscriber.
	stream func(publishers int, subscribers []func(message)) session
	// group opens publishers whose messages go to one of the subscribers each.
	group func(publishers int, subscribers []func(message)) session
	// quiet opens a publisher of messages that nobody gets.
	quiet func() session
	// pingpong starts a ping-pong between two handlers. One of them calls
	// next after each round trip and goes on while it is true.
	pingpong func(next func() bool) (end func())
	// idle opens n subscribers that get nothing.
	idle func(n int) (end func())
	// many opens n topics with one subscriber each.
	many func(subscribers []func(message)) topics
	// operate does something n times and returns how long it took.
	operate func(n int) time.Duration
	// ask makes n requests, one after the other, and returns how long each took.
	ask func(n int) []time.Duration
}

// share is how many of n messages the peer gets in one run.
func (p peer) share(n int) int { return max(n/max(p.slow, 1), 1) }

// session is what stream, group and quiet open.
type session struct {
	// publish has a function for each publisher, called from a goroutine of
	// its own: it publishes the messages from seq from up to before to.
	publish []func(from, to uint64)
	end     func()
}

// topics are what many opens.
type topics struct {
	publish func(topic int, m message)
	end     func()
}

// alike makes the publish functions of a session from one that publishes a
// message.
func alike(publishers int, publish func(m message)) []func(from, to uint64) {
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

// receive starts a goroutine that takes what comes out of ch.
func receive(wg *sync.WaitGroup, ch <-chan message, take func(message)) {
	wg.Go(func() {
		for m := range ch {
			take(m)
		}
	})
}

// must stops the benchmark: what it measures would not be what it says.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
