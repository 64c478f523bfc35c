package hark_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

// BenchmarkChan sends through a Chan and through a built-in channel,
// alternating in one run. It reports the time per message with each, and the
// ratio: below 1 the Chan is faster. With a context that can end, the built-in
// channel is used in a select with the context's Done.
func BenchmarkChan(b *testing.B) {
	cancellable := b.Context()
	for _, shape := range []struct {
		name     string
		capacity int
		ctx      context.Context
		each     int
	}{
		{"unbuffered", 0, context.Background(), 20_000},
		{"unbuffered/cancellable", 0, cancellable, 20_000},
		{"1", 1, context.Background(), 20_000},
		{"64", 64, context.Background(), 50_000},
		{"1024", 1024, context.Background(), 100_000},
		{"1024/cancellable", 1024, cancellable, 100_000},
		{"unbounded", hark.Unbounded, context.Background(), 100_000},
	} {
		for _, side := range []struct {
			name               string
			senders, receivers int
		}{{"1→1", 1, 1}, {"4→4", 4, 4}} {
			b.Run(shape.name+"/"+side.name, func(b *testing.B) {
				plain := max(shape.capacity, 0)
				if shape.capacity == hark.Unbounded {
					plain = 1024
				}
				run := func(ends func() ends) time.Duration {
					return timed(b, ends(), side.senders, side.receivers, shape.each)
				}
				hark := func() ends { return chanEnds(b, shape.ctx, shape.capacity) }
				builtin := func() ends { return builtinEnds(shape.ctx, plain) }
				run(hark)
				run(builtin)
				var ours, theirs []time.Duration
				for b.Loop() {
					ours = append(ours, run(hark))
					theirs = append(theirs, run(builtin))
				}
				mine, other := median(ours), median(theirs)
				b.ReportMetric(float64(mine)/float64(shape.each), "ns/msg")
				b.ReportMetric(float64(other)/float64(shape.each), "builtin-ns/msg")
				b.ReportMetric(float64(mine)/float64(other), "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// ends are the two ends of some channel.
type ends struct {
	send    func(int)
	receive func() (int, bool)
	close   func()
}

func chanEnds(tb testing.TB, ctx context.Context, capacity int) ends {
	c, err := hark.NewChan[int](nil, "", capacity)
	if err != nil {
		tb.Fatal(err)
	}
	return ends{
		send: func(n int) {
			if err := c.Send(ctx, n); err != nil {
				tb.Error(err)
			}
		},
		receive: func() (int, bool) {
			n, err := c.Receive(ctx)
			return n, err == nil
		},
		close: func() { c.Close() },
	}
}

func builtinEnds(ctx context.Context, capacity int) ends {
	c := make(chan int, capacity)
	e := ends{
		send:    func(n int) { c <- n },
		receive: func() (int, bool) { n, ok := <-c; return n, ok },
		close:   func() { close(c) },
	}
	if ctx.Done() != nil {
		e.send = func(n int) {
			select {
			case c <- n:
			case <-ctx.Done():
			}
		}
		e.receive = func() (int, bool) {
			select {
			case n, ok := <-c:
				return n, ok
			case <-ctx.Done():
				return 0, false
			}
		}
	}
	return e
}

// timed returns the time until n values have been sent and received.
func timed(tb testing.TB, e ends, senders, receivers, n int) time.Duration {
	var sending, receiving sync.WaitGroup
	sums := make([]int, receivers)
	begin := time.Now()
	for r := range receivers {
		receiving.Go(func() {
			sum := 0
			for v, ok := e.receive(); ok; v, ok = e.receive() {
				sum += v
			}
			sums[r] = sum
		})
	}
	each := n / senders
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				e.send(s*each + i)
			}
		})
	}
	sending.Wait()
	e.close()
	receiving.Wait()
	took := time.Since(begin)
	sum := 0
	for _, s := range sums {
		sum += s
	}
	if n = each * senders; sum != n*(n-1)/2 {
		tb.Errorf("received a sum of %d, want %d", sum, n*(n-1)/2)
	}
	return took
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}
