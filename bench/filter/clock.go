package main

import (
	"sort"
	"time"
)

// candidate is one way to do a job.
type candidate struct {
	name string
	run  func() // goes through the workload once
	per  int    // number of events in a run
	note string

	rounds []float64 // ns per event
	allocs float64
}

func (c *candidate) median() float64 {
	s := append([]float64(nil), c.rounds...)
	sort.Float64s(s)
	return s[len(s)/2]
}

// measure times the candidates in turn for several rounds, so that other
// activity on the machine affects all of them equally.
func measure(cs []*candidate, rounds int, slice time.Duration) {
	for _, c := range cs {
		c.allocs = allocsPerRun(c.run) / float64(c.per)
	}
	for range rounds {
		for _, c := range cs {
			c.rounds = append(c.rounds, timeFor(c.run, slice)/float64(c.per))
		}
	}
}

func timeFor(run func(), slice time.Duration) float64 {
	n, batch := 0, 1
	start := time.Now()
	for {
		for range batch {
			run()
		}
		n += batch
		if d := time.Since(start); d >= slice {
			return float64(d.Nanoseconds()) / float64(n)
		}
		if batch < 1024 {
			batch *= 2
		}
	}
}
