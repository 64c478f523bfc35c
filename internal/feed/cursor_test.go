package feed

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// sleeper reads what there is and then sleeps, until it is told to end.
type sleeper struct {
	Cursor[int]
	ready chan struct{}
	read  chan uint64 // how many entries it had read when it went to sleep
}

func (s *sleeper) Ready(*Cursor[int]) { s.ready <- struct{}{} }
func (s *sleeper) Yield(*Cursor[int]) {}

func (s *sleeper) run(end <-chan struct{}) {
	for {
		for es := s.Peek(64); len(es) > 0; es = s.Peek(64) {
			s.Pass(len(es))
			s.Opened()
		}
		select {
		case <-s.read: // discard a count that nobody has read
		default:
		}
		s.read <- s.Pos()
		if !s.Arm() {
			continue
		}
		select {
		case <-s.ready:
		case <-end:
			return
		}
	}
}

// A reader that goes to sleep just as another is woken must not take the
// other's wake-up.
func TestEachSleeperIsWoken(t *testing.T) {
	const rounds, readers, appenders = 20_000, 3, 2
	var log Log[int]
	log.Init(Config[int]{})
	end := make(chan struct{})
	var wg sync.WaitGroup
	all := make([]*sleeper, readers)
	for i := range all {
		s := &sleeper{ready: make(chan struct{}, 1), read: make(chan uint64, 1)}
		all[i] = s
		if !log.Attach(&s.Cursor, s, FromNow, Unbounded, false, false) {
			t.Fatal("an empty log has entries")
		}
		wg.Go(func() {
			select {
			case <-s.ready:
				s.run(end)
			case <-end:
			}
		})
	}
	defer wg.Wait()
	defer close(end)
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for round := range rounds {
		var appending sync.WaitGroup
		for range appenders {
			appending.Go(func() {
				for !log.Append(round) {
					if room, _ := log.Grow(); room != Open {
						t.Errorf("Grow: %v", room)
						return
					}
				}
			})
		}
		appending.Wait()
		for i, s := range all {
			for s.Pos() != log.Tail() {
				select {
				case <-s.read:
				case <-late.C:
					t.Fatalf("round %d: reader %d sleeps at %d of %d", round, i, s.Pos(), log.Tail())
				}
			}
		}
	}
}

// A log whose readers sleep whenever its segment is full stays in its first one,
// and one whose reader is awake gets larger ones.
func TestQuietLogStaysInItsFirstSegment(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		var log Log[int]
		log.Init(Config[int]{})
		s := &sleeper{ready: make(chan struct{}, 1)}
		log.Attach(&s.Cursor, s, FromNow, Unbounded, false, false)
		for i := range 20 * firstSegment {
			for !log.Append(i) {
				if room, _ := log.Grow(); room != Open {
					t.Fatalf("Grow: %v", room)
				}
			}
			if quiet || i == 0 {
				<-s.ready
			}
			if es := s.Peek(1); len(es) != 1 || es[0] != i {
				t.Fatalf("quiet %v: got %v after %d entries", quiet, es, i)
			}
			s.Pass(1)
			if quiet && !s.Arm() {
				t.Fatal("there is nothing to read, and the cursor is awake")
			}
		}
		if first := len(log.slots) == firstSegment && log.head == log.tail; first != quiet {
			t.Errorf("quiet %v: a segment of %d, the first is also the last: %v", quiet, len(log.slots), log.head == log.tail)
		}
	}
}

// TestDetachWhileReading detaches a cursor whose reader has not noticed, and goes on
// to read.
func TestDetachWhileReading(t *testing.T) {
	var log Log[int]
	log.Init(Config[int]{})
	gone, other := &sleeper{ready: make(chan struct{}, 1)}, &sleeper{ready: make(chan struct{}, 1)}
	log.Attach(&gone.Cursor, gone, FromNow, Unbounded, false, false)
	log.Attach(&other.Cursor, other, FromNow, Unbounded, false, false)
	for i := range 30 {
		for !log.Append(i) {
			log.Grow()
		}
		if i == 9 {
			log.Detach(&gone.Cursor)
		}
		select {
		case <-other.ready:
		default:
		}
		other.Pass(len(other.Peek(99)))
		other.Arm()
	}
	if es := gone.Peek(3); !slices.Equal(es, []int{0, 1, 2}) {
		t.Errorf("got %v", es)
	}
}
