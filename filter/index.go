package filter

import (
	"math"
	"sort"
	"sync/atomic"
)

// entry is a filter of a Set.
type entry[K comparable] struct {
	key     K
	f       *Filter
	tests   []testFn // the terms of its conjunction
	anchors []anchor
	removed atomic.Bool // must not match any more, although it is still in an index
}

// index finds the filters of a Set that a message may match. It does not change
// once built.
type index[K comparable] struct {
	entries []*entry[K]
	tests   []testFn    // of all entries, concatenated
	ranges  []testRange // indexed by entry
	general int         // the first general entries are not ruled out by any field
	fields  []fieldIndex
	postees int // number of entries that have several postings
}

// testRange locates the tests of an entry. The ranges are kept apart from the
// entries: if most filters fail their first test, this saves memory traffic.
type testRange struct{ from, to int32 }

// posting is an entry's place in an index.
type posting struct {
	entry int32
	once  int32  // the bit that records that it has been reported; -1 if it cannot be reported twice
	skip  uint64 // terms that need no further test
}

type fieldIndex struct {
	ref      fieldRef
	text     map[string][]posting
	number   map[float64][]posting
	bools    [2][]posting
	exists   []posting
	prefixes []affixIndex // by length
	suffixes []affixIndex
	contains *gramIndex
	elements map[string][]posting
	ranges   rangeIndex
}

type affixIndex struct {
	n    int
	text map[string][]posting
}

// newIndex builds an index of the entries.
func newIndex[K comparable](entries []*entry[K]) *index[K] {
	x := &index[K]{}
	spread := make(map[fieldRef]map[atom]struct{})
	for _, e := range entries {
		for _, a := range e.anchors {
			for _, at := range a.atoms {
				values := spread[at.ref]
				if values == nil {
					values = make(map[atom]struct{})
					spread[at.ref] = values
				}
				values[at] = struct{}{}
			}
		}
	}
	best := make(map[*entry[K]]int, len(entries))
	var general, posted []*entry[K]
	for _, e := range entries {
		n := leastLikely(e.anchors, spread)
		if best[e] = n; n < 0 {
			general = append(general, e)
		} else {
			posted = append(posted, e)
		}
	}
	x.general = len(general)
	x.entries = append(general, posted...)
	x.ranges = make([]testRange, len(entries))
	for i, e := range x.entries {
		from := int32(len(x.tests))
		x.tests = append(x.tests, e.tests...)
		x.ranges[i] = testRange{from, int32(len(x.tests))}
	}
	fields := make(map[fieldRef]int)
	for i, e := range x.entries[x.general:] {
		p := posting{entry: int32(x.general + i), once: -1}
		a := e.anchors[best[e]]
		p.skip = a.terms
		if !exclusive(a.atoms) {
			p.once = int32(x.postees)
			x.postees++
		}
		done := make(map[atom]bool, len(a.atoms))
		for _, at := range a.atoms {
			if done[at] {
				continue
			}
			done[at] = true
			n, ok := fields[at.ref]
			if !ok {
				n = len(x.fields)
				fields[at.ref] = n
				x.fields = append(x.fields, fieldIndex{ref: at.ref})
			}
			x.fields[n].add(at, p)
		}
	}
	for i := range x.fields {
		x.fields[i].finish()
	}
	return x
}

// leastLikely returns the index of the anchor that is least often true, or -1
// if no anchor is worth a look-up.
func leastLikely(anchors []anchor, spread map[fieldRef]map[atom]struct{}) int {
	best, bestChance := -1, 1.0
	for n, a := range anchors {
		if c := chance(a, spread); c < bestChance {
			best, bestChance = n, c
		}
	}
	return best
}

// chance estimates how often an anchor is true. The more different values a
// field is compared with, the less likely each of them is.
func chance(a anchor, spread map[fieldRef]map[atom]struct{}) float64 {
	sum := 0.0
	for _, at := range a.atoms {
		n := float64(len(spread[at.ref]))
		switch at.kind {
		case atomText, atomNumber:
			sum += 1 / (n + 1)
		case atomPrefix, atomSuffix, atomContains, atomElement:
			sum += 1/(n+1) + 0.02
		case atomRange:
			if math.IsInf(at.lo, 0) || math.IsInf(at.hi, 0) {
				sum += 0.4
			} else {
				sum += 0.1
			}
		default:
			sum += 0.5
		}
	}
	return sum
}

// exclusive reports whether a message can find an entry posted under these
// atoms at most once: no two of them can be true of one message, and none can
// be true twice.
func exclusive(atoms []atom) bool {
	if len(atoms) == 1 {
		return atoms[0].kind != atomContains && atoms[0].kind != atomElement
	}
	for _, a := range atoms {
		if a.ref != atoms[0].ref || a.kind > atomBool {
			return false
		}
	}
	return true
}

func (x *fieldIndex) add(a atom, p posting) {
	switch a.kind {
	case atomText:
		if x.text == nil {
			x.text = make(map[string][]posting)
		}
		x.text[a.text] = append(x.text[a.text], p)
	case atomNumber:
		if x.number == nil {
			x.number = make(map[float64][]posting)
		}
		x.number[a.lo] = append(x.number[a.lo], p)
	case atomBool:
		x.bools[int(a.lo)] = append(x.bools[int(a.lo)], p)
	case atomPrefix:
		x.prefixes = addAffix(x.prefixes, a.text, p)
	case atomSuffix:
		x.suffixes = addAffix(x.suffixes, a.text, p)
	case atomContains:
		if x.contains == nil {
			x.contains = newGramIndex()
		}
		x.contains.add(a.text, p)
	case atomElement:
		if x.elements == nil {
			x.elements = make(map[string][]posting)
		}
		x.elements[a.text] = append(x.elements[a.text], p)
	case atomRange:
		x.ranges.spans = append(x.ranges.spans, span{a.lo, a.hi, math.Inf(-1), p})
	case atomExists:
		x.exists = append(x.exists, p)
	}
}

func addAffix(list []affixIndex, text string, p posting) []affixIndex {
	for i := range list {
		if list[i].n == len(text) {
			list[i].text[text] = append(list[i].text[text], p)
			return list
		}
	}
	return append(list, affixIndex{len(text), map[string][]posting{text: {p}}})
}

func (x *fieldIndex) finish() {
	byLength := func(l []affixIndex) {
		sort.Slice(l, func(i, j int) bool { return l[i].n < l[j].n })
	}
	byLength(x.prefixes)
	byLength(x.suffixes)
	x.ranges.finish()
}

// rangeIndex finds the spans that contain a number. It is a balanced tree in an
// array, ordered by where the spans begin. Each node records how far its
// subtree reaches.
type rangeIndex struct{ spans []span }

type span struct {
	lo, hi float64
	reach  float64 // the greatest hi of the subtree
	p      posting
}

func (r *rangeIndex) finish() {
	sort.SliceStable(r.spans, func(i, j int) bool { return r.spans[i].lo < r.spans[j].lo })
	reach(r.spans)
}

// reach sets the reach of every node. The middle of a slice is its root.
func reach(s []span) float64 {
	if len(s) == 0 {
		return math.Inf(-1)
	}
	m := len(s) / 2
	s[m].reach = max(s[m].hi, reach(s[:m]), reach(s[m+1:]))
	return s[m].reach
}
