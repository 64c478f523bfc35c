package filter

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
)

// Set holds many filters and finds those that match a message. It gives the
// answers that every filter gives on its own, in time that grows with the number
// of filters that match and not of those that do not. Filters that begin with a
// comparison of a field with a constant, or require one with &&, share one
// look-up of that field; a message is read once for all of them.
//
// A Set is safe for concurrent use; matching takes no lock, and continues while
// filters are added and removed. The zero Set is not usable; make one with
// NewSet.
type Set[K comparable] struct {
	opts *settings
	now  atomic.Pointer[snapshot[K]]

	mu    sync.Mutex // guards changes to now, and byKey
	byKey map[K]*entry[K]
}

// snapshot is the state that matching works on. It does not change, apart from
// removals.
type snapshot[K comparable] struct {
	table   *fieldTable
	vars    int
	indexes []*index[K] // each at least mergeFactor times as large as the next
}

// mergeFactor balances the cost of adding a filter, which is that of rebuilding
// indexes, against the number of indexes in which a message is looked up.
const mergeFactor = 4

// NewSet returns an empty set for filters compiled with the same options.
func NewSet[K comparable](opts ...Option) (*Set[K], error) {
	o, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	s := &Set[K]{opts: o, byKey: make(map[K]*entry[K])}
	s.now.Store(&snapshot[K]{table: newFieldTable(o.sh)})
	return s, nil
}

// Add adds a filter under a key, which Match returns and Remove takes. A message
// matched after Add has returned is checked against the filter. It is an error
// if the key is in use, if the filter was compiled for another type or with
// another MaxPayloadDepth or MaxSteps, or if only one of filter and set has
// Exact.
func (s *Set[K]) Add(key K, f *Filter) error {
	return s.AddAll([]K{key}, []*Filter{f})
}

// AddAll adds several filters at once, all or none of them. Adding many together
// is much faster than one by one.
func (s *Set[K]) AddAll(keys []K, filters []*Filter) error {
	if len(keys) != len(filters) {
		return fmt.Errorf("filter: %d keys for %d filters", len(keys), len(filters))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.now.Load()
	next := &snapshot[K]{table: old.table.clone(), vars: old.vars}
	added := make(map[K]*entry[K], len(keys))
	entries := make([]*entry[K], len(keys))
	for i, key := range keys {
		if s.byKey[key] != nil || added[key] != nil {
			return fmt.Errorf("filter: the set has a filter under %v already", key)
		}
		if filters[i] == nil {
			return fmt.Errorf("filter: the filter under %v is nil", key)
		}
		if err := s.fits(filters[i]); err != nil {
			return err
		}
		e, err := newEntry(key, filters[i], next)
		if err != nil {
			return err
		}
		entries[i], added[key] = e, e
	}
	maps.Copy(s.byKey, added)
	next.indexes = merged(old.indexes, entries)
	s.now.Store(next)
	return nil
}

func (s *Set[K]) fits(f *Filter) error {
	o := f.opts
	if o.sh != s.opts.sh || o.exact != s.opts.exact || o.payloadDepth != s.opts.payloadDepth || o.steps != s.opts.steps {
		return fmt.Errorf("filter: the set and the filter %q have different options", f.text)
	}
	return nil
}

func newEntry[K comparable](key K, f *Filter, in *snapshot[K]) (*entry[K], error) {
	k := newCompiler(f, in.table)
	tests, anchors, err := k.terms()
	if err != nil {
		return nil, err
	}
	in.vars = max(in.vars, k.deepest)
	return &entry[K]{key: key, f: f, tests: tests, anchors: anchors}, nil
}

// merged adds entries to indexes. The entries become a new index, merged with
// those of the last indexes that are not much larger.
func merged[K comparable](indexes []*index[K], entries []*entry[K]) []*index[K] {
	n := len(indexes)
	for n > 0 && len(indexes[n-1].entries) < mergeFactor*len(entries) {
		n--
		for _, e := range indexes[n].entries {
			if !e.removed.Load() {
				entries = append(entries, e)
			}
		}
	}
	out := append([]*index[K](nil), indexes[:n]...)
	if len(entries) > 0 {
		out = append(out, newIndex(entries))
	}
	return out
}

// Remove removes the filter under the key, and reports whether there was one. No
// message matched after Remove has returned is checked against it.
func (s *Set[K]) Remove(key K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		return false
	}
	delete(s.byKey, key)
	e.removed.Store(true)
	held := 0
	old := s.now.Load()
	for _, x := range old.indexes {
		held += len(x.entries)
	}
	if held > 2*len(s.byKey)+16 {
		s.rebuildLocked()
	}
	return true
}

// rebuildLocked makes one index of the remaining entries, which reads only the
// fields that are still needed.
func (s *Set[K]) rebuildLocked() {
	next := &snapshot[K]{table: newFieldTable(s.opts.sh)}
	entries := make([]*entry[K], 0, len(s.byKey))
	for key, old := range s.byKey {
		e, err := newEntry(key, old.f, next)
		if err != nil {
			return // it compiled before; keep the existing indexes
		}
		s.byKey[key] = e
		entries = append(entries, e)
	}
	next.indexes = merged(nil, entries)
	s.now.Store(next)
}

// Len returns the number of filters.
func (s *Set[K]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byKey)
}

// Match appends to dst the keys of the filters that match the message, in no
// particular order, and returns the extended slice. A filter that cannot be
// evaluated for the message does not match; the set does not report which,
// because it does not look at filters that cannot match. With room in dst, Match
// does not allocate.
func (s *Set[K]) Match(m Envelope, dst []K) []K {
	now := s.now.Load()
	if len(now.indexes) == 0 {
		return dst
	}
	c := begin(m, now.table, s.opts, s.opts.sh, now.vars)
	for _, x := range now.indexes {
		h := &c.hits
		h.reset(x.postees)
		for i := range x.fields {
			x.fields[i].lookIn(c, h)
		}
		for i := range x.general {
			dst = x.try(c, posting{entry: int32(i)}, dst)
		}
		for _, p := range h.list {
			dst = x.try(c, p, dst)
		}
	}
	c.end()
	return dst
}

// try appends the key of the entry if all its undecided terms are true.
func (x *index[K]) try(c *evaluation, p posting, dst []K) []K {
	c.steps = c.opts.steps
	at := x.ranges[p.entry]
	for i, t := range x.tests[at.from:at.to] {
		if i < 64 && p.skip>>i&1 != 0 {
			continue
		}
		if t(c) != yes {
			return dst
		}
	}
	if e := x.entries[p.entry]; !e.removed.Load() {
		return append(dst, e.key)
	}
	return dst
}
