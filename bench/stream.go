package main

import "time"

// streaming publishes from several goroutines to subscribers that each receive
// everything. The figure is the time from before the first publish until the
// last message has been handled, divided by the number of deliveries.
func streaming(publishers, subscribers int) runner {
	return func(p peer, messages int) (outcome, error) {
		if p.stream == nil || p.alone && publishers > 1 {
			return outcome{}, errUnable
		}
		each := uint64(max(p.share(messages)/publishers, 1))
		warm := warmup(each)
		last := warm + each
		done := make(chan struct{}, subscribers)
		recorders := make([]*recorder, subscribers)
		takes := make([]func(message), subscribers)
		for i := range recorders {
			r := &recorder{done: done}
			recorders[i], takes[i] = r, r.take
			if p.loose {
				r.ledger = newLedger(publishers, last)
				takes[i] = r.takeLoose
			}
			if p.overlap {
				takes[i] = r.takeShared
			}
		}
		s := p.stream(publishers, takes)
		pass := func(from, to uint64) (time.Duration, error) {
			for _, r := range recorders {
				r.want = to * uint64(publishers)
			}
			start := time.Now()
			publishFrom(s, from, to)
			err := await(done, subscribers)
			return time.Since(start), err
		}
		if _, err := pass(0, warm); err != nil {
			return outcome{}, err
		}
		took, mallocs, err := counted(func() (time.Duration, error) { return pass(warm, last) })
		if err != nil {
			return outcome{}, err
		}
		s.end()
		var disorder uint64
		for _, r := range recorders {
			if p.loose {
				disorder += r.disorder
			}
			if err := r.verdict(publishers, last, p.loose); err != nil {
				return outcome{}, err
			}
		}
		n := float64(each) * float64(publishers) * float64(subscribers)
		all := float64(last) * float64(publishers) * float64(subscribers)
		return outcome{[]float64{float64(took) / n}, mallocs / n, float64(disorder) / all}, nil
	}
}
