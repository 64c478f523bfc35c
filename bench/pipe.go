package main

import "sync"

// pipe is a queue with two ends, for contenders that are no more than that.
type pipe struct {
	put func(message)
	// drain passes what arrives to take until the pipe is closed and empty.
	// Several goroutines may drain a pipe.
	drain func(take func(message))
	close func()
}

// pipes is a contender that uses pipes. Each subscriber has one, and the
// members of a group share one.
func pipes(name string, open func() pipe) peer {
	opened := func(n int) []pipe {
		ps := make([]pipe, n)
		for i := range ps {
			ps[i] = open()
		}
		return ps
	}
	return peer{
		name: name,
		stream: func(publishers int, subscribers []func(message)) session {
			ps := opened(len(subscribers))
			end := drainAll(ps, subscribers)
			if len(ps) == 1 {
				return session{alike(publishers, ps[0].put), end}
			}
			return session{alike(publishers, func(m message) {
				for i := range ps {
					ps[i].put(m)
				}
			}), end}
		},
		group: func(publishers int, subscribers []func(message)) session {
			p := open()
			var wg sync.WaitGroup
			for _, take := range subscribers {
				wg.Go(func() { p.drain(take) })
			}
			return session{alike(publishers, p.put), func() { p.close(); wg.Wait() }}
		},
		pingpong: func(next func() bool) func() {
			ps := opened(2)
			ping, pong := ps[0], ps[1]
			end := drainAll(ps, []func(message){pong.put, func(m message) {
				if next() {
					ping.put(m)
				}
			}})
			ping.put(message{})
			return end
		},
		many: func(subscribers []func(message)) topics {
			ps := opened(len(subscribers))
			end := drainAll(ps, subscribers)
			return topics{func(i int, m message) { ps[i].put(m) }, end}
		},
		idle: func(n int) func() {
			nothing := make([]func(message), n)
			return drainAll(opened(n), nothing)
		},
	}
}

// drainAll starts a goroutine for each pipe, and returns a function that closes
// the pipes and waits for the goroutines.
func drainAll(ps []pipe, takes []func(message)) (end func()) {
	var wg sync.WaitGroup
	for i, take := range takes {
		wg.Go(func() { ps[i].drain(take) })
	}
	return func() {
		for _, p := range ps {
			p.close()
		}
		wg.Wait()
	}
}
