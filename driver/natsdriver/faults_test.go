package natsdriver

import (
	"os"
	"slices"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/driver/faults"
)

// faultKinds are the kinds of clauses that every run checks under faults over a
// server: those that this engine has code for.
var faultKinds = []string{"GRP", "VAL"}

// TestClausesUnderFaults checks what is promised under faults, on buses over a
// server: all of it with HARK_LONG=1, otherwise the clauses of faultKinds.
func TestClausesUnderFaults(t *testing.T) {
	for _, p := range faults.Promises() {
		t.Run(p.Fault, func(t *testing.T) {
			t.Parallel()
			seed := uint64(0)
			open := func(tb testing.TB) *hark.Bus {
				seed++
				config := p.Config
				config.Seed = seed
				conn := connect(tb, startServer(tb.(*testing.T), withJetStream).url())
				return hark.Over(faults.New(keeping{conn}, config))
			}
			for _, c := range drivertest.Clauses() {
				often := os.Getenv("HARK_LONG") != "" || slices.Contains(faultKinds, c.ID[:3])
				if often && p.Holds(c.ID) {
					t.Run(c.ID, func(t *testing.T) { c.Test(t, open) })
				}
			}
		})
	}
}
