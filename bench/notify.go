package main

import (
	"fmt"
	"sync"
	"time"
)

const (
	othersListen = "hark, 100 other names"
	mutexMap     = "mutex and map"
)

// quietNames are names on which no one listens.
var quietNames = func() (names [16]string) {
	for i := range names {
		names[i] = fmt.Sprintf("counter.incremented%d", i)
	}
	return names
}()

// toNobody notify those names in turn.
var toNobody = []peer{
	{name: plainHark, operate: func(n int) time.Duration { return notifyNobody(n, 0) }},
	{name: othersListen, operate: func(n int) time.Duration { return notifyNobody(n, 100) }},
	{name: mutexMap, operate: func(n int) time.Duration {
		var mu sync.Mutex // guards listeners
		listeners := map[string]chan struct{}{}
		for i := range 100 {
			listeners[other(i)] = make(chan struct{}, 1)
		}
		start := time.Now()
		for i := range n {
			mu.Lock()
			_, ok := listeners[quietNames[i%len(quietNames)]]
			mu.Unlock()
			if ok {
				panic("somebody listens")
			}
		}
		return time.Since(start)
	}},
}

func other(i int) string { return fmt.Sprintf("counter.other%d", i) }

func notifyNobody(n, others int) time.Duration {
	notifier := newNotifier()
	for i := range others {
		_, err := notifier.Listen(other(i))
		must(err)
	}
	start := time.Now()
	for i := range n {
		reached, err := notifier.Notify(background, quietNames[i%len(quietNames)])
		must(err)
		if reached > 0 {
			panic("somebody listens")
		}
	}
	return time.Since(start)
}
