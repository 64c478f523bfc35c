package main

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/harkbus/hark"
)

const (
	channel1       = "channel of capacity 1"
	channel1Select = "channel of capacity 1, select on a context"
	channelEach    = "channel made for each wait, select on a context"
	channelMerging = "channel of capacity 1 that merges and can be closed, by hand"
	harkListen     = "hark, Listen"
	harkRegister   = "hark, Register"
	harkWait       = "hark, Wait"
	harkWatch      = "hark, Watch"
)

// bell opens a way to wake a goroutine, which then calls hear. ring reports
// whether there was a goroutine to wake.
type bell func(hear func()) (ring func() bool, end func())

// wakeUps wake a goroutine and hear back from it through another channel of
// capacity 1. If a goroutine has to come back before it can be woken again, the
// figure includes that.
var wakeUps = []peer{
	ringing(channel1, func(hear func()) (func() bool, func()) {
		ping := make(chan struct{}, 1)
		end := goUntil(func(context.Context) {
			for range ping {
				hear()
			}
		})
		return func() bool { ping <- struct{}{}; return true }, func() { close(ping); end() }
	}),
	ringing(channel1Select, func(hear func()) (func() bool, func()) {
		ping := make(chan struct{}, 1)
		return func() bool { ping <- struct{}{}; return true }, goUntil(func(ctx context.Context) {
			for {
				select {
				case <-ping:
					hear()
				case <-ctx.Done():
					return
				}
			}
		})
	}),
	ringing(channelEach, func(hear func()) (func() bool, func()) {
		var mu sync.Mutex // guards waiting
		var waiting chan struct{}
		ring := func() bool {
			mu.Lock()
			ch := waiting
			waiting = nil
			mu.Unlock()
			if ch != nil {
				ch <- struct{}{}
			}
			return ch != nil
		}
		return ring, goUntil(func(ctx context.Context) {
			for {
				ch := make(chan struct{}, 1)
				mu.Lock()
				waiting = ch
				mu.Unlock()
				select {
				case <-ch:
					hear()
				case <-ctx.Done():
					return
				}
			}
		})
	}),
	ringing(channelMerging, func(hear func()) (func() bool, func()) {
		var mu sync.Mutex // guards closed, and sending
		closed := false
		signals := make(chan hark.Signal, 1)
		end := goUntil(func(context.Context) {
			for range signals {
				hear()
			}
		})
		ring := func() bool {
			mu.Lock()
			defer mu.Unlock()
			for s := (hark.Signal{Name: "ping", Count: 1}); !closed; {
				select {
				case signals <- s:
					return true
				default:
				}
				select {
				case waiting := <-signals:
					s.Count += waiting.Count
				default:
				}
			}
			return false
		}
		return ring, func() {
			mu.Lock()
			defer end()
			defer mu.Unlock()
			closed = true
			close(signals)
		}
	}),
	ringing(harkListen, func(hear func()) (func() bool, func()) {
		n := newNotifier()
		l, err := n.Listen("ping")
		must(err)
		end := goUntil(func(context.Context) {
			for range l.C() {
				hear()
			}
		})
		return notify(n, "ping"), func() { must(l.Close()); end() }
	}),
	ringing(harkRegister, func(hear func()) (func() bool, func()) {
		n := newNotifier()
		l, err := n.Register("ping", func(context.Context, hark.Signal) { hear() })
		must(err)
		return notify(n, "ping"), func() { must(l.Close()) }
	}),
	ringing(harkWait, func(hear func()) (func() bool, func()) {
		n := newNotifier()
		return notify(n, "ping"), goUntil(func(ctx context.Context) {
			for n.Wait(ctx, "ping") == nil {
				hear()
			}
		})
	}),
	ringing(harkWatch, func(hear func()) (func() bool, func()) {
		v := newValue()
		i := uint64(0)
		return func() bool { i++; must(v.Set(background, newMessage(0, i))); return true }, goUntil(func(ctx context.Context) {
			for m := range v.Watch(ctx) {
				if m.seq > 0 { // skip the initial state
					hear()
				}
			}
		})
	}),
}

// ringing is a contender that rings the bell each time the last ring has been
// heard.
func ringing(name string, open bell) peer {
	return peer{name: name, operate: func(n int) time.Duration {
		heard := make(chan struct{}, 1)
		ring, end := open(func() { heard <- struct{}{} })
		defer end()
		times := func(n int) {
			for range n {
				for !ring() {
					runtime.Gosched()
				}
				<-heard
			}
		}
		times(n/10 + 1)
		start := time.Now()
		times(n)
		return time.Since(start)
	}}
}

// goUntil runs f in a goroutine. The returned end ends its context and waits.
func goUntil(f func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(background)
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	return func() { cancel(); wg.Wait() }
}

// notify returns a function that notifies and reports whether it reached
// anyone.
func notify(n *hark.Notifier, target string) func() bool {
	return func() bool {
		reached, err := n.Notify(background, target)
		must(err)
		return reached > 0
	}
}

func newNotifier() *hark.Notifier {
	n, err := hark.NewNotifier(nil)
	must(err)
	return n
}
