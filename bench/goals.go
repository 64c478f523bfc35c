package main

import "fmt"

// goal is a figure that hark wants to reach.
type goal struct {
	workload, contender string
	peer                string  // measured against this one
	ratio               float64 // at least this many times as fast as peer
	most                float64 // or a figure of at most this
}

const (
	plainHark = "hark"
	handle    = "hark, publisher handle"
	batch     = "hark, PublishAll of 64"
)

var goals = []goal{
	{"1→1", plainHark, baseline, 2.2, 0},
	{"1→1", plainHark, "kelindar/event", 1.8, 0},
	{"1→1", plainHark, "Watermill GoChannel", 150, 0},
	{"1→1", handle, baseline, 3.2, 0},
	{"1→1", batch, baseline, 8, 0},
	{"1→10", plainHark, baseline, 10, 0},
	{"1→10", plainHark, "kelindar/event", 4, 0},
	{"4→1", plainHark, baseline, 1.7, 0},
	{"4→1", handle, baseline, 3.2, 0},
	{"4→4 group", plainHark, baseline, 1.6, 0},
	{"4→4 group", handle, baseline, 1.6, 0},
	{"publish, nobody listens", plainHark, "", 0, 5},
	{"ping-pong p50", plainHark, baseline, 1 / 0.9, 0},
	{"10,000 topics", plainHark, baseline, 2.5, 0},
	{"idle subscription", plainHark, "", 0, 250},
	{"million idle subscriptions", plainHark, "", 0, 400},
	{"new topic, 10,000 patterns", plainHark, "", 0, 2000},
}

// verdict compares the goal with what was measured.
func (g goal) verdict(rows []row) (want, got string, met, known bool) {
	find := func(peer string) (row, bool) {
		for _, r := range rows {
			if r.Workload == g.workload && r.Peer == peer {
				return r, true
			}
		}
		return row{}, false
	}
	mine, ok := find(g.contender)
	if !ok {
		return "", "", false, false
	}
	if g.peer == "" {
		return fmt.Sprintf("≤ %.0f %s", g.most, mine.Unit), fmt.Sprintf("%.1f", mine.Figure), mine.Figure <= g.most, true
	}
	theirs, ok := find(g.peer)
	if !ok {
		return "", "", false, false
	}
	ratio := theirs.Figure / mine.Figure
	return fmt.Sprintf("≥ %.2f× %s", g.ratio, g.peer), fmt.Sprintf("%.2f×", ratio), ratio >= g.ratio, true
}
