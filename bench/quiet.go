package main

import "time"

// publishing times publishing where no one listens.
func publishing(p peer, messages int) (outcome, error) {
	if p.quiet == nil {
		return outcome{}, errUnable
	}
	s := p.quiet()
	n := uint64(p.share(messages))
	s.publish[0](0, warmup(n))
	took, mallocs, err := counted(func() (time.Duration, error) {
		start := time.Now()
		s.publish[0](0, n)
		return time.Since(start), nil
	})
	s.end()
	return outcome{[]float64{float64(took) / float64(n)}, mallocs / float64(n), 0}, err
}

// operating times an operation of a contender. Allocations at the start count
// too, but are few in relation to the number of operations.
func operating(p peer, n int) (outcome, error) {
	if p.operate == nil {
		return outcome{}, errUnable
	}
	n = max(n, 1)
	took, mallocs, err := counted(func() (time.Duration, error) { return p.operate(n), nil })
	return outcome{[]float64{float64(took) / float64(n)}, mallocs / float64(n), 0}, err
}
