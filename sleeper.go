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
	if s.state.Swap(sleeperWoken) == sleeperAsleep {
		s.woken <- struct{}{}
	}
}

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
