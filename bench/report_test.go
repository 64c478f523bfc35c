package main

import (
	"slices"
	"testing"
)

// TestKeep adds a report to an earlier one.
func TestKeep(t *testing.T) {
	of := func(workload string, figure float64) row { return row{Workload: workload, Peer: "p", Figure: figure} }
	old := &report{Flags: []string{"-only='a|b'"}, Runs: 3, Rows: []row{of("a", 1), of("b", 2)}}
	now := &report{Flags: []string{"-only='b'"}, Runs: 5, Rows: []row{of("b", 3)}}
	now.keep(old)
	if len(now.Rows) != 2 || now.Rows[0].Figure != 3 || now.Rows[1].Workload != "a" {
		t.Errorf("got %+v, want b anew and a as it was", now.Rows)
	}
	if len(now.Earlier) != 1 || now.Earlier[0].Runs != 3 || !slices.Equal(now.Earlier[0].Flags, old.Flags) {
		t.Errorf("got %+v, want how a was measured", now.Earlier)
	}
	again := &report{Flags: []string{"-only='.'"}, Rows: []row{of("a", 4), of("b", 5)}}
	again.keep(now)
	if len(again.Rows) != 2 || len(again.Earlier) != 0 {
		t.Errorf("got %+v, want nothing of before", again)
	}
}
