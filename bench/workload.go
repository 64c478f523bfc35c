package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// workload is one question put to every peer that can answer it.
type workload struct {
	name     string
	unit     string // of the figure
	messages int    // for a peer with slow 1
	// run returns a figure, and allocations for each message (-1 if they say
	// nothing). It is nil, false if the peer does not take part.
	run func(p peer, messages int) (figure, allocs float64, ok bool)
}

var workloads = []workload{
	{"1→1", "ns", 2_000_000, streaming(1, 1)},
	{"1→10", "ns a delivery", 300_000, streaming(1, 10)},
	{"4→1", "ns", 2_000_000, streaming(4, 1)},
	{"4→4 group", "ns", 1_000_000, grouped(4, 4)},
	{"publish, nobody listens", "ns", 5_000_000, runQuiet},
	{"ping-pong p50", "ns", 100_000, runPingPong(0.50)},
	{"ping-pong p99", "ns", 100_000, runPingPong(0.99)},
	{"10,000 topics", "ns", 1_000_000, runMany},
	{"idle subscription", "bytes", 10_000, runIdle},
}

// streaming publishes from several goroutines to subscribers who each get
// everything.
func streaming(publishers, subscribers int) func(peer, int) (float64, float64, bool) {
	return func(p peer, messages int) (figure, allocs float64, ok bool) {
		if p.stream == nil {
			return 0, 0, false
		}
		each := uint64(messages / publishers)
		warm := each / 10
		recorders := make([]*recorder, subscribers)
		takes := make([]func(message), subscribers)
		done := make(chan struct{}, subscribers)
		for i := range recorders {
			recorders[i] = &recorder{strict: !p.loose, done: done}
			takes[i] = recorders[i].take
		}
		s := p.stream(publishers, takes)
		pass := func(from, to uint64) time.Duration {
			for _, r := range recorders {
				r.want = to * uint64(publishers)
			}
			start := time.Now()
			publishAll(s, from, to)
			for range recorders {
				receiveOrPanic(done, p.name)
			}
			return time.Since(start)
		}
		pass(0, warm)
		took, mallocs := counted(func() time.Duration { return pass(warm, warm+each) })
		s.close()
		for _, r := range recorders {
			if err := r.verdict(); err != nil {
				panic(fmt.Sprintf("%s: %v", p.name, err))
			}
		}
		n := float64(each) * float64(publishers) * float64(subscribers)
		return float64(took) / n, mallocs / n, true
	}
}

// grouped publishes from several goroutines to subscribers who share the
// messages.
func grouped(publishers, subscribers int) func(peer, int) (float64, float64, bool) {
	return func(p peer, messages int) (figure, allocs float64, ok bool) {
		if p.group == nil {
			return 0, 0, false
		}
		each := uint64(messages / publishers)
		warm := each / 10
		recorders := make([]*recorder, subscribers)
		takes := make([]func(message), subscribers)
		for i := range recorders {
			recorders[i] = &recorder{}
			takes[i] = recorders[i].share
		}
		s := p.group(publishers, takes)
		pass := func(from, to uint64) time.Duration {
			start := time.Now()
			publishAll(s, from, to)
			deadline := time.Now().Add(time.Minute)
			for want := to * uint64(publishers); ; time.Sleep(20 * time.Microsecond) {
				var got uint64
				for _, r := range recorders {
					got += r.shared.Load()
				}
				if got == want {
					return time.Since(start)
				}
				if got > want || time.Now().After(deadline) {
					panic(fmt.Sprintf("%s: got %d messages, want %d", p.name, got, want))
				}
			}
		}
		pass(0, warm)
		took, mallocs := counted(func() time.Duration { return pass(warm, warm+each) })
		s.close()
		var sum, want uint64
		for _, r := range recorders {
			sum += r.sum
			if r.damage > 0 {
				panic(p.name + ": messages are damaged")
			}
		}
		last := warm + each
		if want = uint64(publishers) * last * (last - 1) / 2; sum != want {
			panic(fmt.Sprintf("%s: some messages came twice or not at all", p.name))
		}
		n := float64(each) * float64(publishers)
		return float64(took) / n, mallocs / n, true
	}
}

// publishAll has every publisher publish, each in a goroutine of its own.
func publishAll(s session, from, to uint64) {
	if len(s.publish) == 1 {
		s.publish[0](from, to)
		return
	}
	var wg sync.WaitGroup
	for _, publish := range s.publish {
		wg.Go(func() { publish(from, to) })
	}
	wg.Wait()
}

func receiveOrPanic(done <-chan struct{}, name string) {
	select {
	case <-done:
	case <-time.After(time.Minute):
		panic(name + ": messages are missing")
	}
}

// counted returns what f returns and how many objects were allocated.
func counted(f func() time.Duration) (took time.Duration, mallocs float64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	took = f()
	runtime.ReadMemStats(&after)
	return took, float64(after.Mallocs - before.Mallocs)
}

func runQuiet(p peer, messages int) (figure, allocs float64, ok bool) {
	if p.quiet == nil {
		return 0, 0, false
	}
	took, mallocs := counted(func() time.Duration {
		start := time.Now()
		p.quiet(messages)
		return time.Since(start)
	})
	return float64(took) / float64(messages), mallocs / float64(messages), true
}

func runPingPong(quantile float64) func(peer, int) (float64, float64, bool) {
	return func(p peer, rounds int) (figure, allocs float64, ok bool) {
		if p.pingpong == nil {
			return 0, 0, false
		}
		took := p.pingpong(max(rounds/max(p.pingSlow, 1), 100))
		return float64(quantileOf(took, quantile)), -1, true
	}
}

// runMany publishes to 10,000 topics in turn.
func runMany(p peer, messages int) (figure, allocs float64, ok bool) {
	if p.many == nil {
		return 0, 0, false
	}
	const topics = 10_000
	done := make(chan struct{}, 1)
	var left atomic.Int64 // topics have workers of their own
	s := p.many(topics, func(message) {
		if left.Add(-1) == 0 {
			done <- struct{}{}
		}
	})
	pass := func(n int) time.Duration {
		left.Store(int64(n))
		start := time.Now()
		for i := range n {
			s.publish(i%topics, newMessage(0, uint64(i)))
		}
		receiveOrPanic(done, p.name)
		return time.Since(start)
	}
	pass(2 * topics)
	took, mallocs := counted(func() time.Duration { return pass(messages) })
	s.close()
	return float64(took) / float64(messages), mallocs / float64(messages), true
}

// runIdle returns the memory that an idle subscriber costs, heap and stacks.
func runIdle(p peer, n int) (figure, allocs float64, ok bool) {
	if p.idle == nil {
		return 0, 0, false
	}
	before := memory()
	goroutines := runtime.NumGoroutine()
	closeAll := p.idle(n)
	after := memory()
	goroutines = runtime.NumGoroutine() - goroutines
	closeAll()
	return float64(after-before) / float64(n), float64(goroutines) / float64(n), true
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
