package drivertest

import (
	"context"
	"slices"
	"testing"

	"github.com/harkbus/hark"
)

// Connector opens another bus on one engine. The suite closes it.
type Connector func() *hark.Bus

// AcrossClause is a promise about several processes on one engine, and its test.
type AcrossClause struct {
	ID    string // such as "NTF-25", as in docs/semantics.md
	Title string // the promise in a few words
	Test  func(ctx context.Context, t *testing.T, connect Connector)
}

// AcrossClauses returns every clause about several processes.
func AcrossClauses() []AcrossClause {
	return slices.Concat(notifyAcrossClauses, chanAcrossClauses, valueAcrossClauses)
}

// RunAcross holds an engine to every clause about several processes, each in a
// subtest named after its ID. open makes an engine that holds nothing yet, which
// it ends with the test, and returns how to open a bus on it. With kinds, only
// clauses of these are run. The Report says which were skipped, and why.
func RunAcross(t *testing.T, open func(t testing.TB) Connector, kinds ...string) *Report {
	r := &Report{Refused: map[string]string{}}
	for _, c := range AcrossClauses() {
		if !ofKind(c.ID, kinds) {
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Cleanup(func() { r.note(t, c.ID, &r.across) })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			connect := open(t)
			c.Test(ctx, t, func() *hark.Bus {
				_, bus := start(t, func(testing.TB) *hark.Bus { return connect() })
				return bus
			})
		})
	}
	return r
}
