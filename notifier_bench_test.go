package hark_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

func benchNotifier(b *testing.B) *hark.Notifier {
	b.Helper()
	n, err := hark.NewNotifier(hark.New())
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func benchNotify(b *testing.B, n *hark.Notifier, target string, want int) {
	b.Helper()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if got, err := n.Notify(ctx, target); got != want || err != nil {
			b.Fatalf("got %d, %v; want %d", got, err, want)
		}
	}
}

// BenchmarkNotifyNobody measures Notify when no one listens, and compares it
// with the least that an alternative would do: a map look-up with a lock held.
func BenchmarkNotifyNobody(b *testing.B) {
	b.Run("notifier", func(b *testing.B) {
		benchNotify(b, benchNotifier(b), "counter.incremented", 0)
	})
	b.Run("others listen", func(b *testing.B) {
		n := benchNotifier(b)
		for i := range 10 {
			if _, err := n.Listen(fmt.Sprintf("counter.other%d", i)); err != nil {
				b.Fatal(err)
			}
		}
		benchNotify(b, n, "counter.incremented", 0)
	})
	b.Run("method", func(b *testing.B) {
		benchNotify(b, benchNotifier(b), "counter.Counter#OnIncrement", 0)
	})
	b.Run("mutex and map", func(b *testing.B) {
		var mu sync.Mutex
		m := map[string]chan struct{}{"counter.decremented": nil}
		target := "counter.incremented"
		for b.Loop() {
			mu.Lock()
			_, ok := m[target]
			mu.Unlock()
			if ok {
				b.Fatal("found")
			}
		}
	})
}

// BenchmarkNotifyBusy measures Notify while the listener has not taken the last
// signal, so the new one is merged.
func BenchmarkNotifyBusy(b *testing.B) {
	b.Run("channel", func(b *testing.B) {
		n := benchNotifier(b)
		if _, err := n.Listen("ping"); err != nil {
			b.Fatal(err)
		}
		benchNotify(b, n, "ping", 1)
	})
	b.Run("function", func(b *testing.B) {
		n := benchNotifier(b)
		gate := make(chan struct{})
		if _, err := n.Register("ping", func(context.Context, hark.Signal) { <-gate }); err != nil {
			b.Fatal(err)
		}
		benchNotify(b, n, "ping", 1)
		close(gate)
	})
	b.Run("pattern over 1000 names", func(b *testing.B) {
		n := benchNotifier(b)
		for i := range 1000 {
			if _, err := n.Listen(fmt.Sprintf("a%d.b", i)); err != nil {
				b.Fatal(err)
			}
		}
		benchNotify(b, n, "a7.*", 1)
	})
}

// BenchmarkWakeUp measures the time to wake a goroutine and hear back from it,
// and compares it with two channels of capacity one.
func BenchmarkWakeUp(b *testing.B) {
	ctx := context.Background()
	b.Run("channel", func(b *testing.B) {
		ping, pong := make(chan int, 1), make(chan int, 1)
		go func() {
			defer close(pong)
			for range ping {
				pong <- 1
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			ping <- 1
			<-pong
		}
		close(ping)
		<-pong
	})
	b.Run("channel, select on a context", func(b *testing.B) {
		ctx, cancel := context.WithCancel(ctx)
		ping, pong := make(chan int, 1), make(chan int, 1)
		go func() {
			defer close(pong)
			for {
				select {
				case <-ping:
					pong <- 1
				case <-ctx.Done():
					return
				}
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			ping <- 1
			<-pong
		}
		cancel()
		<-pong
	})
	b.Run("Listen", func(b *testing.B) {
		n := benchNotifier(b)
		ping, err := n.Listen("ping")
		if err != nil {
			b.Fatal(err)
		}
		pong := make(chan int, 1)
		go func() {
			defer close(pong)
			for range ping.C() {
				pong <- 1
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.Notify(ctx, "ping"); err != nil {
				b.Fatal(err)
			}
			<-pong
		}
		if err := ping.Close(); err != nil {
			b.Fatal(err)
		}
		<-pong
	})
	b.Run("Register", func(b *testing.B) {
		n := benchNotifier(b)
		pong := make(chan int, 1)
		if _, err := n.Register("ping", func(context.Context, hark.Signal) { pong <- 1 }); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.Notify(ctx, "ping"); err != nil {
				b.Fatal(err)
			}
			<-pong
		}
	})
	b.Run("Wait", func(b *testing.B) {
		n := benchNotifier(b)
		ctx, cancel := context.WithCancel(ctx)
		pong := make(chan int, 1)
		go func() {
			defer close(pong)
			for n.Wait(ctx, "ping") == nil {
				pong <- 1
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			for {
				if reached, err := n.Notify(ctx, "ping"); err != nil {
					b.Fatal(err)
				} else if reached > 0 {
					break
				}
				runtime.Gosched()
			}
			<-pong
		}
		cancel()
		<-pong
	})
	b.Run("channel made for each", func(b *testing.B) {
		// The equivalent of Wait written by hand: each wait has a channel of
		// its own.
		var mu sync.Mutex
		var waiting chan struct{}
		ctx, cancel := context.WithCancel(ctx)
		pong := make(chan int, 1)
		go func() {
			defer close(pong)
			for {
				ch := make(chan struct{}, 1)
				mu.Lock()
				waiting = ch
				mu.Unlock()
				select {
				case <-ch:
					pong <- 1
				case <-ctx.Done():
					return
				}
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			for {
				mu.Lock()
				ch := waiting
				waiting = nil
				mu.Unlock()
				if ch != nil {
					ch <- struct{}{}
					break
				}
				runtime.Gosched()
			}
			<-pong
		}
		cancel()
		<-pong
	})
}

// BenchmarkIdleListener measures the cost of an idle listener, each with a name
// of its own.
func BenchmarkIdleListener(b *testing.B) {
	for form, listen := range map[string]func(*hark.Notifier, string) error{
		"function": func(n *hark.Notifier, name string) error {
			_, err := n.Register(name, func(context.Context, hark.Signal) {})
			return err
		},
		"channel": func(n *hark.Notifier, name string) error {
			_, err := n.Listen(name)
			return err
		},
	} {
		b.Run(form, func(b *testing.B) {
			const listeners = 100_000
			names := make([]string, listeners)
			for i := range names {
				names[i] = fmt.Sprintf("listener.l%d", i)
			}
			var before, after runtime.MemStats
			for b.Loop() {
				n := benchNotifier(b)
				runtime.GC()
				runtime.ReadMemStats(&before)
				for _, name := range names {
					if err := listen(n, name); err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(n)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/listeners, "B/listener")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/listeners, "ns/listener")
		})
	}
}
