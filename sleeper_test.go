package hark

import "testing"

// TestSpares checks that a ring of spare waiters returns only those that are
// over, and each of them once, however many there are.
func TestSpares(t *testing.T) {
	var s spares[*sleeper]
	if _, ok := s.pop(); ok {
		t.Fatal("an empty ring has a spare")
	}
	all := map[*sleeper]bool{}
	for range maxSpares + 10 {
		w := newSleeper()
		w.rouse()
		all[&w] = true
		s.push(&w)
	}
	if w, ok := s.pop(); ok {
		t.Fatalf("got %p, whose goroutine has not reset it", w)
	}
	for w := range all {
		w.reset()
	}
	for n := range maxSpares {
		w, ok := s.pop()
		if !ok || !all[w] {
			t.Fatalf("spare %d: got %p, %v; want one of those that were woken, once", n, w, ok)
		}
		delete(all, w)
	}
	if _, ok := s.pop(); ok {
		t.Fatalf("more than %d spares", maxSpares)
	}

	// A waiter that is not over does not hold up the others.
	late, early := newSleeper(), newSleeper()
	late.rouse()
	s.push(&late)
	s.push(&early)
	if w, ok := s.pop(); !ok || w != &early {
		t.Errorf("got %p, %v; want the one behind", w, ok)
	}
	late.reset()
	if w, ok := s.pop(); !ok || w != &late {
		t.Errorf("got %p, %v; want the one that was passed by", w, ok)
	}
}
