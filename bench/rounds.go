package main

import "time"

// rounds times the round trips of a ping-pong, each by itself.
type rounds struct {
	took []time.Duration
	last time.Time
	done chan struct{}
}

func newRounds(n int) *rounds {
	return &rounds{took: make([]time.Duration, 0, n), last: time.Now(), done: make(chan struct{})}
}

// next ends a round trip and reports whether another one follows.
func (r *rounds) next() bool {
	now := time.Now()
	r.took = append(r.took, now.Sub(r.last))
	r.last = now
	if len(r.took) == cap(r.took) {
		close(r.done)
		return false
	}
	return true
}

func (r *rounds) wait() { <-r.done }
