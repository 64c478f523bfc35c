package hark_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

// chain records what an observer is told, and checks that nothing is missing.
type chain struct {
	t    *testing.T
	last int
	seen []int
}

func (c *chain) told(old, now int) {
	if old != c.last {
		c.t.Errorf("told %d -> %d, the last was %d", old, now, c.last)
	}
	c.last = now
	c.seen = append(c.seen, now)
}

// TestInlineObserversSeeAll changes a value from many goroutines while
// observers come and go. All observers that are there from the start are told
// of the same changes before Set returns, and later ones of the changes that
// follow.
func TestInlineObserversSeeAll(t *testing.T) {
	leak.Check(t)
	v := newValue(t, nil, 0)
	a, b := &chain{t: t}, &chain{t: t}
	var mu sync.Mutex // rounds do not overlap, but the test also reads
	told := map[int]bool{}
	observe(t, v, a.told)
	observe(t, v, b.told)
	observe(t, v, func(_, now int) {
		mu.Lock()
		defer mu.Unlock()
		told[now] = true
	})
	const workers, each = 6, 200
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := 1 + w*each + i
				if err := v.Set(t.Context(), n); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if !told[n] {
					t.Errorf("Set(%d) returned before an observer was told", n)
				}
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for range each {
			first, last := true, 0
			stop, err := v.Observe(func(old, now int) {
				if !first && old != last {
					t.Errorf("a late observer was told %d -> %d, the last was %d", old, now, last)
				}
				first, last = false, now
			})
			if err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
			stop()
			stop()
		}
	})
	wg.Wait()
	if len(a.seen) != workers*each {
		t.Errorf("told of %d changes, want %d", len(a.seen), workers*each)
	}
	if !slices.Equal(a.seen, b.seen) {
		t.Error("two observers were told in different orders")
	}
	if v.Get() != a.last {
		t.Errorf("the value is %d, the last change %d", v.Get(), a.last)
	}
}

func TestObserverSets(t *testing.T) {
	leak.Check(t)
	v := newValue(t, nil, 0)
	first, last := &chain{t: t}, &chain{t: t}
	observe(t, v, first.told)
	observe(t, v, func(_, now int) {
		if now%10 < 3 {
			if err := v.Set(t.Context(), now+1); err != nil {
				t.Error(err)
			}
			if got := v.Get(); got != now+1 {
				t.Errorf("Get in an observer after Set(%d) = %d", now+1, got)
			}
			if len(last.seen) > 0 && last.seen[len(last.seen)-1] == now+1 {
				t.Error("the next change was told before this one was told to all")
			}
		}
	})
	observe(t, v, last.told)
	set(t, v, 10)
	set(t, v, 20)
	want := []int{10, 11, 12, 13, 20, 21, 22, 23}
	if !slices.Equal(first.seen, want) || !slices.Equal(last.seen, want) {
		t.Errorf("told %v and %v, want %v", first.seen, last.seen, want)
	}
}

// TestValuesSetEachOther has observers of two values set the other value, from
// both sides at once.
func TestValuesSetEachOther(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, b := newValue(t, nil, 0), newValue(t, nil, 0)
	bounce := func(to *hark.Value[int]) func(old, now int) {
		return func(_, now int) {
			if now%4 != 0 {
				if _, err := to.Update(ctx, func(int) int { return now - 1 }); err != nil {
					t.Error(err)
				}
			}
		}
	}
	observe(t, a, bounce(b))
	observe(t, b, bounce(a))
	seen := [2]*chain{{t: t}, {t: t}}
	observe(t, a, seen[0].told)
	observe(t, b, seen[1].told)
	var mu sync.Mutex
	told := map[int]bool{}
	for _, v := range []*hark.Value[int]{a, b} {
		observe(t, v, func(_, now int) {
			mu.Lock()
			defer mu.Unlock()
			told[now] = true
		})
	}
	const setters, rounds = 3, 300
	var wg sync.WaitGroup
	for i := range 2 * setters {
		v := []*hark.Value[int]{a, b}[i%2]
		wg.Go(func() {
			for k := range rounds {
				n := 8*(i*rounds+k) + 7
				if err := v.Set(ctx, n); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if !told[n] {
					t.Errorf("Set(%d) returned before an observer was told", n)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// 7 here, 6 there, 5 here, 4 there.
	if n := len(seen[0].seen) + len(seen[1].seen); n != 2*setters*rounds*4 {
		t.Errorf("told of %d changes, want %d", n, 2*setters*rounds*4)
	}
}

func TestObserverStopsItselfAndAddsOthers(t *testing.T) {
	v := newValue(t, nil, 0)
	var log []string
	note := func(who string, old, now int) { log = append(log, fmt.Sprintf("%s %d-%d", who, old, now)) }
	var stop func()
	stop = observe(t, v, func(old, now int) {
		note("once", old, now)
		stop()
		observe(t, v, func(old, now int) { note("late", old, now) })
	})
	var stopOther func()
	observe(t, v, func(old, now int) {
		note("killer", old, now)
		if now == 2 {
			stopOther()
		}
	})
	stopOther = observe(t, v, func(old, now int) { note("victim", old, now) })
	for i := range 3 {
		set(t, v, i+1)
	}
	want := []string{
		"once 0-1", "killer 0-1", "victim 0-1",
		"killer 1-2", "late 1-2", // stop takes effect at once
		"killer 2-3", "late 2-3",
	}
	if !slices.Equal(log, want) {
		t.Errorf("calls\n%v, want\n%v", log, want)
	}
}

// failHook collects failures.
type failHook struct {
	mu     sync.Mutex
	events []hark.FailEvent
}

func (h *failHook) OnFail(e hark.FailEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func TestObserverPanics(t *testing.T) {
	for _, opts := range [][]hark.ObserveOption{nil, {hark.Buffer(hark.Unbounded)}} {
		synctest.Test(t, func(t *testing.T) {
			var fails failHook
			bus := hark.New(hark.WithHooks(&fails))
			v := newValue(t, bus, 0)
			cause := errors.New("cause")
			before, after := &chain{t: t}, &chain{t: t}
			observe(t, v, before.told, opts...)
			calls := 0
			observe(t, v, func(int, int) { calls++; panic(cause) }, opts...)
			observe(t, v, after.told, opts...)
			for i := range 3 {
				set(t, v, i+1)
				synctest.Wait()
			}
			want := []int{1, 2, 3}
			if !slices.Equal(before.seen, want) || !slices.Equal(after.seen, want) || calls != 3 {
				t.Errorf("told %v and %v, panicked %d times; want %v and 3", before.seen, after.seen, calls, want)
			}
			if len(fails.events) != 3 {
				t.Fatalf("%d failures reported, want 3", len(fails.events))
			}
			e := fails.events[0]
			var p *hark.PanicError
			if !errors.As(e.Err, &p) || !errors.Is(e.Err, cause) || len(p.Stack) == 0 {
				t.Errorf("error %v, want a PanicError of the cause with a stack", e.Err)
			}
			if want := (hark.Source{Kind: hark.KindValue, Name: "v", Subscription: "v#2"}); e.Source != want || e.Message != nil || e.Attempt != 1 {
				t.Errorf("event %+v, want source %+v", e, want)
			}
			if got := v.Stats().Failed; got != 3 {
				t.Errorf("stats count %d failures, want 3", got)
			}
			closeBus(t, bus)
		})
	}
}

// TestObserverGoexit ends the goroutine that sets the value or runs the
// buffered observer, as t.FailNow would.
func TestObserverGoexit(t *testing.T) {
	for _, opts := range [][]hark.ObserveOption{nil, {hark.Buffer(hark.Unbounded)}} {
		synctest.Test(t, func(t *testing.T) {
			var fails failHook
			bus := hark.New(hark.WithHooks(&fails))
			v := newValue(t, bus, 0)
			after := &chain{t: t}
			observe(t, v, func(_, now int) {
				if now == 1 {
					if err := v.Set(t.Context(), 2); err != nil { // told by the change that follows the exit
						t.Error(err)
					}
					runtime.Goexit()
				}
			}, opts...)
			observe(t, v, after.told, opts...)
			done := make(chan bool, 1)
			go func() {
				returned := false
				defer func() { done <- returned }()
				if err := v.Set(t.Context(), 1); err != nil {
					t.Error(err)
				}
				returned = true
			}()
			if returned := <-done; returned != (opts != nil) {
				t.Errorf("Set returned: %v", returned)
			}
			synctest.Wait()
			set(t, v, 3)
			synctest.Wait()
			if want := []int{1, 2, 3}; !slices.Equal(after.seen, want) {
				t.Errorf("told %v, want %v", after.seen, want)
			}
			if len(fails.events) != 1 || fails.events[0].Err == nil {
				t.Errorf("failures %+v, want one", fails.events)
			}
			closeBus(t, bus)
		})
	}
}

// TestSetWaitsForItsTurn blocks an inline observer. A Set from elsewhere then
// waits until its context ends, and has changed nothing; Get does not wait.
func TestSetWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValue(t, nil, 0)
		gate := make(chan struct{})
		seen := &chain{t: t}
		observe(t, v, func(_, now int) {
			if now == 1 {
				<-gate
			}
		})
		observe(t, v, seen.told)
		done := make(chan error, 10)
		go func() { done <- v.Set(context.Background(), 1) }()
		synctest.Wait()
		if got := v.Get(); got != 1 {
			t.Errorf("Get while observers are told = %d, want 1", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { done <- v.Set(context.Background(), 2) }()
		synctest.Wait()
		start := time.Now()
		if err := v.Set(ctx, 99); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("Set = %v after %v, want its deadline", err, time.Since(start))
		}
		go func() { done <- v.Set(context.Background(), 3) }()
		go func() { done <- second(v.Update(context.Background(), func(n int) int { return n + 10 })) }()
		synctest.Wait()
		if got, n := v.Load(); got != 1 || n != 2 {
			t.Errorf("%d, version %d while others wait; want 1, 2", got, n)
		}
		if ok, err := v.CompareAndSet(context.Background(), 1, 50); ok || err != nil { // needs no turn
			t.Errorf("CompareAndSet of an old version = %v, %v", ok, err)
		}
		close(gate)
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if len(seen.seen) != 4 || !slices.Equal(seen.seen[:2], []int{1, 2}) {
			t.Errorf("told %v, want 1, 2 and two more", seen.seen)
		}
	})
}

// TestTurnIsPassedOn repeatedly ends the context of a Set just as its turn
// comes. The next in line must get the turn.
func TestTurnIsPassedOn(t *testing.T) {
	leak.Check(t)
	v := newValue(t, nil, 0)
	observe(t, v, func(int, int) { runtime.Gosched() })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				err := v.Set(ctx, 1)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if err := v.Set(ctx, 1); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

func TestRunawayObserver(t *testing.T) {
	v := newValue(t, nil, 0)
	var err error
	made := 0
	observe(t, v, func(old, _ int) {
		for old == 0 && err == nil {
			if err = v.Set(t.Context(), made+2); err == nil {
				made++
			}
		}
	})
	told := &chain{t: t}
	observe(t, v, told.told)
	set(t, v, 1)
	if !errors.Is(err, hark.ErrWouldDeadlock) || made != 65536 {
		t.Errorf("after %d changes: %v, want ErrWouldDeadlock after 65536", made, err)
	}
	if len(told.seen) != made+1 {
		t.Errorf("told of %d changes, want %d", len(told.seen), made+1)
	}
}

func TestBufferedPolicies(t *testing.T) {
	tests := []struct {
		title   string
		opts    []hark.ObserveOption
		want    []int // of 0 and 1 to 9, while the observer is stuck in 0
		dropped int
	}{
		{"Latest", []hark.ObserveOption{hark.Overflow(hark.Latest)}, []int{0, 9}, 8},
		{"Buffer(1)", []hark.ObserveOption{hark.Buffer(1)}, []int{0, 9}, 8},
		{"Buffer(3)", []hark.ObserveOption{hark.Buffer(3)}, []int{0, 7, 8, 9}, 6},
		{"DropOldest", []hark.ObserveOption{hark.Buffer(3), hark.Overflow(hark.DropOldest)}, []int{0, 7, 8, 9}, 6},
		{"DropNewest", []hark.ObserveOption{hark.Buffer(3), hark.Overflow(hark.DropNewest)}, []int{0, 1, 2, 3}, 6},
		{"Unbounded", []hark.ObserveOption{hark.Buffer(hark.Unbounded)}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0},
		{"default buffer", []hark.ObserveOption{hark.Overflow(hark.DropOldest)}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			var drops dropHook
			bus := hark.New(hark.WithHooks(&drops))
			v := newValue(t, bus, -1)
			gate := make(chan struct{})
			told := &chain{t: t, last: -1}
			observe(t, v, func(old, now int) {
				told.told(old, now) // a dropped change leaves no gap
				if now == 0 {
					<-gate
				}
			}, tt.opts...)
			for i := range 10 {
				set(t, v, i)
				synctest.Wait()
			}
			close(gate)
			closeBus(t, bus)
			if !slices.Equal(told.seen, tt.want) {
				t.Errorf("%s: told %v, want %v", tt.title, told.seen, tt.want)
			}
			if got := v.Stats().Dropped; int(got) != tt.dropped || drops.total(hark.DropOverflow) != tt.dropped {
				t.Errorf("%s: %d drops counted, %d reported; want %d", tt.title, got, drops.total(hark.DropOverflow), tt.dropped)
			}
		})
	}
}

func TestBufferedBlockAndFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		v := newValue(t, bus, 0)
		gate := make(chan struct{})
		told, other := &chain{t: t}, &chain{t: t}
		observe(t, v, other.told)
		stop := observe(t, v, func(old, now int) {
			<-gate
			told.told(old, now)
		}, hark.Buffer(2), hark.Overflow(hark.Block))
		for i := range 3 {
			set(t, v, i+1)
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := v.Set(ctx, 99); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Set with a full buffer = %v, want its deadline", err)
		}
		if got, n := v.Load(); got != 3 || n != 4 {
			t.Errorf("%d, version %d; want 3, 4", got, n)
		}
		done := make(chan error)
		go func() { done <- v.Set(context.Background(), 4) }()
		synctest.Wait()
		gate <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
		stopFail := observe(t, v, func(int, int) { <-gate }, hark.Buffer(1), hark.Overflow(hark.Fail))
		go func() { done <- v.Set(context.Background(), 5) }()
		synctest.Wait()
		stop() // what waited for it continues
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // until the second observer has a worker
		set(t, v, 6)
		if err := v.Set(t.Context(), 99); !errors.Is(err, hark.ErrFull) {
			t.Errorf("Set with a full buffer = %v, want ErrFull", err)
		}
		if got := v.Get(); got != 6 {
			t.Errorf("the value is %d, want 6", got)
		}
		stopFail()
		close(gate)
		synctest.Wait()
		if want := []int{1, 2, 3, 4, 5, 6}; !slices.Equal(other.seen, want) {
			t.Errorf("the inline observer was told %v, want %v", other.seen, want)
		}
		if want := []int{1, 2}; !slices.Equal(told.seen, want) {
			t.Errorf("the blocking observer was told %v, want %v: it was stopped in the second call", told.seen, want)
		}
		closeBus(t, bus)
	})
}

// TestBufferedObserverSets checks that a Set by a buffered observer exceeds a
// full buffer, because it would wait for itself.
func TestBufferedObserverSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		v := newValue(t, bus, 0)
		told := &chain{t: t}
		observe(t, v, func(old, now int) {
			told.told(old, now)
			if now%10 == 0 {
				for i := range 5 {
					if err := v.Set(context.Background(), now+i+1); err != nil {
						t.Error(err)
					}
				}
			}
		}, hark.Buffer(1), hark.Overflow(hark.Block))
		set(t, v, 10)
		synctest.Wait()
		set(t, v, 20)
		closeBus(t, bus)
		if want := []int{10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25}; !slices.Equal(told.seen, want) {
			t.Errorf("told %v, want %v", told.seen, want)
		}
	})
}

// slowHook collects reports of slow handlers.
type slowHook struct{ events chan hark.SlowEvent }

func (h slowHook) OnSlow(e hark.SlowEvent) { h.events <- e }

func TestSlowObserver(t *testing.T) {
	for _, opts := range [][]hark.ObserveOption{nil, {hark.Overflow(hark.Latest)}} {
		synctest.Test(t, func(t *testing.T) {
			slow := slowHook{make(chan hark.SlowEvent, 10)}
			bus := hark.New(hark.WithHooks(slow), hark.SlowAfter(time.Second))
			v := newValue(t, bus, 0)
			observe(t, v, func(_, now int) { time.Sleep(time.Duration(now) * 600 * time.Millisecond) }, opts...)
			for i := range 3 {
				set(t, v, i)
				time.Sleep(time.Minute)
			}
			if len(slow.events) != 1 {
				t.Fatalf("%d slow runs reported, want 1", len(slow.events))
			}
			want := hark.SlowEvent{Source: hark.Source{Kind: hark.KindValue, Name: "v", Subscription: "v#1"}, For: time.Second}
			if got := <-slow.events; got != want {
				t.Errorf("event %+v, want %+v", got, want)
			}
			closeBus(t, bus)
		})
	}
}

// TestObserverPublishes checks that what observers pass on while the bus drains
// still arrives.
func TestObserverPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		v := newValue(t, bus, 0)
		topic, err := hark.NewTopic[int](bus, "changes")
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		if _, err := topic.Subscribe(func(_ context.Context, m *hark.Message[int]) error {
			got = append(got, m.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		observe(t, v, func(_, now int) {
			time.Sleep(time.Second) // the bus is closing after this
			if err := topic.Publish(context.Background(), now); err != nil {
				t.Error(err)
			}
		}, hark.Buffer(10))
		for i := range 3 {
			set(t, v, i)
		}
		closeBus(t, bus)
		if want := []int{0, 1, 2}; !slices.Equal(got, want) {
			t.Errorf("the topic got %v, want %v", got, want)
		}
	})
}
