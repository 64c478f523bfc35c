package main

import (
	"fmt"
	"slices"
	"time"
)

// pingpong times each round trip between two handlers, and returns the median
// and the 99th percentile.
func pingpong(p peer, n int) (outcome, error) {
	if p.pingpong == nil {
		return outcome{}, errUnable
	}
	n = max(n/max(p.pingSlow, 1), 20)
	warm := n/10 + 1
	took := make([]time.Duration, 0, n+warm)
	done := make(chan struct{})
	last := time.Now()
	next := func() bool {
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
		if len(took) == cap(took) {
			close(done)
			return false
		}
		return true
	}
	var end func()
	_, mallocs, err := counted(func() (time.Duration, error) {
		end = p.pingpong(next)
		select {
		case <-done:
			return 0, nil
		case <-time.After(waitTimeout):
			return 0, fmt.Errorf("the ping-pong stopped before %d round trips", n)
		}
	})
	if err != nil {
		return outcome{}, err
	}
	end()
	all := float64(len(took))
	took = took[warm:]
	slices.Sort(took)
	return outcome{[]float64{quantile(took, 0.50), quantile(took, 0.99)}, mallocs / all, 0}, nil
}

// quantile returns a quantile of sorted durations.
func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)])
}
