package hark

import "iter"

// given yields the options that are not nil. Every function that has options ranges
// over them with it, so that nil is no option everywhere.
func given[O comparable](opts []O) iter.Seq[O] {
	return func(yield func(O) bool) {
		var none O
		for _, opt := range opts {
			if opt != none && !yield(opt) {
				return
			}
		}
	}
}
