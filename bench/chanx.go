package main

import (
	"context"

	chanxlib "github.com/smallnest/chanx"
)

const chanxUnbounded = "smallnest/chanx"

// chanx is github.com/smallnest/chanx: a goroutine and a growing ring between
// two channels.
var chanx = pipes(chanxUnbounded, func() pipe {
	ch := chanxlib.NewUnboundedChan[message](context.Background(), 1024)
	return pipe{
		put: func(m message) { ch.In <- m },
		drain: func(take func(message)) {
			for m := range ch.Out {
				take(m)
			}
		},
		close: func() { close(ch.In) },
	}
})
