package main

import (
	"context"
	"encoding/binary"
	"sync"

	wm "github.com/ThreeDotsLabs/watermill"
	wmsg "github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// watermill is the GoChannel of github.com/ThreeDotsLabs/watermill, without
// waiting for acknowledgements.
var watermill = peer{
	name:  "Watermill GoChannel",
	slow:  100,
	loose: true,
	stream: func(publishers int, subscribers []func(message)) session {
		pubSub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1024}, wm.NopLogger{})
		var wg sync.WaitGroup
		for _, take := range subscribers {
			ch, err := pubSub.Subscribe(context.Background(), "t")
			must(err)
			wg.Go(func() {
				for m := range ch {
					take(decode(m.Payload))
					m.Ack()
				}
			})
		}
		return session{
			publish: perMessage(publishers, func(m message) {
				must(pubSub.Publish("t", wmsg.NewMessage(wm.NewShortUUID(), encode(m))))
			}),
			close: func() { must(pubSub.Close()); wg.Wait() },
		}
	},
}

func encode(m message) []byte {
	b := make([]byte, 0, 24)
	b = binary.LittleEndian.AppendUint64(b, m.publisher)
	b = binary.LittleEndian.AppendUint64(b, m.seq)
	return binary.LittleEndian.AppendUint64(b, m.check)
}

func decode(b []byte) message {
	return message{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])}
}
