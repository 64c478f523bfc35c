package main

import "testing"

// TestEveryContender runs every workload once with few messages: each checks
// that all messages arrive, undamaged and in order, so that the benchmark goes
// on measuring what it says.
func TestEveryContender(t *testing.T) {
	for _, w := range workloads {
		for _, p := range peers {
			t.Run(w.name+"/"+p.name, func(t *testing.T) {
				n := min(w.messages, 20_000) / max(p.slow, 1)
				if _, _, ok := w.run(p, n); !ok {
					t.Log("the contender cannot do this")
				}
			})
		}
	}
	for _, x := range extras {
		t.Run(x.name, func(t *testing.T) {
			if x.run(0.01) <= 0 {
				t.Error("got no figure")
			}
		})
	}
}
