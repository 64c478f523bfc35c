package main

import (
	"errors"
	"os"
	"slices"
	"testing"
)

func TestMain(m *testing.M) {
	serveIfAsked()
	os.Exit(m.Run())
}

// TestEveryContender runs every workload once with few messages. Each run
// checks that all messages arrive once, undamaged and in order, so that the
// benchmark keeps measuring what it claims.
func TestEveryContender(t *testing.T) {
	for _, w := range slices.Concat(workloads, engineWorkloads) {
		baseline := w.baseline == ""
		for _, p := range w.peers {
			baseline = baseline || p.name == w.baseline
			t.Run(w.name+"/"+p.name, func(t *testing.T) {
				n := min(w.messages, 4000)
				if p.slow > 1 {
					n *= 4
				}
				o, err := w.run(p, n)
				switch {
				case errors.Is(err, errUnable):
					t.SkipNow()
				case err != nil:
					t.Fatal(err)
				case len(o.figures) != len(w.units):
					t.Fatalf("got %d figures, want %d", len(o.figures), len(w.units))
				}
			})
		}
		if !baseline {
			t.Errorf("%s: no contender is called %q", w.name, w.baseline)
		}
	}
}

func TestContenderNamesAreUnique(t *testing.T) {
	for _, w := range slices.Concat(workloads, engineWorkloads) {
		seen := map[string]bool{}
		for _, p := range w.peers {
			if seen[p.name] {
				t.Errorf("%s: two contenders are called %q", w.name, p.name)
			}
			seen[p.name] = true
		}
	}
}
