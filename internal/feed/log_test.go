package feed

import (
	"slices"
	"testing"
)

// AppendRun appends what fill says that it has written, and no more.
func TestAppendRun(t *testing.T) {
	for _, sole := range []bool{false, true} {
		var l Log[int]
		l.Init(Config[int]{Sole: sole})
		s := &sleeper{ready: make(chan struct{}, 1)}
		l.Attach(&s.Cursor, s, FromNow, Unbounded, false, false)
		l.TryAppend(0) // there is no segment yet
		l.Grow()
		for _, written := range []int{0, 2, 3} {
			if n := l.AppendRun(3, func(slots []int) int {
				for i := range written {
					slots[i] = 10*written + i
				}
				return written
			}); n != written {
				t.Errorf("sole %v: AppendRun returns %d, %d are written", sole, n, written)
			}
			if woken := len(s.ready) > 0; woken != (written > 0) {
				t.Errorf("sole %v: after %d entries the reader is awake: %v", sole, written, woken)
			}
		}
		if got, want := s.Peek(64), []int{20, 21, 30, 31, 32}; !slices.Equal(got, want) {
			t.Errorf("sole %v: got %v, want %v", sole, got, want)
		}
	}
}
