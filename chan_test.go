package hark_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

func newChan[T any](t testing.TB, capacity int) *hark.Chan[T] {
	t.Helper()
	c, err := hark.NewChan[T](nil, "", capacity)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closeChan[T any](t testing.TB, c *hark.Chan[T]) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestPrivateChan(t *testing.T) {
	if _, err := hark.NewChan[int](nil, "a..b", 0); !errors.Is(err, hark.ErrInvalidName) {
		t.Errorf("a bad name: %v, want ErrInvalidName", err)
	}
	a, err := hark.NewChan[int](nil, "jobs", 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hark.NewChan[int](nil, "jobs", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if a.Len() != 1 || b.Len() != 0 {
		t.Errorf("lengths %d and %d: private channels of one name are two", a.Len(), b.Len())
	}
}

func TestChanErrors(t *testing.T) {
	reason := errors.New("reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	c := newChan[int](t, 1)
	named, err := hark.NewChan[int](nil, "jobs", 0)
	if err != nil {
		t.Fatal(err)
	}
	closeChan(t, named)
	_, received := named.Receive(t.Context())
	_, other := hark.NewChan[int](nil, "jobs", -7)
	for _, tt := range []struct {
		got  error
		want string
	}{
		{c.Send(ctx, 1), "hark: send: reason"},
		{named.Send(t.Context(), 1), "hark: send jobs: closed"},
		{received, "hark: receive jobs: closed"},
		{other, "hark: channel jobs: invalid option: capacity -7: want 0, more, or Unbounded"},
	} {
		if tt.got == nil || tt.got.Error() != tt.want {
			t.Errorf("got %v, want %s", tt.got, tt.want)
		}
	}
}

// TestChanSegments moves various numbers of values through channels whose queue
// is longer or shorter than a segment (at most 256 values).
func TestChanSegments(t *testing.T) {
	ctx := t.Context()
	type big [600]byte
	check := func(name string, send func(int) bool, receive func() (int, bool)) {
		t.Helper()
		next, want := 0, 0
		for depth := 0; depth < 700; depth += 1 + depth/50 {
			for range depth {
				if send(next) {
					next++
				}
			}
			for range depth {
				if got, ok := receive(); ok && got != want {
					t.Fatalf("%s: received %d, want %d", name, got, want)
				} else if ok {
					want++
				}
			}
		}
		if want != next || next == 0 {
			t.Errorf("%s: received %d of %d", name, want, next)
		}
	}
	for _, capacity := range []int{1, 15, 16, 17, 300, hark.Unbounded} {
		ints, strings, bigs := newChan[int](t, capacity), newChan[*int](t, capacity), newChan[big](t, capacity)
		check("int", func(n int) bool {
			ok, _ := ints.TrySend(ctx, n)
			return ok
		}, func() (int, bool) {
			n, ok, _ := ints.TryReceive(ctx)
			return n, ok
		})
		check("pointer", func(n int) bool {
			ok, _ := strings.TrySend(ctx, &n)
			return ok
		}, func() (int, bool) {
			p, ok, _ := strings.TryReceive(ctx)
			if !ok {
				return 0, false
			}
			return *p, true
		})
		check("array", func(n int) bool {
			ok, _ := bigs.TrySend(ctx, big{0: byte(n), 599: byte(n >> 8), 300: byte(n >> 16)})
			return ok
		}, func() (int, bool) {
			b, ok, _ := bigs.TryReceive(ctx)
			return int(b[0]) | int(b[599])<<8 | int(b[300])<<16, ok
		})
	}
}

// TestCHN10ServedInOrder starts goroutines one by one that send and receive.
func TestCHN10ServedInOrder(t *testing.T) {
	for _, capacity := range []int{0, 1, 5} {
		synctest.Test(t, func(t *testing.T) {
			c := newChan[int](t, capacity)
			const n = 10
			for i := range n + capacity {
				go func() {
					if err := c.Send(t.Context(), i); err != nil {
						t.Error(err)
					}
				}()
				synctest.Wait()
			}
			if s := c.Stats(); s.Senders != n {
				t.Fatalf("capacity %d: %d senders wait, want %d", capacity, s.Senders, n)
			}
			for i := range n + capacity {
				if got, err := c.Receive(t.Context()); got != i || err != nil {
					t.Errorf("capacity %d: received %d, %v; want %d", capacity, got, err, i)
				}
			}
			got := make([]int, n)
			for i := range n {
				go func() {
					v, err := c.Receive(t.Context())
					if err != nil {
						t.Error(err)
					}
					got[i] = v
				}()
				synctest.Wait()
			}
			for i := range n {
				if err := c.Send(t.Context(), i); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			for i, v := range got {
				if v != i {
					t.Errorf("capacity %d: receivers in order of coming got %v", capacity, got)
					break
				}
			}
			// Goroutines that wait in Receive come before those at Out.
			out := c.Out()
			first, second := make(chan int, 1), make(chan int, 1)
			go func() { second <- <-out }()
			synctest.Wait()
			go func() {
				v, err := c.Receive(t.Context())
				if err != nil {
					t.Error(err)
				}
				first <- v
			}()
			synctest.Wait()
			for i := range 2 {
				if err := c.Send(t.Context(), i); err != nil {
					t.Error(err)
				}
			}
			if a, b := <-first, <-second; a != 0 || b != 1 {
				t.Errorf("capacity %d: Receive got %d and Out %d, want 0 and 1", capacity, a, b)
			}
			closeChan(t, c)
		})
	}
}

// TestCHN16Goroutines relies on the bubble, which fails the test if a goroutine
// is left.
func TestCHN16Goroutines(t *testing.T) {
	leak.Check(t)
	for _, capacity := range []int{0, 1, 3, hark.Unbounded} {
		before := runtime.NumGoroutine()
		for range 10 {
			closeChan(t, newChan[int](t, capacity))
		}
		idle := newChan[int](t, capacity)
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("capacity %d: %d goroutines, before %d", capacity, after, before)
		}
		closeChan(t, idle)
		idle.In()
		if _, ok := <-idle.Out(); ok {
			t.Errorf("capacity %d: Out of a closed channel is open", capacity)
		}
		synctest.Test(t, func(t *testing.T) { // In, and Out with nothing left
			c := newChan[int](t, capacity)
			c.In()
			c.Out()
			synctest.Wait()
			closeChan(t, c)
		})
		synctest.Test(t, func(t *testing.T) { // Out with something left that can still be received in other ways
			for _, rest := range []func(*hark.Chan[int]) int{
				func(c *hark.Chan[int]) int { return <-c.Out() },
				func(c *hark.Chan[int]) int {
					v, err := c.Receive(t.Context())
					if err != nil {
						t.Error(err)
					}
					return v
				},
			} {
				c := newChan[int](t, capacity)
				c.Out()
				if capacity == 0 {
					c.In() <- 1
				} else if err := c.Send(t.Context(), 1); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				closeChan(t, c)
				synctest.Wait()
				if v := rest(c); v != 1 {
					t.Errorf("capacity %d: received %d, want 1", capacity, v)
				}
			}
		})
	}
}

// TestCHN18BusClose closes the bus of a channel whose Out is in use. The bubble
// fails the test if a goroutine is left.
func TestCHN18BusClose(t *testing.T) {
	const grace = 3 * time.Second
	open := func(t *testing.T, capacity int) (*hark.Bus, *hark.Chan[int]) {
		bus := hark.New(hark.Grace(grace))
		c, err := hark.NewChan[int](bus, "jobs", capacity)
		if err != nil {
			t.Fatal(err)
		}
		return bus, c
	}
	send := func(t *testing.T, c *hark.Chan[int], n int) {
		for i := range n {
			if err := c.Send(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, capacity := range []int{0, 5, hark.Unbounded} {
		t.Run("nobody reads", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus, c := open(t, capacity)
				out, n := c.Out(), 3
				if capacity == 0 { // one value is taken ahead
					c.In() <- 0
					n = 1
				} else {
					send(t, c, n)
				}
				synctest.Wait()
				begin := time.Now()
				err := bus.Close(t.Context())
				var left *hark.CloseError
				want := hark.Left{Kind: hark.KindChan, Name: "jobs", Waiting: n}
				if !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0] != want {
					t.Errorf("capacity %d: Close = %v, want %v left", capacity, err, want)
				}
				if took := time.Since(begin); took != grace {
					t.Errorf("capacity %d: Close took %v, want %v", capacity, took, grace)
				}
				if v, ok := <-out; ok {
					t.Errorf("capacity %d: received %d from Out after the close of the bus", capacity, v)
				}
				for i := range n {
					if got, err := c.Receive(t.Context()); got != i || err != nil {
						t.Errorf("capacity %d: received %d, %v; want %d", capacity, got, err, i)
					}
				}
				if _, err := c.Receive(t.Context()); !errors.Is(err, hark.ErrClosed) {
					t.Errorf("capacity %d: Receive of what is empty = %v, want ErrClosed", capacity, err)
				}
			})
		})
		t.Run("a slow reader", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus, c := open(t, capacity)
				n := 5
				got := make(chan int, n)
				out := c.Out()
				go func() {
					for v := range out {
						time.Sleep(grace / 10)
						got <- v
					}
					close(got)
				}()
				send(t, c, n) // at most one is with the reader
				begin := time.Now()
				if err := bus.Close(t.Context()); err != nil {
					t.Errorf("capacity %d: Close = %v", capacity, err)
				}
				if took := time.Since(begin); took >= grace {
					t.Errorf("capacity %d: Close took %v", capacity, took)
				}
				i := 0
				for v := range got {
					if v != i {
						t.Errorf("capacity %d: received %d, want %d", capacity, v, i)
					}
					i++
				}
				if i != n {
					t.Errorf("capacity %d: received %d values, want %d", capacity, i, n)
				}
			})
		})
		t.Run("Out after the close", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus, c := open(t, capacity)
				n := max(0, min(capacity, 2))
				send(t, c, n)
				begin := time.Now()
				if err := bus.Close(t.Context()); err != nil || time.Since(begin) != 0 {
					t.Errorf("capacity %d: Close = %v after %v", capacity, err, time.Since(begin))
				}
				if v, ok := <-c.Out(); ok {
					t.Errorf("capacity %d: received %d from Out after the close of the bus", capacity, v)
				}
				for i := range n {
					if got, err := c.Receive(t.Context()); got != i || err != nil {
						t.Errorf("capacity %d: received %d, %v; want %d", capacity, got, err, i)
					}
				}
			})
		})
	}
}

// TestChanInClosed closes the channel through In. Each kind of caller that may
// notice is tested.
func TestChanInClosed(t *testing.T) {
	for _, capacity := range []int{0, 1} {
		for name, notice := range map[string]func(*testing.T, *hark.Chan[int]) error{
			"Receive": func(t *testing.T, c *hark.Chan[int]) error {
				_, err := c.Receive(t.Context())
				return err
			},
			"TryReceive": func(t *testing.T, c *hark.Chan[int]) error {
				_, _, err := c.TryReceive(t.Context())
				return err
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := newChan[int](t, capacity)
				waiting := make(chan error, 1)
				in := c.In()
				close(in)
				if err := notice(t, c); !errors.Is(err, hark.ErrClosed) {
					t.Errorf("capacity %d: %s = %v, want ErrClosed", capacity, name, err)
				}
				go func() {
					_, err := c.Receive(t.Context())
					waiting <- err
				}()
				if err := <-waiting; !errors.Is(err, hark.ErrClosed) {
					t.Errorf("capacity %d: Receive = %v, want ErrClosed", capacity, err)
				}
				closeChan(t, c)
			})
		}
	}
}

func TestCHN17Memory(t *testing.T) {
	type payload struct{ _ [64]byte }
	alive := func(ps []weak.Pointer[payload]) int {
		runtime.GC()
		n := 0
		for _, p := range ps {
			if p.Value() != nil {
				n++
			}
		}
		return n
	}
	for _, capacity := range []int{0, 1, 100, hark.Unbounded} {
		synctest.Test(t, func(t *testing.T) {
			c := newChan[*payload](t, capacity)
			var sent []weak.Pointer[payload]
			make1 := func() *payload {
				p := &payload{}
				sent = append(sent, weak.Make(p))
				return p
			}
			for range 100 {
				p := make1()
				go func() {
					if err := c.Send(t.Context(), p); err != nil {
						t.Error(err)
					}
				}()
			}
			synctest.Wait()
			c.Out()
			for i := range 100 {
				var err error
				if i%2 == 0 {
					_, err = c.Receive(t.Context())
				} else {
					<-c.Out()
				}
				if err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			if n := alive(sent); n > 0 {
				t.Errorf("capacity %d: %d values are held that were received", capacity, n)
			}
			sent = nil
			if capacity == 0 || capacity == 1 {
				if capacity == 1 {
					if err := c.Send(t.Context(), nil); err != nil {
						t.Error(err)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				for range 100 {
					p := make1()
					go func() {
						if err := c.Send(ctx, p); err == nil {
							t.Error("sent although cancelled")
						}
					}()
				}
				synctest.Wait()
				cancel()
				synctest.Wait()
				if n := alive(sent); n > 0 || c.Stats().Senders > 0 {
					t.Errorf("capacity %d: %d values are held whose Send was cancelled, %d senders wait", capacity, n, c.Stats().Senders)
				}
			}
			closeChan(t, c)
			for range c.All(t.Context()) {
			}
		})
	}
	t.Run("burst", testBurstMemory)
}

// testBurstMemory checks that an unbounded channel releases the memory that a burst
// needed.
func testBurstMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	c := newChan[[4]int](t, hark.Unbounded)
	before := heap()
	const n = 200_000
	for i := range n {
		if err := c.Send(t.Context(), [4]int{i}); err != nil {
			t.Fatal(err)
		}
	}
	during := heap()
	for range n {
		if _, err := c.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	after := heap()
	if during < before+n*32 {
		t.Errorf("%d bytes in use during the burst, %d before: the test measures nothing", during, before)
	}
	if after > before+100<<10 {
		t.Errorf("%d bytes in use after the burst, %d before", after, before)
	}
	runtime.KeepAlive(c)
}

// TestChanWithoutAllocations covers the operations on each value.
func TestChanWithoutAllocations(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, capacity := range []int{1, 100, hark.Unbounded} {
		c := newChan[[3]int](t, capacity)
		got := testing.AllocsPerRun(1000, func() {
			if err := c.Send(ctx, [3]int{}); err != nil {
				t.Error(err)
			}
			if _, err := c.Receive(ctx); err != nil {
				t.Error(err)
			}
			if _, ok, err := c.TryReceive(ctx); ok || err != nil {
				t.Error(ok, err)
			}
		})
		if got > 0 {
			t.Errorf("capacity %d: %v allocations", capacity, got)
		}
	}
	there, back := newChan[int](t, 0), newChan[int](t, 0)
	go func() {
		for v := range there.All(ctx) {
			if back.Send(ctx, v) != nil {
				return
			}
		}
	}()
	got := testing.AllocsPerRun(1000, func() {
		if err := there.Send(ctx, 1); err != nil {
			t.Error(err)
		}
		if _, err := back.Receive(ctx); err != nil {
			t.Error(err)
		}
	})
	if got > 0 {
		t.Errorf("a rendezvous: %v allocations", got)
	}
	closeChan(t, there)
	closeChan(t, back)
}

// TestChanTimeout checks that waits end with their context and not before.
func TestChanTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChan[int](t, 0)
		in, out := c.In(), c.Out()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			begin := time.Now()
			if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
				t.Errorf("Receive = %v after %v", err, time.Since(begin))
			}
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
			begin = time.Now()
			if err := c.Send(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
				t.Errorf("Send = %v after %v", err, time.Since(begin))
			}
			cancel()
			select {
			case v := <-out:
				t.Errorf("Out has %d, whose Send was cancelled", v)
			case <-time.After(time.Minute):
			}
		}
		in <- 2
		if v := <-out; v != 2 {
			t.Errorf("got %d, want 2", v)
		}
		closeChan(t, c)
		if got := slices.Collect(c.All(t.Context())); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
	})
}
