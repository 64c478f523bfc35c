package hark

import (
	"context"
	"runtime"
	"sync/atomic"
)

// sleeper lets one goroutine wait until another one wakes it, once. To be used
// again it is reset. It is made by newSleeper.
type sleeper struct {
	state atomic.Uint32 // sleeperAwake or one of the following
	woken chan struct{} // gets a token when it is woken while asleep
}

// The states of a sleeper. After the last of them wake does not touch it any
// more, but for the token.
const (
	sleeperAwake  = iota // it looks at its state from time to time
	sleeperAsleep        // it needs a token
	sleeperWoken
)

func newSleeper() sleeper { return sleeper{woken: make(chan struct{}, 1)} }

// reset makes s ready for use again, once nobody will wake it.
func (s *sleeper) reset() { s.state.Store(sleeperAwake) }

// wake ends the sleep. It is called at most once, and does not block.
func (s *sleeper) wake() {
	if s.rouse() {
		s.call()
	}
}

// rouse is wake in two parts, for callers with a lock held. If it reports true,
// call is to be called too.
func (s *sleeper) rouse() (asleep bool) { return s.state.Swap(sleeperWoken) == sleeperAsleep }

func (s *sleeper) call() { s.woken <- struct{}{} }

// over reports whether s, which was roused, has been reset since.
func (s *sleeper) over() bool { return s.state.Load() == sleeperAwake }

// yields is how often a goroutine lets others run before it sleeps. Where the
// other side is at work that is mostly enough, and cheaper than to sleep, above
// all where a context has to be watched as well (BenchmarkChan, BenchmarkWakeUp,
// BenchmarkValueWatch).
const yields = 2

// sleep waits until s is woken, and reports false if ctx ended first. Then the
// caller finds out whether s is being woken at this moment, and if so calls
// wait.
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

// wait takes the token that a call of wake sends for a sleep that has ended
// without it.
func (s *sleeper) wait() { <-s.woken }

// spares are waiters that were woken, in that order, to be used again: one can
// be when its goroutine has reset it, which it does last. Nobody needs a lock for
// that but the one that is held when waiters are woken and made. It is a ring;
// what finds no place in it is garbage.
type spares[W interface{ over() bool }] struct {
	ring       []W
	head, tail uint32
}

const (
	maxSpares   = 64
	spareChecks = 4 // how many that are not over are passed by
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

// pop takes out one that is over, if it finds one. Those that are not, because
// their goroutines have not run yet, go behind the others.
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
