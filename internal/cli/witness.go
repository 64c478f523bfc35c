package cli

import (
	"sync"

	"github.com/harkbus/hark"
)

// witness watches how the messages of each repository are handled: one at a
// time, and those of one topic in the order published. Events of no repository
// have no key, and so no order.
type witness struct {
	mu       sync.Mutex // guards what follows
	busy     map[string]bool
	last     map[[2]string]int // the latest Seq, by repository and topic
	overlaps int               // messages begun while another of their repository was not done
	disorder int               // messages that came after a later one
}

func newWitness() *witness {
	return &witness{busy: map[string]bool{}, last: map[[2]string]int{}}
}

func (w *witness) begins(m *hark.Message[webhook]) {
	repository := m.Value.Repository
	if repository == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[repository] {
		w.overlaps++
	}
	w.busy[repository] = true
	place := [2]string{repository, m.Topic()}
	if last, ok := w.last[place]; ok && last >= m.Value.Seq {
		w.disorder++
	}
	w.last[place] = m.Value.Seq
}

func (w *witness) ends(m *hark.Message[webhook]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.Value.Repository != "" {
		w.busy[m.Value.Repository] = false
	}
}

// repositoriesLocked returns how many repositories there were.
func (w *witness) repositoriesLocked() int {
	return len(w.busy)
}
