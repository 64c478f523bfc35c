package main

import (
	"sync"

	"github.com/harkbus/hark"
)

// channel is the built-in channel with a buffer of 1024. Each subscriber has
// one; a group shares one.
var channel = channels(channel1024, 1024)

// unbuffered is the built-in channel without a buffer.
var unbuffered = channels("channel 0", 0)

// builtin is the name of the built-in channel among other channels.
const builtin = "built-in channel"

var (
	rendezvousChannels = []peer{harkChans(plainHark, 0), channels(builtin, 0), harkChans(harkSelecting, 0), selects(0), channs(0), eapaches(0)}
	boundedChannels    = []peer{harkChans(plainHark, 1024), channels(builtin, 1024), harkChans(harkSelecting, 1024), selects(1024), channs(1024), eapaches(1024)}
	unboundedChannels  = []peer{harkChans(plainHark, hark.Unbounded), chanx, channs(-1), eapaches(-1), unbounded}
)

// channels is a contender that uses built-in channels. Its publishing loop is
// written out rather than built from a function for one message: others are
// measured against it, and the call would be part of the measurement.
func channels(name string, size int) peer {
	p := pipes(name, func() pipe { return channelPipe(make(chan message, min(size, 16))) })
	p.pingpong = pipes(name, func() pipe { return channelPipe(make(chan message, size)) }).pingpong
	p.stream = func(publishers int, subscribers []func(message)) session {
		chans := make([]chan message, len(subscribers))
		ps := make([]pipe, len(subscribers))
		for i := range chans {
			chans[i] = make(chan message, size)
			ps[i] = channelPipe(chans[i])
		}
		s := session{end: drainAll(ps, subscribers)}
		for p := range uint64(publishers) {
			if len(chans) == 1 {
				s.publish = append(s.publish, sendTo(chans[0], p))
				continue
			}
			s.publish = append(s.publish, func(from, to uint64) {
				for seq := from; seq < to; seq++ {
					m := newMessage(p, seq)
					for _, ch := range chans {
						ch <- m
					}
				}
			})
		}
		return s
	}
	p.group = func(publishers int, subscribers []func(message)) session {
		ch := make(chan message, size)
		var wg sync.WaitGroup
		for _, take := range subscribers {
			receive(&wg, ch, take)
		}
		s := session{end: func() { close(ch); wg.Wait() }}
		for p := range uint64(publishers) {
			s.publish = append(s.publish, sendTo(ch, p))
		}
		return s
	}
	return p
}

func sendTo(ch chan<- message, publisher uint64) func(from, to uint64) {
	return func(from, to uint64) {
		for seq := from; seq < to; seq++ {
			ch <- newMessage(publisher, seq)
		}
	}
}

func channelPipe(ch chan message) pipe {
	return pipe{
		put: func(m message) { ch <- m },
		drain: func(take func(message)) {
			for m := range ch {
				take(m)
			}
		},
		close: func() { close(ch) },
	}
}
