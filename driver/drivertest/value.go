package drivertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

var valueClauses = []Clause{
	{"VAL-1", "one value per name", testValueNames},
	{"VAL-2", "a Get sees every Set that has returned", testValueGet},
	{"VAL-3", "updates are never lost", testValueUpdate},
	{"VAL-4", "versions and compare-and-set", testValueVersions},
	{"VAL-5", "observers see each change in order", testValueOrder},
	{"VAL-6", "Set returns after inline observers were told", testValueInline},
	{"VAL-7", "an observer may use the value", testValueNested},
	{"VAL-8", "a Set waits for its turn until its context ends", testValueTurn},
	{"VAL-9", "a panicking observer harms nobody", testValuePanic},
	{"VAL-10", "buffered observers and their policies", testValueBuffered},
	{"VAL-11", "Watch begins with the present and gets the last", testValueWatch},
	{"VAL-12", "WaitUntil", testValueWaitUntil},
	{"VAL-13", "closing the bus", testValueClose},
}

func openValue[T any](t *testing.T, bus *hark.Bus, name string, initial T) *hark.Value[T] {
	t.Helper()
	return must(hark.NewValue(bus, name, initial))(t)
}

func mustSet[T any](ctx context.Context, t *testing.T, v *hark.Value[T], value T) {
	t.Helper()
	if err := v.Set(ctx, value); err != nil {
		t.Error(err)
	}
}

func testValueNames(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 1)
	mustSet(ctx, t, v, 2)
	if got := openValue(t, bus, "config", 3).Get(); got != 2 {
		t.Errorf("opened again, the value is %d, want 2: the initial value is for the first", got)
	}
	if got := openValue(t, bus, "other", 3).Get(); got != 3 {
		t.Errorf("a new value is %d, want the initial 3", got)
	}
	if _, err := hark.NewValue(bus, "config", "text"); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("another type: %v, want ErrTypeMismatch", err)
	}
	for _, name := range []string{"", "a..b", "a.*", "a.>"} {
		if _, err := hark.NewValue(bus, name, 0); !errors.Is(err, hark.ErrInvalidName) {
			t.Errorf("name %q: %v, want ErrInvalidName", name, err)
		}
	}
}

func testValueGet(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	const n = 50
	var wg sync.WaitGroup
	var mu sync.Mutex
	set := 0 // the value of the last Set that has returned
	wg.Go(func() {
		for i := range n {
			mustSet(ctx, t, v, i+1)
			mu.Lock()
			set = i + 1
			mu.Unlock()
		}
	})
	for range 3 {
		wg.Go(func() {
			for seen := 0; seen < n && ctx.Err() == nil; {
				mu.Lock()
				least := max(set, seen)
				mu.Unlock()
				got, _ := v.Load()
				if got < least || v.Get() < got {
					t.Errorf("got %d after %d was set and %d seen", got, least, seen)
					return
				}
				seen = got
			}
		})
	}
	wg.Wait()
}

func testValueUpdate(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	const workers, each = 4, 25
	var wg sync.WaitGroup
	var mu sync.Mutex
	results := map[int]bool{}
	for range workers {
		v := openValue(t, bus, "counter", 0)
		wg.Go(func() {
			for range each {
				n, err := v.Update(ctx, func(n int) int { return n + 1 })
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if results[n] {
					t.Errorf("two updates made %d", n)
				}
				results[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := openValue(t, bus, "counter", 0).Get(); got != workers*each {
		t.Errorf("the counter is %d after %d updates", got, workers*each)
	}
}

func testValueVersions(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", "a")
	_, first := v.Load()
	if first == 0 {
		t.Error("the first version is 0")
	}
	mustSet(ctx, t, v, "a")
	value, second := v.Load()
	if value != "a" || second <= first {
		t.Errorf("setting the same again: %q, version %d after %d; want a greater one", value, second, first)
	}
	if v.Version() != second {
		t.Errorf("Version() = %d, Load has %d", v.Version(), second)
	}
	for _, old := range []uint64{0, first, second + 1000} {
		if ok, err := v.CompareAndSet(ctx, old, "b"); ok || err != nil {
			t.Errorf("CompareAndSet(%d) at version %d = %v, %v", old, second, ok, err)
		}
	}
	if ok, err := v.CompareAndSet(ctx, second, "c"); !ok || err != nil {
		t.Errorf("CompareAndSet at its version = %v, %v", ok, err)
	}
	if value, n := v.Load(); value != "c" || n <= second {
		t.Errorf("after it: %q, version %d", value, n)
	}
	_, version := v.Load()
	var wins int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			ok, err := v.CompareAndSet(ctx, version, "d")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				wins++
			}
		})
	}
	if wg.Wait(); wins != 1 {
		t.Errorf("%d of 4 won the same version, want 1", wins)
	}
}

// record holds the changes that an observer was told of.
type record struct {
	mu      sync.Mutex
	changes [][2]int
}

func (r *record) told(old, now int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, [2]int{old, now})
}

func (r *record) get() [][2]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changes)
}

func mustObserve[T any](t *testing.T, v *hark.Value[T], f func(old, now T), opts ...hark.ObserveOption) (stop func()) {
	t.Helper()
	stop, err := v.Observe(f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

func testValueOrder(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	const workers, each = 4, 25
	var inline, also, buffered record
	mustObserve(t, v, inline.told)
	mustObserve(t, v, also.told)
	done := make(chan struct{})
	mustObserve(t, v, func(old, now int) {
		buffered.told(old, now)
		if len(buffered.get()) == workers*each {
			close(done)
		}
	}, hark.Buffer(hark.Unbounded))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				mustSet(ctx, t, v, 1+w*each+i)
			}
		})
	}
	wg.Wait()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("the buffered observer was told of %d changes, want %d", len(buffered.get()), workers*each)
	}
	got := inline.get()
	if len(got) != workers*each {
		t.Errorf("told of %d changes, want %d", len(got), workers*each)
	}
	last, seen := 0, map[int]bool{}
	for i, c := range got {
		if c[0] != last {
			t.Fatalf("change %d is %v, the one before ended at %d", i, c, last)
		}
		last = c[1]
		if seen[last] {
			t.Errorf("told of %d twice", last)
		}
		seen[last] = true
	}
	if last != v.Get() {
		t.Errorf("the last change is to %d, the value %d", last, v.Get())
	}
	if !slices.Equal(got, also.get()) || !slices.Equal(got, buffered.get()) {
		t.Error("observers were told of different changes, or in another order")
	}
}

func testValueInline(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	var r record
	stop := mustObserve(t, v, r.told)
	for i := range 10 {
		mustSet(ctx, t, v, i+1)
		if got := r.get(); len(got) != i+1 || got[i] != [2]int{i, i + 1} {
			t.Fatalf("when Set(%d) returned the observer had been told %v", i+1, got)
		}
	}
	stop()
	mustSet(ctx, t, v, 99)
	if got := r.get(); len(got) != 10 {
		t.Errorf("told %v after stop", got[10:])
	}
	stop() // again
}

func testValueNested(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	var first, late, last record
	mustObserve(t, v, first.told)
	var stop func()
	stop = mustObserve(t, v, func(_, now int) {
		stop()
		mustObserve(t, v, late.told)
		mustSet(ctx, t, v, now+1)
		if got := v.Get(); got != now+1 {
			t.Errorf("Get after Set(%d) in an observer = %d", now+1, got)
		}
	})
	mustObserve(t, v, last.told)
	mustSet(ctx, t, v, 1)
	mustSet(ctx, t, v, 3)
	all := [][2]int{{0, 1}, {1, 2}, {2, 3}}
	if got := first.get(); !slices.Equal(got, all) {
		t.Errorf("the first observer was told %v, want %v", got, all)
	}
	if got := last.get(); !slices.Equal(got, all) {
		t.Errorf("the last observer was told %v, want %v", got, all)
	}
	if got := late.get(); !slices.Equal(got, all[1:]) {
		t.Errorf("the observer added in the first change was told %v, want %v", got, all[1:])
	}
}

func testValueTurn(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	inside, gate := make(chan struct{}), make(chan struct{})
	var r record
	mustObserve(t, v, func(_, now int) {
		if now == 1 {
			close(inside)
			<-gate
		}
	})
	mustObserve(t, v, r.told)
	done := make(chan error, 1)
	go func() { done <- v.Set(ctx, 1) }()
	select {
	case <-inside:
	case <-ctx.Done():
		t.Fatal("the observer was not told")
	}
	if got := v.Get(); got != 1 {
		t.Errorf("Get while observers are told = %d, want 1", got)
	}
	short, cancel := context.WithCancelCause(ctx)
	reason := errors.New("reason")
	refused := make(chan error, 1)
	go func() { refused <- v.Set(short, 2) }()
	cancel(reason)
	if err := <-refused; !errors.Is(err, reason) {
		t.Errorf("Set whose context ended = %v, want its cause", err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	mustSet(ctx, t, v, 3)
	if got, want := r.get(), [][2]int{{0, 1}, {1, 3}}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func testValuePanic(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	var before, after record
	mustObserve(t, v, before.told)
	mustObserve(t, v, func(int, int) { panic("observer") })
	mustObserve(t, v, after.told)
	mustSet(ctx, t, v, 1)
	mustSet(ctx, t, v, 2)
	want := [][2]int{{0, 1}, {1, 2}}
	if got := before.get(); !slices.Equal(got, want) {
		t.Errorf("the observer before was told %v, want %v", got, want)
	}
	if got := after.get(); !slices.Equal(got, want) {
		t.Errorf("the observer behind was told %v, want %v", got, want)
	}
	if got := v.Get(); got != 2 {
		t.Errorf("the value is %d, want 2", got)
	}
	if got := v.Stats().Failed; got != 2 {
		t.Errorf("%d failures are counted, want 2", got)
	}
}

func testValueBuffered(t *testing.T, open Opener) {
	tests := []struct {
		title   string
		opts    []hark.ObserveOption
		want    [][2]int // while the observer is stuck in the first of ten
		dropped uint64
	}{
		{"latest", []hark.ObserveOption{hark.Overflow(hark.Latest)}, [][2]int{{0, 1}, {1, 10}}, 8},
		{"the default keeps the latest", []hark.ObserveOption{hark.Buffer(2)}, [][2]int{{0, 1}, {1, 9}, {9, 10}}, 7},
		{"the default, one", []hark.ObserveOption{hark.Buffer(1)}, [][2]int{{0, 1}, {1, 10}}, 8},
		{
			"drop oldest",
			[]hark.ObserveOption{hark.Buffer(2), hark.Overflow(hark.DropOldest)},
			[][2]int{{0, 1}, {1, 9}, {9, 10}},
			7,
		},
		{
			"drop newest",
			[]hark.ObserveOption{hark.Buffer(2), hark.Overflow(hark.DropNewest)},
			[][2]int{{0, 1}, {1, 2}, {2, 3}},
			7,
		},
	}
	for _, tt := range tests {
		t.Run(tt.title, func(t *testing.T) {
			ctx, bus := start(t, open)
			v := openValue(t, bus, "config", 0)
			inside, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var r record
			mustObserve(t, v, func(old, now int) {
				r.told(old, now)
				if now == 1 {
					close(inside)
					<-gate
				}
				if len(r.get()) == len(tt.want) {
					close(done)
				}
			}, tt.opts...)
			mustSet(ctx, t, v, 1)
			select {
			case <-inside:
			case <-ctx.Done():
				t.Fatal("the observer was not told")
			}
			for n := 2; n <= 10; n++ {
				mustSet(ctx, t, v, n)
			}
			close(gate)
			select {
			case <-done:
			case <-ctx.Done():
			}
			if got := r.get(); !slices.Equal(got, tt.want) {
				t.Errorf("told %v, want %v", got, tt.want)
			}
			if got := v.Stats().Dropped; got != tt.dropped {
				t.Errorf("%d drops are counted, want %d", got, tt.dropped)
			}
		})
	}
	t.Run("fail", func(t *testing.T) { testValueBufferFails(t, open) })
	t.Run("block", func(t *testing.T) { testValueBufferBlocks(t, open) })
}

// fillObserver returns a value whose observer has a buffer for one change. The
// observer is stuck in the change to 1 until gate is closed, and the change to 2 is in
// its buffer.
func fillObserver(ctx context.Context, t *testing.T, bus *hark.Bus, policy hark.Policy) (v *hark.Value[int], gate chan struct{}) {
	t.Helper()
	v = openValue(t, bus, "config", 0)
	inside, gate := make(chan struct{}, 10), make(chan struct{})
	mustObserve(t, v, func(int, int) { inside <- struct{}{}; <-gate }, hark.Buffer(1), hark.Overflow(policy))
	mustSet(ctx, t, v, 1)
	select {
	case <-inside:
	case <-ctx.Done():
		t.Fatal("the observer was not told")
	}
	mustSet(ctx, t, v, 2)
	return v, gate
}

func testValueBufferFails(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v, gate := fillObserver(ctx, t, bus, hark.Fail)
	defer close(gate)
	if err := v.Set(ctx, 3); !errors.Is(err, hark.ErrFull) {
		t.Errorf("Set with a full buffer = %v, want ErrFull", err)
	}
	if got := v.Get(); got != 2 {
		t.Errorf("the value is %d, want 2", got)
	}
}

func testValueBufferBlocks(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v, gate := fillObserver(ctx, t, bus, hark.Block)
	short, cancel := context.WithCancel(ctx)
	refused := make(chan error, 1)
	go func() { refused <- v.Set(short, 3) }()
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("Set whose context ended = %v, want its cause", err)
	}
	waits := make(chan error, 1)
	go func() { waits <- v.Set(ctx, 4) }()
	close(gate)
	if err := <-waits; err != nil {
		t.Error(err)
	}
	if got := v.Get(); got != 4 {
		t.Errorf("the value is %d, want 4", got)
	}
}

func testValueWatch(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 1)
	loop, cancel := context.WithCancel(ctx)
	states := make(chan int)
	go func() {
		defer close(states)
		for n := range v.Watch(loop) {
			states <- n
		}
	}()
	if got := <-states; got != 1 {
		t.Errorf("the first state is %d, want 1", got)
	}
	const last = 100
	for i := 1; i < last; i++ {
		mustSet(ctx, t, v, i+1)
	}
	for seen := 1; seen < last; {
		n, ok := <-states
		if !ok || n <= seen {
			t.Fatalf("got %d, %v after %d", n, ok, seen)
		}
		seen = n
	}
	cancel()
	for n := range states {
		t.Errorf("got %d after the last", n)
	}
}

func testValueWaitUntil(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 1)
	if n, err := v.WaitUntil(ctx, func(n int) bool { return n == 1 }); n != 1 || err != nil {
		t.Errorf("WaitUntil of the present = %d, %v", n, err)
	}
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 3)
	for range cap(results) {
		go func() {
			n, err := v.WaitUntil(ctx, func(n int) bool { return n >= 10 })
			results <- result{n, err}
		}()
	}
	for i := 1; i <= 10; i++ {
		mustSet(ctx, t, v, i)
	}
	for range cap(results) {
		if r := <-results; r.n != 10 || r.err != nil {
			t.Errorf("WaitUntil = %d, %v; want 10", r.n, r.err)
		}
	}
	short, cancel := context.WithCancelCause(ctx)
	reason := errors.New("reason")
	refused := make(chan error, 1)
	go func() {
		_, err := v.WaitUntil(short, func(int) bool { return false })
		refused <- err
	}()
	cancel(reason)
	if err := <-refused; !errors.Is(err, reason) {
		t.Errorf("WaitUntil whose context ended = %v, want its cause", err)
	}
}

func testValueClose(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	v := openValue(t, bus, "config", 0)
	inside, gate := make(chan struct{}), make(chan struct{})
	var r record
	mustObserve(t, v, func(old, now int) {
		r.told(old, now)
		if now == 1 {
			close(inside)
			<-gate
			mustSet(ctx, t, v, 100) // while the bus drains
		}
	}, hark.Buffer(10))
	waited := make(chan error, 1)
	go func() {
		_, err := v.WaitUntil(ctx, func(int) bool { return false })
		waited <- err
	}()
	watched := make(chan int, 1)
	go func() {
		last := 0
		for n := range v.Watch(ctx) {
			last = n
		}
		watched <- last
	}()
	mustSet(ctx, t, v, 1)
	mustSet(ctx, t, v, 2)
	select {
	case <-inside:
	case <-ctx.Done():
		t.Fatal("the observer was not told")
	}
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(ctx) }()
	// Once the close has begun, new values are refused.
	for ctx.Err() == nil {
		if _, err := hark.NewValue(bus, "another", 0); errors.Is(err, hark.ErrClosed) {
			break
		}
	}
	close(gate)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got, want := r.get(), [][2]int{{0, 1}, {1, 2}, {2, 100}}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if err := <-waited; !errors.Is(err, hark.ErrClosed) {
		t.Errorf("WaitUntil = %v, want ErrClosed", err)
	}
	if got := <-watched; got != 100 {
		t.Errorf("the last state watched is %d, want 100", got)
	}
	if err := v.Set(ctx, 1); !errors.Is(err, hark.ErrClosed) {
		t.Errorf("Set after the close = %v, want ErrClosed", err)
	}
	if got := v.Get(); got != 100 {
		t.Errorf("Get after the close = %d, want 100", got)
	}
}
