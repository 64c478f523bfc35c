package main

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
)

const (
	plainCalls  = "ten calls"
	lockedCalls = "ten calls under a mutex"
	setAndCalls = "hark, Set and then ten calls"
	mutex       = "mutex"
	rwMutex     = "read-write mutex"
	pointer     = "atomic pointer"
)

func newValue() *hark.Value[message] {
	v, err := hark.NewValue(nil, "", message{})
	must(err)
	return v
}

// Loops of nanoseconds are written out: a call for each round would be a part
// of what they measure.

// gets read a shared variable that does not change.
var gets = []peer{
	{name: plainHark, operate: func(n int) time.Duration {
		v := newValue()
		var sum uint64
		start := time.Now()
		for range n {
			m := v.Get()
			sum += m.seq
		}
		return since(start, sum)
	}},
	{name: pointer, operate: func(n int) time.Duration {
		var p atomic.Pointer[message]
		p.Store(new(message))
		var sum uint64
		start := time.Now()
		for range n {
			m := *p.Load()
			sum += m.seq
		}
		return since(start, sum)
	}},
	{name: rwMutex, operate: func(n int) time.Duration {
		var mu sync.RWMutex
		var now message
		var sum uint64
		start := time.Now()
		for range n {
			mu.RLock()
			m := now
			mu.RUnlock()
			sum += m.seq
		}
		return since(start, sum)
	}},
}

// since makes sure that what was summed up is needed.
func since(start time.Time, sum uint64) time.Duration {
	took := time.Since(start)
	if sum != 0 {
		panic("read something that nobody wrote")
	}
	return took
}

// sets change a shared variable that nobody waits for.
var sets = []peer{
	{name: plainHark, operate: func(n int) time.Duration {
		v := newValue()
		start := time.Now()
		for i := range uint64(n) {
			must(v.Set(background, newMessage(0, i)))
		}
		return time.Since(start)
	}},
	{name: mutex, operate: func(n int) time.Duration {
		var mu sync.Mutex
		var now message
		start := time.Now()
		for i := range uint64(n) {
			mu.Lock()
			now = newMessage(0, i)
			mu.Unlock()
		}
		took := time.Since(start)
		if now.seq != uint64(n-1) {
			panic("the last value is missing")
		}
		return took
	}},
	{name: pointer, operate: func(n int) time.Duration {
		var p atomic.Pointer[message]
		start := time.Now()
		for i := range uint64(n) {
			m := newMessage(0, i)
			p.Store(&m)
		}
		return time.Since(start)
	}},
}

// observing tells ten functions of each change.
var observing = []peer{
	{name: plainHark, operate: func(n int) time.Duration {
		v, all := newValue(), newObservers()
		for _, o := range all {
			_, err := v.Observe(o.told)
			must(err)
		}
		start := time.Now()
		for i := range uint64(n) {
			must(v.Set(background, newMessage(0, i)))
		}
		return all.check(start, n)
	}},
	{name: plainCalls, operate: func(n int) time.Duration {
		all := newObservers()
		fs := all.funcs()
		var now message
		start := time.Now()
		for i := range uint64(n) {
			old := now
			now = newMessage(0, i)
			for _, f := range fs {
				f(old, now)
			}
		}
		return all.check(start, n)
	}},
	{name: setAndCalls, operate: func(n int) time.Duration {
		v, all := newValue(), newObservers()
		fs := all.funcs()
		var now message
		start := time.Now()
		for i := range uint64(n) {
			old := now
			now = newMessage(0, i)
			must(v.Set(background, now))
			for _, f := range fs {
				f(old, now)
			}
		}
		return all.check(start, n)
	}},
	{name: lockedCalls, operate: func(n int) time.Duration {
		all := newObservers()
		fs := all.funcs()
		var mu sync.Mutex
		var now message
		start := time.Now()
		for i := range uint64(n) {
			mu.Lock()
			old := now
			now = newMessage(0, i)
			for _, f := range fs {
				f(old, now)
			}
			mu.Unlock()
		}
		return all.check(start, n)
	}},
}

// observer keeps what it is told, as most do.
type observer struct {
	now   message
	calls int
}

//go:noinline
func (o *observer) told(_, now message) {
	o.now = now
	o.calls++
}

type observers [10]*observer

func newObservers() *observers {
	var all observers
	for i := range all {
		all[i] = new(observer)
	}
	return &all
}

func (all *observers) funcs() (fs []func(old, now message)) {
	for _, o := range all {
		fs = append(fs, o.told)
	}
	return fs
}

// check returns the time since start if all have been told of everything.
func (all *observers) check(start time.Time, n int) time.Duration {
	took := time.Since(start)
	for _, o := range all {
		if o.calls != n || o.now != newMessage(0, uint64(n-1)) {
			panic("an observer has missed something")
		}
	}
	return took
}
