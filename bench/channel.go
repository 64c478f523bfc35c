package main

import (
	"sync"
	"time"
)

// channel is the built-in channel with a buffer of 1024, one for each
// subscriber; a group shares one.
var channel = channels("channel 1024", 1024)

// unbuffered is the built-in channel without a buffer.
var unbuffered = channels("channel 0", 0)

func channels(name string, size int) peer {
	p := peer{
		name: name,
		stream: func(publishers int, subscribers []func(message)) session {
			chans := make([]chan message, len(subscribers))
			for i := range chans {
				chans[i] = make(chan message, size)
			}
			if len(chans) == 1 {
				ch := chans[0]
				return chanSession(publishers, chans, subscribers, func(m message) { ch <- m })
			}
			return chanSession(publishers, chans, subscribers, func(m message) {
				for _, ch := range chans {
					ch <- m
				}
			})
		},
		group: func(publishers int, subscribers []func(message)) session {
			ch := make(chan message, size)
			chans := make([]chan message, len(subscribers))
			for i := range chans {
				chans[i] = ch
			}
			return chanSession(publishers, chans, subscribers, func(m message) { ch <- m })
		},
		pingpong: func(n int) []time.Duration {
			ping, pong := make(chan message, size), make(chan message, size)
			rounds := newRounds(n)
			go func() {
				for m := range ping {
					pong <- m
				}
			}()
			go func() {
				for m := range pong {
					if !rounds.next() {
						return
					}
					ping <- m
				}
			}()
			ping <- message{}
			rounds.wait()
			close(ping)
			return rounds.took
		},
		many: func(n int, subscriber func(message)) manySession {
			chans := make([]chan message, n)
			var wg sync.WaitGroup
			for i := range chans {
				chans[i] = make(chan message, min(size, 16))
				wg.Go(func() {
					for m := range chans[i] {
						subscriber(m)
					}
				})
			}
			return manySession{
				publish: func(i int, m message) { chans[i] <- m },
				close: func() {
					for _, ch := range chans {
						close(ch)
					}
					wg.Wait()
				},
			}
		},
		idle: func(n int) func() {
			stop := make(chan message)
			var wg sync.WaitGroup
			for range n {
				ch := make(chan message, 16)
				wg.Go(func() {
					select {
					case <-ch:
					case <-stop:
					}
				})
			}
			return func() {
				close(stop)
				wg.Wait()
			}
		},
	}
	return p
}

// chanSession starts a goroutine for each subscriber; the same channel may
// stand there several times.
func chanSession(publishers int, chans []chan message, subscribers []func(message), publish func(message)) session {
	var wg sync.WaitGroup
	for i, take := range subscribers {
		wg.Go(func() {
			for m := range chans[i] {
				take(m)
			}
		})
	}
	return session{
		publish: perMessage(publishers, publish),
		close: func() {
			closed := map[chan message]bool{}
			for _, ch := range chans {
				if !closed[ch] {
					close(ch)
					closed[ch] = true
				}
			}
			wg.Wait()
		},
	}
}
