package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

const topicCount = 10_000

// topicRecorder checks what the subscriber of one topic receives.
type topicRecorder struct {
	next, due uint64 // the seq expected next, and the one at which the pass is complete
	wrong     bool   // a message was damaged, out of order or of another topic
}

// circling publishes to 10,000 topics in turn. The publisher field of a message
// says which topic it is for.
func circling(p peer, messages int) (outcome, error) {
	if p.many == nil {
		return outcome{}, errUnable
	}
	rounds := uint64(max(p.share(messages)/topicCount, 1))
	warm := warmup(rounds)
	done := make(chan struct{}, 1)
	var left atomic.Int64 // topics that have not received the whole pass
	recorders := make([]topicRecorder, topicCount)
	takes := make([]func(message), topicCount)
	for i := range takes {
		r := &recorders[i]
		takes[i] = func(m message) {
			if m.damage() != 0 || m.publisher != uint64(i) || m.seq != r.next && !p.loose {
				r.wrong = true
			}
			if r.next++; r.next == r.due && left.Add(-1) == 0 {
				done <- struct{}{}
			}
		}
	}
	ts := p.many(takes)
	pass := func(from, to uint64) (time.Duration, error) {
		for i := range recorders {
			recorders[i].due = to
		}
		left.Store(topicCount)
		start := time.Now()
		for seq := from; seq < to; seq++ {
			for i := range topicCount {
				ts.publish(i, newMessage(uint64(i), seq))
			}
		}
		err := await(done, 1)
		return time.Since(start), err
	}
	if _, err := pass(0, warm); err != nil {
		return outcome{}, err
	}
	took, mallocs, err := counted(func() (time.Duration, error) { return pass(warm, warm+rounds) })
	if err != nil {
		return outcome{}, err
	}
	ts.end()
	for i, r := range recorders {
		if r.wrong || r.next != r.due {
			return outcome{}, fmt.Errorf("topic %d got wrong messages, or %d instead of %d", i, r.next, r.due)
		}
	}
	n := float64(rounds) * topicCount
	return outcome{[]float64{float64(took) / n}, mallocs / n, 0}, nil
}
