package hark

// NamesOf returns how many names a notifier keeps.
func NamesOf(n *Notifier) (names int) {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		names += len(s.owners) + len(s.ids)
		s.mu.Unlock()
	}
	for i := range n.present {
		names += int(n.present[i].Load())
	}
	return names
}
