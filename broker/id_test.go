package broker

import (
	"regexp"
	"sync"
	"testing"
)

// TestNewID makes IDs in several goroutines.
func TestNewID(t *testing.T) {
	const each = 1000
	form := regexp.MustCompile("^[A-Z2-7]{26}$")
	var mu sync.Mutex
	seen := map[string]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range each {
				id := newID()
				mu.Lock()
				if !form.MatchString(id) || seen[id] {
					t.Errorf("got %s, want 26 characters, and never the same", id)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

func BenchmarkNewID(b *testing.B) {
	for b.Loop() {
		newID()
	}
}
