package main

// inline calls the subscribers from the publisher, with nothing in between. It
// measures the cost of the harness itself, which is part of every other figure.
var inline = peer{
	name:  "harness alone (a function call)",
	alone: true,
	stream: func(_ int, subscribers []func(message)) session {
		publish := func(from, to uint64) {
			for seq := from; seq < to; seq++ {
				m := newMessage(0, seq)
				for _, take := range subscribers {
					take(m)
				}
			}
		}
		return session{publish: []func(from, to uint64){publish}, end: func() {}}
	},
}
