package main

import (
	"runtime"
	"time"
)

// idling returns what an idle subscriber costs: memory (heap and stacks),
// goroutines, and the time to close it with all the others.
func idling(p peer, n int) (outcome, error) {
	if p.idle == nil {
		return outcome{}, errUnable
	}
	n = max(n, 1)
	before, goroutines := memory(), runtime.NumGoroutine()
	end := p.idle(n)
	bytes := float64(memory()) - float64(before)
	goroutines = runtime.NumGoroutine() - goroutines
	start := time.Now()
	end()
	closing := time.Since(start)
	each := float64(n)
	return outcome{[]float64{bytes / each, float64(goroutines) / each, float64(closing) / each}, -1, 0}, nil
}

// idlingTogether returns the megabytes that n idle subscribers use.
func idlingTogether(p peer, n int) (outcome, error) {
	if p.idle == nil {
		return outcome{}, errUnable
	}
	before := memory()
	end := p.idle(n)
	megabytes := (float64(memory()) - float64(before)) / 1e6
	end()
	return outcome{[]float64{megabytes}, -1, 0}, nil
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
