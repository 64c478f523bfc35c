package faults

import (
	"slices"
	"strings"
	"time"
)

// Promise says which clauses of docs/semantics.md hold under a fault. Tests run
// those over engines, and docs/drivers.md has the table.
type Promise struct {
	Fault  string
	Config Config   // with the fault and nothing else
	Only   []string // kinds of clauses that the fault can touch; nil for all
	But    []string // clauses that are not held to it
	Why    string   // it is so
}

// Promises returns what is promised under each fault.
func Promises() []Promise {
	return []Promise{
		{"delay", Config{Delay: time.Millisecond}, nil, nil, "a call may take long"},
		{"cut", Config{Cut: 5 * time.Millisecond}, nil, nil, "calls wait in their contexts for the connection"},
		{"reorder", Config{Reorder: true}, []string{"PAT"}, nil, "only between the topics of a pattern there is no order"},
		{"again", Config{Again: 3}, []string{"VAL"}, nil, "only changes of values are tried again"},
		{
			"drop",
			Config{Drop: 5},
			nil,
			[]string{"CLS-3", "GRP-3", "GRP-4", "ITR-4", "STA-1"},
			"what is lost on its way to a member of a group comes again behind others: these ask in which order, or for how many there are just then",
		},
		{
			"repeat",
			Config{Repeat: 5},
			nil,
			[]string{"CLS-3", "GRP-3", "GRP-4", "ITR-4", "STA-1"},
			"a group may get a message again whose acknowledgement was lost: these ask for each once, or for how many there are just then",
		},
	}
}

// Holds reports whether a clause is held to the fault.
func (p Promise) Holds(clause string) bool {
	kind, _, _ := strings.Cut(clause, "-")
	return (p.Only == nil || slices.Contains(p.Only, kind)) && !slices.Contains(p.But, clause)
}
