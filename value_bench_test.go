package hark

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
)

// triple is a value of three words.
type triple struct{ A, B, C uint64 }

func benchValue[T any](b *testing.B, initial T) *Value[T] {
	b.Helper()
	v, err := NewValue(New(), "bench", initial)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// BenchmarkValueGet compares Get with a bare atomic pointer and a lock.
func BenchmarkValueGet(b *testing.B) {
	var sink uint64
	b.Run("value", func(b *testing.B) {
		v := benchValue(b, triple{A: 1})
		for b.Loop() {
			sink += v.Get().A
		}
	})
	b.Run("atomic.Pointer", func(b *testing.B) {
		var p atomic.Pointer[triple]
		p.Store(&triple{A: 1})
		for b.Loop() {
			sink += p.Load().A
		}
	})
	b.Run("RWMutex", func(b *testing.B) {
		var mu sync.RWMutex
		t := triple{A: 1}
		for b.Loop() {
			mu.RLock()
			sink += t.A
			mu.RUnlock()
		}
	})
	b.Run("value after each Set", func(b *testing.B) {
		v := benchValue(b, triple{})
		b.ReportAllocs()
		for b.Loop() {
			if err := v.Set(context.Background(), triple{A: sink}); err != nil {
				b.Fatal(err)
			}
			sink += v.Get().A
		}
	})
	b.Run("value copied after each Set", func(b *testing.B) {
		v := benchValue(b, triple{})
		b.ReportAllocs()
		for b.Loop() {
			if err := v.Set(context.Background(), triple{A: sink}); err != nil {
				b.Fatal(err)
			}
			for range getsBeforeCopy + 1 {
				sink += v.Get().A
			}
		}
	})
}

// BenchmarkValueSet compares Set without observers with the least that an
// alternative would do.
func BenchmarkValueSet(b *testing.B) {
	ctx := b.Context()
	b.Run("value", func(b *testing.B) {
		v := benchValue(b, triple{})
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := v.Set(context.Background(), triple{A: i}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("value, cancellable", func(b *testing.B) {
		v := benchValue(b, triple{})
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := v.Set(ctx, triple{A: i}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mutex", func(b *testing.B) {
		var mu sync.Mutex
		var t triple
		for i := uint64(0); b.Loop(); i++ {
			mu.Lock()
			t = triple{A: i}
			mu.Unlock()
		}
		_ = t
	})
	b.Run("atomic.Pointer", func(b *testing.B) {
		var p atomic.Pointer[triple]
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			p.Store(&triple{A: i})
		}
	})
	b.Run("update", func(b *testing.B) {
		v := benchValue(b, triple{})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Update(context.Background(), func(t triple) triple { t.A++; return t }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// keeper is an observer that keeps what it is told, as most observers do.
type keeper struct {
	now   triple
	calls uint64
}

//go:noinline
func (k *keeper) keep(_, now triple) {
	k.now = now
	k.calls++
}

// BenchmarkValueObservers compares Set with ten inline observers with calling
// ten functions in a slice.
func BenchmarkValueObservers(b *testing.B) {
	const n = 10
	b.Run("value", func(b *testing.B) {
		v := benchValue(b, triple{})
		for range n {
			if _, err := v.Observe(new(keeper).keep); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := v.Set(context.Background(), triple{A: i}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("calls", func(b *testing.B) {
		var fs []func(old, now triple)
		for range n {
			fs = append(fs, new(keeper).keep)
		}
		var t triple
		for i := uint64(0); b.Loop(); i++ {
			old := t
			t = triple{A: i}
			for _, f := range fs {
				f(old, t)
			}
		}
	})
	b.Run("calls under a mutex", func(b *testing.B) {
		var mu sync.Mutex
		var fs []func(old, now triple)
		for range n {
			fs = append(fs, new(keeper).keep)
		}
		var t triple
		for i := uint64(0); b.Loop(); i++ {
			mu.Lock()
			old := t
			t = triple{A: i}
			for _, f := range fs {
				f(old, t)
			}
			mu.Unlock()
		}
	})
	b.Run("one observer", func(b *testing.B) {
		v := benchValue(b, triple{})
		if _, err := v.Observe(new(keeper).keep); err != nil {
			b.Fatal(err)
		}
		for i := uint64(0); b.Loop(); i++ {
			if err := v.Set(context.Background(), triple{A: i}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("buffered", func(b *testing.B) {
		v := benchValue(b, triple{})
		if _, err := v.Observe(new(keeper).keep, Overflow(Latest)); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := v.Set(context.Background(), triple{A: i}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValueWatch measures the time to wake a loop over Watch and hear back
// from it, and compares it with two channels of capacity one.
func BenchmarkValueWatch(b *testing.B) {
	b.Run("value", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		v := benchValue(b, uint64(0))
		back := make(chan uint64, 1)
		go func() {
			defer close(back)
			for n := range v.Watch(ctx) {
				back <- n
			}
		}()
		<-back
		b.ReportAllocs()
		for i := uint64(1); b.Loop(); i++ {
			if err := v.Set(context.Background(), i); err != nil {
				b.Fatal(err)
			}
			if got := <-back; got != i {
				b.Fatalf("got %d, want %d", got, i)
			}
		}
		cancel()
		for range back {
		}
	})
	b.Run("channel", func(b *testing.B) {
		to, back := make(chan uint64, 1), make(chan uint64, 1)
		go func() {
			defer close(back)
			for n := range to {
				back <- n
			}
		}()
		b.ReportAllocs()
		for i := uint64(1); b.Loop(); i++ {
			to <- i
			if got := <-back; got != i {
				b.Fatalf("got %d, want %d", got, i)
			}
		}
		close(to)
		for range back {
		}
	})
	b.Run("select on a context", func(b *testing.B) {
		ctx := b.Context()
		to, back := make(chan uint64, 1), make(chan uint64, 1)
		go func() {
			defer close(back)
			for {
				select {
				case n, ok := <-to:
					if !ok {
						return
					}
					back <- n
				case <-ctx.Done():
					return
				}
			}
		}()
		b.ReportAllocs()
		for i := uint64(1); b.Loop(); i++ {
			to <- i
			if got := <-back; got != i {
				b.Fatalf("got %d, want %d", got, i)
			}
		}
		close(to)
		for range back {
		}
	})
}
