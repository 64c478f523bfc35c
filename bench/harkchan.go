package main

import (
	"context"
	"sync"

	"github.com/harkbus/hark"
)

const (
	harkSelecting = "hark, a context that can end"
	selecting     = "built-in channel, select on a context"
)

// harkChans is hark.Chan with Send and Receive. Like the built-in channel, with
// which it is compared, its loop is written out rather than built from
// functions for one message.
func harkChans(name string, capacity int) peer {
	return shared(name, func(wg *sync.WaitGroup, publishers int, subscribers []func(message)) session {
		c, err := hark.NewChan[message](nil, "", capacity)
		must(err)
		ctx, cancel := background, func() {}
		if name == harkSelecting {
			ctx, cancel = context.WithCancel(background)
		}
		for _, take := range subscribers {
			wg.Go(func() {
				for {
					m, err := c.Receive(ctx)
					if err != nil {
						return // the channel is closed; if it is too early, the check finds messages missing
					}
					take(m)
				}
			})
		}
		s := session{end: func() { must(c.Close()); wg.Wait(); cancel() }}
		for p := range uint64(publishers) {
			s.publish = append(s.publish, func(from, to uint64) {
				for seq := from; seq < to; seq++ {
					must(c.Send(ctx, newMessage(p, seq)))
				}
			})
		}
		return s
	})
}

// selects is the built-in channel in operations that also heed a context, as
// most programs need.
func selects(capacity int) peer {
	return shared(selecting, func(wg *sync.WaitGroup, publishers int, subscribers []func(message)) session {
		ch := make(chan message, capacity)
		ctx, cancel := context.WithCancel(background)
		for _, take := range subscribers {
			wg.Go(func() {
				for {
					select {
					case m, ok := <-ch:
						if !ok {
							return
						}
						take(m)
					case <-ctx.Done():
						return
					}
				}
			})
		}
		s := session{end: func() { close(ch); wg.Wait(); cancel() }}
		for p := range uint64(publishers) {
			s.publish = append(s.publish, func(from, to uint64) {
				for seq := from; seq < to; seq++ {
					select {
					case ch <- newMessage(p, seq):
					case <-ctx.Done():
						return
					}
				}
			})
		}
		return s
	})
}

// shared is a contender with one channel that all subscribers share. With one
// subscriber it is a stream.
func shared(name string, open func(wg *sync.WaitGroup, publishers int, subscribers []func(message)) session) peer {
	group := func(publishers int, subscribers []func(message)) session {
		return open(new(sync.WaitGroup), publishers, subscribers)
	}
	return peer{name: name, group: group, stream: func(publishers int, subscribers []func(message)) session {
		if len(subscribers) != 1 {
			panic("a channel makes no copies for several subscribers")
		}
		return group(publishers, subscribers)
	}}
}
