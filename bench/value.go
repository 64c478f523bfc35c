package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
)

const (
	plainCalls  = "ten calls"
	lockedCalls = "ten calls under a mutex"
	handMade    = "ten calls with the same promises, by hand"
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

// Loops that take nanoseconds are written out, because a call per iteration
// would be part of the measurement.

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

// since makes sure that the sum is needed.
func since(start time.Time, sum uint64) time.Duration {
	took := time.Since(start)
	if sum != 0 {
		panic("read something that nobody wrote")
	}
	return took
}

// sets change a shared variable on which no one waits.
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
	{name: handMade, operate: func(n int) time.Duration {
		all := newObservers()
		h := hand{fs: all.funcs()}
		start := time.Now()
		for i := range uint64(n) {
			must(h.set(background, newMessage(0, i)))
		}
		return all.check(start, n)
	}},
}

// hand is the least that promises observers what hark does: there is one change
// at a time, others can read it while the functions are told of it, there is a
// context, and all functions are told even if one panics. It does nothing for
// goroutines that wait, come or go.
type hand struct {
	state atomic.Uint32
	now   message // accessed while state is not handWriting, or by whoever set it to that
	fs    []func(old, now message)
}

const (
	handFree uint32 = iota
	handWriting
	handTelling
)

//go:noinline
func (h *hand) set(ctx context.Context, m message) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !h.state.CompareAndSwap(handFree, handWriting) {
		panic("somebody else is here")
	}
	old := h.now
	h.now = m
	h.state.Store(handTelling)
	next := 0
	defer func() {
		if next < len(h.fs) {
			h.failed(recover(), next, old, m)
		}
	}()
	for i, f := range h.fs {
		next = i // only written, which is faster than to count with it
		f(old, m)
	}
	next = len(h.fs)
	if !h.state.CompareAndSwap(handTelling, handFree) {
		panic("somebody waits")
	}
	return nil
}

// failed tells the functions after the one that failed.
func (h *hand) failed(why any, next int, old, now message) {
	for _, f := range h.fs[next+1:] {
		f(old, now)
	}
	h.state.Store(handFree)
	panic(why)
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

// check returns the time since start if every function has been told of every
// change.
func (all *observers) check(start time.Time, n int) time.Duration {
	took := time.Since(start)
	for _, o := range all {
		if o.calls != n || o.now != newMessage(0, uint64(n-1)) {
			panic("an observer has missed something")
		}
	}
	return took
}
