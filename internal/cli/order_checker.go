package cli

import "sync"

// orderChecker checks how the messages of each repository are handled: one at a time,
// and those of one topic in the order published. Events without a repository have
// no key, and so no order.
type orderChecker struct {
	mu       sync.Mutex // guards the fields below
	busy     map[string]bool
	last     map[[2]string]int // the latest Seq, by repository and topic
	overlaps int               // messages begun before another of the same repository was done
	disorder int               // messages that came after a later one
}

func newOrderChecker() *orderChecker {
	return &orderChecker{busy: map[string]bool{}, last: map[[2]string]int{}}
}

// begins records that a message of a topic is being handled; at is its position in
// the order of publishing.
func (w *orderChecker) begins(repository, topic string, at int) {
	if repository == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[repository] {
		w.overlaps++
	}
	w.busy[repository] = true
	place := [2]string{repository, topic}
	if last, ok := w.last[place]; ok && last >= at {
		w.disorder++
	}
	w.last[place] = at
}

func (w *orderChecker) ends(repository string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if repository != "" {
		w.busy[repository] = false
	}
}

// repositoriesLocked returns how many repositories were seen.
func (w *orderChecker) repositoriesLocked() int {
	return len(w.busy)
}
