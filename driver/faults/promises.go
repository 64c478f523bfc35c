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
		{"delay", Config{Delay: time.Millisecond}, nil, "a call may take a long time"},
		{"cut", Config{Cut: 5 * time.Millisecond}, nil, "calls wait for the connection until their contexts end"},
		{"reorder", Config{Reorder: true}, []string{"PAT"}, "messages of different topics of a pattern have no order"},
		{"again", Config{Again: 3}, []string{"VAL"}, "only changes of values are retried"},
		{"drop", Config{Drop: 5}, nil, "a message that is lost before a member of a group receives it is delivered again, after others, so a group without keys has no order"},
		{"repeat", Config{Repeat: 5}, nil, "a group receives a message again if its acknowledgement was lost: each at least once"},
	}
}

// Holds reports whether a clause is held to the fault.
func (p Promise) Holds(clause string) bool {
	kind, _, _ := strings.Cut(clause, "-")
	return p.Only == nil || slices.Contains(p.Only, kind)
}
