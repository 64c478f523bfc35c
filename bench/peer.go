package main

import (
	"sync"
	"time"
)

// peer is a contender. A nil function stands for a workload that the peer
// cannot do, or that says nothing about it.
type peer struct {
	name     string
	slow     int  // divides the number of messages, so that it finishes in time
	pingSlow int  // divides the number of round trips
	alone    bool // it allows only one publisher
	loose    bool // it does not keep messages in order, which is noted but not a fault
	overlap  bool // handlers of one subscription run concurrently, so it is loose too

	// stream opens publishers whose messages reach every subscriber.
	stream func(publishers int, subscribers []func(message)) session
	// group opens publishers whose messages each go to one of the subscribers.
	group func(publishers int, subscribers []func(message)) session
	// quiet opens a publisher whose messages no one receives.
	quiet func() session
	// pingpong starts a ping-pong between two handlers. One of them calls next
	// after each round trip, and continues while it returns true.
	pingpong func(next func() bool) (end func())
	// idle opens n subscribers that receive nothing.
	idle func(n int) (end func())
	// many opens n topics with one subscriber each.
	many func(subscribers []func(message)) topics
	// operate does something n times and returns the time it took.
	operate func(n int) time.Duration
	// ask makes n requests, one after the other, and returns the time of each.
	ask func(n int) []time.Duration
}

// share returns how many of n messages the peer gets in one run.
func (p peer) share(n int) int { return max(n/max(p.slow, 1), 1) }

// session is the result of stream, group and quiet.
type session struct {
	// publish has one function for each publisher, called from a goroutine of
	// its own. It publishes the messages from seq from up to, but not
	// including, to.
	publish []func(from, to uint64)
	end     func()
}

// topics is the result of many.
type topics struct {
	publish func(topic int, m message)
	end     func()
}

// alike builds the publish functions of a session from a function that
// publishes one message.
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

// receive starts a goroutine that passes what it receives from ch to take.
func receive(wg *sync.WaitGroup, ch <-chan message, take func(message)) {
	wg.Go(func() {
		for m := range ch {
			take(m)
		}
	})
}

// must stops the benchmark on an error, after which it would not measure what
// it claims.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
