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
	Why    string   // it is so
}

// Promises returns what is promised under each fault. Under drop and repeat clauses
// about groups ask for every message, and not for their order or each once.
func Promises() []Promise {
	return []Promise{
		{"delay", Config{Delay: time.Millisecond}, nil, "a call may take long"},
		{"cut", Config{Cut: 5 * time.Millisecond}, nil, "calls wait in their contexts for the connection"},
		{"reorder", Config{Reorder: true}, []string{"PAT"}, "only between the topics of a pattern there is no order"},
		{"again", Config{Again: 3}, []string{"VAL"}, "only changes of values are tried again"},
		{"drop", Config{Drop: 5}, nil, "what is lost on its way to a member of a group comes again, behind others: a group without keys has no order then"},
		{"repeat", Config{Repeat: 5}, nil, "a group gets a message again whose acknowledgement was lost: each at least once"},
	}
}

// Holds reports whether a clause is held to the fault.
func (p Promise) Holds(clause string) bool {
	kind, _, _ := strings.Cut(clause, "-")
	return p.Only == nil || slices.Contains(p.Only, kind)
}
