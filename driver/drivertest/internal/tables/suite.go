package tables

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// kinds are the kinds of clauses in the order of docs/semantics.md.
var kinds = []struct{ prefix, title string }{
	{"PUB", "Publishing"},
	{"ORD", "Order"},
	{"SUB", "Subscriptions"},
	{"GRP", "Groups"},
	{"KEY", "Order by key"},
	{"BUF", "Buffers"},
	{"STO", "Stored topics"},
	{"RTY", "Retries"},
	{"DLQ", "Dead letters"},
	{"BAT", "Batches"},
	{"DLY", "Delay"},
	{"TTL", "Expiry"},
	{"DED", "Repeats"},
	{"PAT", "Patterns"},
	{"REQ", "Requests"},
	{"HDL", "Publishing from handlers"},
	{"CLS", "Closing"},
	{"TYP", "Types"},
	{"ITR", "Iterators"},
	{"MID", "Middleware"},
	{"FLT", "Predicates"},
	{"STA", "Numbers"},
	{"CHN", "Channels"},
	{"NTF", "Notifiers"},
	{"VAL", "Values"},
}

// compareClauses orders IDs as docs/semantics.md does.
func compareClauses(a, b string) int {
	ka, na := clauseOrder(a)
	kb, nb := clauseOrder(b)
	return cmp.Or(cmp.Compare(ka, kb), cmp.Compare(na, nb), cmp.Compare(a, b))
}

// clauseOrder returns the position of a clause: that of its kind, and its
// number.
func clauseOrder(id string) (kind, number int) {
	prefix, n, _ := strings.Cut(id, "-")
	number, err := strconv.Atoi(n)
	if err != nil {
		number = 0 // not an ID; sorted first
	}
	for i, k := range kinds {
		if k.prefix == prefix {
			return i, number
		}
	}
	return len(kinds), number
}

// HasKind reports whether an ID is that of a clause of the kinds that the tables have.
func HasKind(id string) bool {
	kind, n := clauseOrder(id)
	return kind < len(kinds) && n > 0
}

// Suite is what there is to hold to: the IDs of all clauses.
type Suite struct {
	Clauses []string
	Across  []string // those about several processes
}

// ids returns all IDs in the order of docs/semantics.md.
func (s Suite) ids() []string {
	return slices.SortedFunc(slices.Values(slices.Concat(s.Clauses, s.Across)), compareClauses)
}

// shorten formats a sorted list of IDs. Three or more of a kind that follow
// each other in the suite become a range.
func (s Suite) shorten(ids []string) string {
	all := s.ids()
	var parts []string
	for len(ids) > 0 {
		at, n := slices.Index(all, ids[0]), 1
		for at >= 0 && n < len(ids) && at+n < len(all) && ids[n] == all[at+n] && ids[n][:3] == ids[0][:3] {
			n++
		}
		if n < 3 {
			parts = append(parts, ids[0])
			ids = ids[1:]
			continue
		}
		parts = append(parts, ids[0]+" to "+ids[n-1])
		ids = ids[n:]
	}
	return strings.Join(parts, ", ")
}

// lengthen parses the output of shorten.
func (s Suite) lengthen(cell string) []string {
	var ids []string
	for part := range strings.SplitSeq(cell, ", ") {
		first, last, ranges := strings.Cut(part, " to ")
		switch {
		case part == "":
		case !ranges:
			ids = append(ids, part)
		default:
			for _, id := range s.ids() {
				if compareClauses(first, id) <= 0 && compareClauses(id, last) <= 0 {
					ids = append(ids, id)
				}
			}
		}
	}
	return ids
}
