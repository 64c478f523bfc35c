package main

import (
	"slices"
	"strings"
	"testing"
)

// TestGoalsNameContenders finds goals that name a workload or contender that
// does not exist, and so could never be met or missed.
func TestGoalsNameContenders(t *testing.T) {
	all := slices.Concat(workloads, engineWorkloads)
	for _, g := range goals {
		i := slices.IndexFunc(all, func(w workload) bool {
			for part := range w.units {
				if w.partName(part) == g.workload {
					return true
				}
			}
			return false
		})
		if i < 0 {
			t.Errorf("no workload is called %q", g.workload)
			continue
		}
		for _, name := range append([]string{g.contender}, g.than...) {
			if !slices.ContainsFunc(all[i].peers, func(p peer) bool { return p.name == name }) {
				t.Errorf("%s: no contender is called %q", g.workload, name)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	rows := []row{
		{Workload: "w", Peer: "hark", Unit: "ns", Figure: 10, Allocs: 0.004},
		{Workload: "w", Peer: "fast", Figure: 19},
		{Workload: "w", Peer: "slow", Figure: 50, Allocs: 1},
		{Workload: "v", Peer: "hark", Figure: 1, Allocs: -1},
	}
	tests := []struct {
		goal       goal
		got        string
		met, known bool
	}{
		{better("w", "hark", 1.9, "fast"), "1.90×", true, true},
		{better("w", "hark", 2, "fast"), "1.90×", false, true},
		{better("w", "hark", 2, "slow"), "5.00×", true, true},
		{better("w", "hark", 2, "slow", "fast"), "1.90×", false, true},
		{better("w", "hark", 2, "absent"), "", false, false},
		{better("u", "hark", 2, "fast"), "", false, false},
		{atMost("w", "hark", 10), "10.0", true, true},
		{atMost("w", "hark", 9), "10.0", false, true},
		{withoutAllocs("w", "hark"), "0.004", true, true},
		{withoutAllocs("w", "slow"), "1.000", false, true},
		{withoutAllocs("v", "hark"), "-1.000", false, true},
	}
	for _, tt := range tests {
		want, got, met, known := tt.goal.verdict(rows)
		if got != tt.got || met != tt.met || known != tt.known {
			t.Errorf("%+v: got %q, %v, %v; want %q, %v, %v", tt.goal, got, met, known, tt.got, tt.met, tt.known)
		}
		if known && want == "" {
			t.Errorf("%+v: does not say what it wants", tt.goal)
		}
	}
}

// TestReport summarizes made-up outcomes and looks for them in the text.
func TestReport(t *testing.T) {
	w := &workloads[0]
	outcomes := map[string][]outcome{
		channel1024: {{figures: []float64{40}}, {figures: []float64{1000}}, {figures: []float64{60}}, {figures: []float64{50}}},
		plainHark:   {{figures: []float64{22}, allocs: 1}, {figures: []float64{22}, allocs: 1}},
	}
	r := newReport(4)
	r.Rows = rows(w, outcomes)
	text := r.markdown()
	for _, want := range []string{
		"## A 1→1\n",
		"| hark | 22.0 | 22.0–22.0 | 1.00 | 2.50 |\n",
		"| channel 1024 | 55.0 | 40.0–1000 | 0.00 | 1.00 |\n",
		"| A 1→1 | hark | ≥ 2.20× channel 1024 | 2.50× | met |\n",
		"| A 1→1 | hark | no allocations | 1.000 | **missed** |\n",
		"\nNot measured this time: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}
