package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
)

// row is what one contender did in one workload: medians.
type row struct {
	Workload, Peer, Unit string
	Figure               float64
	Low, High            float64 // of all runs
	Allocs               float64 // for each message; goroutines of an idle subscription; -1 if none
	Ratio                float64 // how many times the figure of the buffered channel is this one's
}

// baseline is the peer that all are compared with.
const baseline = "channel 1024"

// measure runs each workload with each contender once a round, in an order
// that shifts from round to round, and discards the first round.
func measure(only *regexp.Regexp, runs int, scale float64, progress io.Writer) *report {
	r := newReport(runs)
	for _, w := range workloads {
		if !only.MatchString(w.name) {
			continue
		}
		figures := map[string][]float64{}
		allocs := map[string][]float64{}
		for round := range runs + 1 {
			fmt.Fprintf(progress, "\r%-30s round %d of %d ", w.name, round, runs)
			for i := range peers {
				p := peers[(i+round)%len(peers)]
				n := max(int(float64(w.messages)*scale)/max(p.slow, 1), 100)
				figure, alloc, ok := w.run(p, n)
				if ok && round > 0 {
					figures[p.name] = append(figures[p.name], figure)
					allocs[p.name] = append(allocs[p.name], alloc)
				}
			}
		}
		base := median(figures[baseline])
		for _, p := range peers {
			all := figures[p.name]
			if len(all) == 0 {
				continue
			}
			r.Rows = append(r.Rows, row{
				Workload: w.name, Peer: p.name, Unit: w.unit, Figure: median(all),
				Low: slices.Min(all), High: slices.Max(all),
				Allocs: median(allocs[p.name]), Ratio: base / median(all),
			})
		}
	}
	for _, x := range extras {
		if only.MatchString(x.name) {
			fmt.Fprintf(progress, "\r%-50s", x.name)
			var all []float64
			for range runs {
				all = append(all, x.run(scale))
			}
			r.Rows = append(r.Rows, row{
				Workload: x.name, Peer: "hark", Unit: x.unit, Figure: median(all),
				Low: slices.Min(all), High: slices.Max(all), Allocs: -1,
			})
		}
	}
	fmt.Fprintf(progress, "\r%-50s\r", "")
	return r
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	if n := len(xs); n%2 == 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	}
	return xs[len(xs)/2]
}

func quantileOf(xs []time.Duration, q float64) time.Duration {
	xs = slices.Sorted(slices.Values(xs))
	return xs[min(int(q*float64(len(xs))), len(xs)-1)]
}
