package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// row is the result of one contender in one workload.
type row struct {
	Workload string
	Peer     string
	Unit     string
	Figure   float64   // the median of Runs
	Runs     []float64 // in the order in which they were made: run i of all contenders was made at about the same time
	Allocs   float64   // per delivered message; -1 if that means nothing
	Disorder float64   // share of the messages that arrived out of order
	Ratio    float64   // how many times better this figure is than the baseline's; 0 without a baseline
}

// measure runs each workload with each of its contenders once per round, in an
// order that shifts from round to round, and discards the first round. It stops
// at a contender that loses, duplicates, damages or reorders messages.
func measure(only, contenders *regexp.Regexp, runs int, messages func(*workload) int, progress progress) (*report, error) {
	r := newReport(runs)
	for i := range workloads {
		w := &workloads[i]
		if !only.MatchString(w.name) {
			continue
		}
		outcomes := map[string][]outcome{}
		runs := runs
		if w.runs > 0 {
			runs = min(runs, w.runs)
		}
		for round := range runs + 1 {
			for i := range w.peers {
				p := w.peers[(i+round)%len(w.peers)]
				if !contenders.MatchString(p.name) {
					continue
				}
				progress.say("%s, run %d of %d: %s", w.name, round, runs, p.name)
				o, err := w.run(p, messages(w))
				if errors.Is(err, errUnable) {
					continue
				}
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.name, p.name, err)
				}
				if round > 0 {
					outcomes[p.name] = append(outcomes[p.name], o)
				}
			}
		}
		r.Rows = append(r.Rows, rows(w, outcomes)...)
	}
	progress.say("")
	if len(r.Rows) == 0 {
		return nil, fmt.Errorf("no workload matches %q", only)
	}
	return r, nil
}

// rows summarizes the outcomes of a workload by contender.
func rows(w *workload, outcomes map[string][]outcome) []row {
	var all []row
	for part, unit := range w.units {
		figures := func(peer string) []float64 {
			return each(outcomes[peer], func(o outcome) float64 { return o.figures[part] })
		}
		base := median(figures(w.baseline))
		for _, p := range w.peers {
			os := outcomes[p.name]
			if len(os) == 0 {
				continue
			}
			x := row{
				Workload: w.partName(part), Peer: p.name, Unit: unit, Runs: figures(p.name),
				Allocs:   median(each(os, func(o outcome) float64 { return o.allocs })),
				Disorder: median(each(os, func(o outcome) float64 { return o.disorder })),
			}
			x.Figure = median(x.Runs)
			if x.Figure > 0 {
				x.Ratio = base / x.Figure
			}
			all = append(all, x)
		}
	}
	return all
}

func each(os []outcome, f func(outcome) float64) []float64 {
	xs := make([]float64, len(os))
	for i, o := range os {
		xs[i] = f(o)
	}
	return xs
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
