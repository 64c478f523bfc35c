// Package drivertest is the conformance suite of hark: the numbered clauses of
// docs/semantics.md as tests that run on a bus over any engine.
package drivertest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

// Opener opens a bus on an engine that holds nothing yet. The suite closes it.
type Opener func(t testing.TB) *hark.Bus

// Clause is one promise and the test that holds an engine to it. The test must
// wait on facts, never on time alone, because engines differ in speed.
type Clause struct {
	ID    string // such as "ORD-1", as in docs/semantics.md
	Title string // the promise in a few words
	Test  func(t *testing.T, open Opener)
}

// Clauses returns every clause, in the order of its ID.
func Clauses() []Clause {
	all := slices.Concat(topicClauses, chanClauses, notifierClauses, valueClauses)
	slices.SortStableFunc(all, func(a, b Clause) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Run holds the engine behind open to every clause, each in a subtest named
// after its ID; with kinds, such as "ORD", only to clauses of these. A clause
// about something that the engine refuses is skipped; the Report says which, and
// why.
func Run(t *testing.T, open Opener, kinds ...string) *Report {
	r := &Report{Refused: map[string]string{}}
	for _, c := range Clauses() {
		if !ofKind(c.ID, kinds) {
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Cleanup(func() { r.note(t, c.ID, &r.ran) })
			c.Test(t, func(tb testing.TB) *hark.Bus {
				bus := open(tb)
				r.Info = bus.Engine()
				return bus
			})
		})
	}
	return r
}

// ofKind reports whether a clause is of one of these kinds. No kinds means any.
func ofKind(id string, kinds []string) bool {
	kind, _, _ := strings.Cut(id, "-")
	return len(kinds) == 0 || slices.Contains(kinds, kind)
}

// patience limits every wait of the suite. An engine that works never needs
// that long.
const patience = time.Minute

// start opens a bus that is closed when the test ends, and returns a context
// that ends before the test would hang.
func start(t *testing.T, open Opener) (context.Context, *hark.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	bus := open(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := bus.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return ctx, bus
}
