package main

import eapache "github.com/eapache/channels"

const eapacheName = "eapache/channels"

// eapaches is github.com/eapache/channels: a NativeChannel, or an
// InfiniteChannel if capacity is below 0. Both carry values as interfaces.
func eapaches(capacity int) peer {
	return pipes(eapacheName, func() pipe {
		var ch eapache.Channel
		if capacity < 0 {
			ch = eapache.NewInfiniteChannel()
		} else {
			ch = eapache.NewNativeChannel(eapache.BufferCap(capacity))
		}
		in, out := ch.In(), ch.Out()
		return pipe{
			put: func(m message) { in <- m },
			drain: func(take func(message)) {
				for v := range out {
					take(v.(message))
				}
			},
			close: ch.Close,
		}
	})
}
