package main

import (
	"errors"
	"fmt"
	"time"
)

// grouped publishes from several goroutines to subscribers that share the
// messages.
func grouped(publishers, subscribers int) runner {
	return func(p peer, messages int) (outcome, error) {
		if p.group == nil {
			return outcome{}, errUnable
		}
		each := uint64(max(p.share(messages)/publishers, 1))
		warm := warmup(each)
		last := warm + each
		e := &ending{members: make([]*recorder, subscribers), done: make(chan struct{}, 1)}
		takes := make([]func(message), subscribers)
		ledgers := make([]*ledger, subscribers)
		for i := range e.members {
			ledgers[i] = newLedger(publishers, last)
			e.members[i] = &recorder{ledger: ledgers[i], end: e}
			takes[i] = e.members[i].share
		}
		s := p.group(publishers, takes)
		pass := func(from, to uint64) (time.Duration, error) {
			e.want.Store(to * uint64(publishers))
			start := time.Now()
			publishFrom(s, from, to)
			err := e.wait()
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
		for _, r := range e.members {
			disorder += r.disorder
			if r.damage != 0 {
				return outcome{}, errors.New("messages are damaged")
			}
		}
		if err := complete(last, ledgers...); err != nil {
			return outcome{}, err
		}
		if disorder > 0 && !p.loose {
			return outcome{}, fmt.Errorf("%d messages reached a member out of order", disorder)
		}
		n, all := float64(each)*float64(publishers), float64(last)*float64(publishers)
		return outcome{[]float64{float64(took) / n}, mallocs / n, float64(disorder) / all}, nil
	}
}
