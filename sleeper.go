package hark

import (
	"context"
	"runtime"
	"sync/atomic"
)

// sleeper lets one goroutine wait until another wakes it, once. It can be
// reused after a reset. Make one with newSleeper.
type sleeper struct {
	state atomic.Uint32 // sleeperAwake or one of the constants after it
	woken chan struct{} // receives a token when the goroutine is woken while asleep
}

// The states of a sleeper. After setting the last of them, wake does not access
// the sleeper any more, except to send the token.
const (
	sleeperAwake  = iota // it checks its state from time to time
	sleeperAsleep        // it needs a token
	sleeperWoken
)

func newSleeper() sleeper { return sleeper{woken: make(chan struct{}, 1)} }

// reset makes s ready for reuse. No one may wake it any more.
func (s *sleeper) reset() { s.state.Store(sleeperAwake) }

// wake ends the sleep. It may be called at most once, and does not block.
func (s *sleeper) wake() {
	if s.rouse() {
		s.call()
	}
}

// rouse is the first half of wake, for callers that hold a lock. If it returns
// true, call must follow.
func (s *sleeper) rouse() (asleep bool) { return s.state.Swap(sleeperWoken) == sleeperAsleep }

func (s *sleeper) call() { s.woken <- struct{}{} }

// over reports whether s was roused and has been reset since.
func (s *sleeper) over() bool { return s.state.Load() == sleeperAwake }

// yields is how often a goroutine yields to others before it sleeps. If the
// other side is running, that is usually enough, and cheaper than sleeping,
// especially if a context must be watched too (BenchmarkChan, BenchmarkWakeUp,
// BenchmarkValueWatch).
const yields = 2

// sleep waits until s is woken. It returns false if ctx ended first. The caller
// must then find out whether s is just being woken, and if so call wait.
func (s *sleeper) sleep(ctx context.Context) bool {
	for range yields {
		if s.state.Load() == sleeperWoken {
			return true
		}
		runtime.Gosched()
	}
	if !s.state.CompareAndSwap(sleeperAwake, sleeperAsleep) {
		return true
	}
	end := ctx.Done()
	if end == nil {
		<-s.woken
		return true
	}
	select {
	case <-s.woken:
		return true
	case <-end:
		return false
	}
}

// wait receives the token that a call of wake sends for a sleep that has ended
// without it.
func (s *sleeper) wait() { <-s.woken }

// spares is a ring of waiters that were woken, in the order in which that
// happened, kept for reuse. A waiter can be reused after its goroutine has
// reset it, which is the last thing the goroutine does. This needs no lock other than the one that is held
// when waiters are woken and made. A waiter that does not fit in the ring is
// garbage.
type spares[W interface{ over() bool }] struct {
	ring       []W
	head, tail uint32
}

const (
	maxSpares   = 64
	spareChecks = 4 // how many that are not over pop skips
)

func (s *spares[W]) push(w W) {
	n := uint32(len(s.ring))
	if s.tail-s.head == n {
		if n == maxSpares {
			return
		}
		grown := make([]W, max(4, 2*n))
		for i := range n {
			grown[i] = s.ring[(s.head+i)&(n-1)]
		}
		s.ring, s.head, s.tail = grown, 0, n
		n = uint32(len(grown))
	}
	s.ring[s.tail&(n-1)] = w
	s.tail++
}

// pop removes and returns a waiter that is over, if it finds one. Those that
// are not, because their goroutines have not run yet, go behind the others.
func (s *spares[W]) pop() (w W, ok bool) {
	mask := uint32(len(s.ring)) - 1
	var none W
	for range min(spareChecks, s.tail-s.head) {
		slot := &s.ring[s.head&mask]
		w, *slot = *slot, none
		s.head++
		if w.over() {
			return w, true
		}
		s.ring[s.tail&mask] = w
		s.tail++
	}
	return none, false
}
