package hark_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

func newValue[T any](t testing.TB, b *hark.Bus, initial T) *hark.Value[T] {
	t.Helper()
	v, err := hark.NewValue(b, "v", initial)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func set[T any](t testing.TB, v *hark.Value[T], value T) {
	t.Helper()
	if err := v.Set(t.Context(), value); err != nil {
		t.Fatal(err)
	}
}

func observe[T any](t testing.TB, v *hark.Value[T], f func(old, new T), opts ...hark.ObserveOption) (stop func()) {
	t.Helper()
	stop, err := v.Observe(f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

func closeBus(t testing.TB, b *hark.Bus) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestNewValue(t *testing.T) {
	bus := hark.New()
	defer closeBus(t, bus)
	tests := []struct {
		title string
		name  string
		bus   *hark.Bus
		want  error
	}{
		{"on a bus", "config.app", bus, nil},
		{"again", "config.app", bus, nil},
		{"private", "config.app", nil, nil},
		{"private without a name", "", nil, nil},
		{"without a name", "", bus, hark.ErrInvalidName},
		{"wildcard", "config.*", bus, hark.ErrInvalidName},
		{"private, wildcard", "config.*", nil, hark.ErrInvalidName},
	}
	for _, tt := range tests {
		v, err := hark.NewValue(tt.bus, tt.name, 1)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.title, err, tt.want)
		}
		if (v == nil) != (err != nil) {
			t.Errorf("%s: value %v with error %v", tt.title, v, err)
		}
		if v != nil && v.Name() != tt.name {
			t.Errorf("%s: name %q, want %q", tt.title, v.Name(), tt.name)
		}
	}
	if _, err := hark.NewValue(bus, "config.app", "text"); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("another type: error %v, want ErrTypeMismatch", err)
	}
	if _, err := hark.NewTopic[string](bus, "config.app"); err != nil {
		t.Errorf("a topic of the same name: %v", err)
	}
}

func TestValueVersions(t *testing.T) {
	v := newValue(t, nil, "a")
	check := func(want string, n uint64) {
		t.Helper()
		if got, gotN := v.Load(); got != want || gotN != n || v.Get() != want || v.Version() != n {
			t.Errorf("Load %q %d, Get %q, Version %d; want %q %d", got, gotN, v.Get(), v.Version(), want, n)
		}
	}
	check("a", 1)
	set(t, v, "b")
	check("b", 2)
	set(t, v, "b") // setting the same value again is a change
	check("b", 3)
	for _, n := range []uint64{0, 2, 4, math.MaxUint64} {
		if ok, err := v.CompareAndSet(t.Context(), n, "x"); ok || err != nil {
			t.Errorf("CompareAndSet(%d) = %v, %v; want false", n, ok, err)
		}
	}
	check("b", 3)
	if ok, err := v.CompareAndSet(t.Context(), 3, "c"); !ok || err != nil {
		t.Errorf("CompareAndSet(3) = %v, %v; want true", ok, err)
	}
	check("c", 4)
	got, err := v.Update(t.Context(), func(s string) string { return s + "d" })
	if got != "cd" || err != nil {
		t.Errorf("Update = %q, %v", got, err)
	}
	check("cd", 5)
	for range 10 { // more calls than read under the lock
		check("cd", 5)
	}
	set(t, v, "e")
	check("e", 6)
}

func TestValueRefusals(t *testing.T) {
	ended, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("reason")
	cancel(reason)
	ctx := t.Context()
	v := newValue(t, nil, 1)
	tests := []struct {
		title string
		err   error
		want  error
		text  string
	}{
		{"Set, context ended", v.Set(ended, 2), reason, "hark: set v: "},
		{"CompareAndSet, context ended", second(v.CompareAndSet(ended, 1, 2)), reason, "hark: set v: "},
		{"Update, context ended", second(v.Update(ended, func(n int) int { return 2 })), reason, "hark: update v: "},
		{"Update, nil", second(v.Update(ctx, nil)), hark.ErrInvalidOption, "hark: update v: "},
		{"WaitUntil, context ended", second(v.WaitUntil(ended, func(int) bool { return false })), reason, "hark: wait v: "},
		{"WaitUntil, nil", second(v.WaitUntil(ctx, nil)), hark.ErrInvalidOption, "hark: wait v: "},
		{"Observe, nil", second(v.Observe(nil)), hark.ErrInvalidOption, "hark: observe v: "},
		{"Observe, Buffer(0)", second(v.Observe(func(int, int) {}, hark.Buffer(0))), hark.ErrInvalidOption, "hark: observe v: "},
		{"Observe, no such policy", second(v.Observe(func(int, int) {}, hark.Overflow(99))), hark.ErrInvalidOption, "hark: observe v: "},
		{
			"Observe, Latest of many", second(v.Observe(func(int, int) {}, hark.Overflow(hark.Latest), hark.Buffer(2))),
			hark.ErrInvalidOption, "hark: observe v: ",
		},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) || !strings.HasPrefix(tt.err.Error(), tt.text) {
			t.Errorf("%s: error %v, want %v", tt.title, tt.err, tt.want)
		}
	}
	if got, n := v.Load(); got != 1 || n != 1 {
		t.Errorf("after refusals: %d, version %d; want 1, 1", got, n)
	}
	if s := v.Stats(); s.Observers != 0 || s.Watchers != 0 {
		t.Errorf("after refusals: %+v", s)
	}
}

func second[A any](_ A, err error) error { return err }

func TestUpdateLosesNothing(t *testing.T) {
	leak.Check(t)
	const workers, each = 8, 500
	for _, observed := range []bool{false, true} {
		bus := hark.New()
		v := newValue(t, bus, 0)
		told, last := 0, 0
		if observed {
			observe(t, v, func(old, now int) {
				if old != last || now != old+1 {
					t.Errorf("told %d -> %d after %d", old, now, last)
				}
				told, last = told+1, now
			})
		}
		var calls atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					before := v.Version()
					now, err := v.Update(t.Context(), func(n int) int { calls.Add(1); return n + 1 })
					if err != nil {
						t.Error(err)
					}
					if got := v.Get(); got < now || v.Version() <= before {
						t.Errorf("Get %d after Update to %d", got, now)
					}
				}
			})
		}
		wg.Wait()
		if got := v.Get(); got != workers*each {
			t.Errorf("observed %v: %d after %d updates", observed, got, workers*each)
		}
		if n := calls.Load(); n < workers*each {
			t.Errorf("the function was called %d times for %d updates", n, workers*each)
		}
		if observed && told != workers*each {
			t.Errorf("told of %d changes, want %d", told, workers*each)
		}
		closeBus(t, bus)
	}
}

func TestUpdatePanic(t *testing.T) {
	v := newValue(t, nil, 1)
	func() {
		defer func() {
			if got := recover(); got != "stop" {
				t.Errorf("recovered %v, want stop", got)
			}
		}()
		_, _ = v.Update(t.Context(), func(int) int { panic("stop") })
	}()
	set(t, v, 2)
	if got, n := v.Load(); got != 2 || n != 2 {
		t.Errorf("%d, version %d; want 2, 2", got, n)
	}
}

// TestValueClose follows a bus through the stages of closing.
func TestValueClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		v := newValue(t, bus, 0)
		var got []int
		observe(t, v, func(_, now int) {
			time.Sleep(time.Second)
			got = append(got, now)
			if now == 2 { // while the bus drains
				if err := v.Set(context.Background(), 100); err != nil {
					t.Errorf("Set by an observer during the drain: %v", err)
				}
			}
		}, hark.Buffer(10))
		waited := make(chan error, 1)
		go func() { waited <- second(v.WaitUntil(context.Background(), func(int) bool { return false })) }()
		var watched []int
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			for n := range v.Watch(context.Background()) {
				watched = append(watched, n)
			}
		}()
		for i := range 3 {
			synctest.Wait()
			set(t, v, i)
		}
		closed := make(chan error)
		go func() { closed <- bus.Close(context.Background()) }()
		synctest.Wait()
		if err := v.Set(context.Background(), -1); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("Set from outside during the drain: %v, want ErrClosed", err)
		}
		if _, err := v.Observe(func(int, int) {}); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("Observe during the drain: %v, want ErrClosed", err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if want := []int{0, 1, 2, 100}; !slices.Equal(got, want) {
			t.Errorf("observed %v, want %v", got, want)
		}
		if err := <-waited; !errors.Is(err, hark.ErrClosed) {
			t.Errorf("WaitUntil: %v, want ErrClosed", err)
		}
		<-watching
		if len(watched) == 0 || watched[len(watched)-1] != 100 {
			t.Errorf("watched %v, want 100 last", watched)
		}
		for title, err := range map[string]error{
			"Set":           v.Set(context.Background(), 1),
			"CompareAndSet": second(v.CompareAndSet(context.Background(), v.Version(), 1)),
			"Update":        second(v.Update(context.Background(), func(n int) int { return n })),
			"Observe":       second(v.Observe(func(int, int) {})),
			"NewValue":      second(hark.NewValue(bus, "v", 1)),
		} {
			if !errors.Is(err, hark.ErrClosed) {
				t.Errorf("%s after the close: %v, want ErrClosed", title, err)
			}
		}
		if got := v.Get(); got != 100 {
			t.Errorf("Get after the close = %d, want 100", got)
		}
	})
}

// TestValueCloseRunsOut uses observers that do not return in time.
func TestValueCloseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var drops dropHook
		bus := hark.New(hark.WithHooks(&drops), hark.Grace(time.Second))
		v := newValue(t, bus, 0)
		gate := make(chan struct{})
		observe(t, v, func(int, int) { <-gate }, hark.Buffer(10))
		for i := range 4 {
			set(t, v, i)
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := bus.Close(ctx)
		var left *hark.CloseError
		if !errors.As(err, &left) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Close = %v, want a CloseError for the deadline", err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("Close took %v, want its deadline and the grace period", d)
		}
		want := hark.Left{Kind: hark.KindValue, Name: "v", Subscription: "v#1", Waiting: 3, InFlight: 1}
		if len(left.Left) != 1 || left.Left[0] != want {
			t.Errorf("left %+v, want %+v", left.Left, want)
		}
		if got := drops.total(hark.DropClosed); got != 3 {
			t.Errorf("%d drops by closing reported, want 3", got)
		}
		close(gate)
	})
}

func TestValueStatsAndTopology(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New()
		defer closeBus(t, bus)
		v := newValue(t, bus, 0)
		gate := make(chan struct{})
		observe(t, v, func(int, int) {})
		stop := observe(t, v, func(int, int) { <-gate }, hark.Overflow(hark.Latest))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range v.Watch(ctx) {
			}
		}()
		for i := range 5 {
			set(t, v, i)
			synctest.Wait()
		}
		want := hark.ValueStats{Name: "v", Version: 6, Observers: 2, Watchers: 1, Waiting: 1, Dropped: 3}
		if got := v.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		if s := bus.Stats(); len(s.Values) != 1 || s.Values[0] != want {
			t.Errorf("stats of the bus %+v, want %+v", s.Values, want)
		}
		nodes := bus.Topology().Nodes
		if len(nodes) != 1 || nodes[0].Kind != hark.KindValue || nodes[0].Name != "v" || nodes[0].Type != "int" {
			t.Fatalf("topology %+v", nodes)
		}
		roles := map[string]int{}
		for _, end := range nodes[0].Ends {
			roles[end.Role]++
			if !strings.Contains(end.At, "value_test.go:") {
				t.Errorf("end %+v is not placed in this file", end)
			}
		}
		if roles["declare"] != 1 || roles["observe"] != 2 {
			t.Errorf("roles %v, want one declare and two observe", roles)
		}
		stop()
		cancel()
		close(gate)
		synctest.Wait()
		want = hark.ValueStats{Name: "v", Version: 6, Observers: 1, Dropped: 4}
		if got := v.Stats(); got != want {
			t.Errorf("stats after stop %+v, want %+v", got, want)
		}
	})
}

// dropHook counts drops by reason.
type dropHook struct {
	mu     sync.Mutex
	counts map[hark.DropReason]int
}

func (h *dropHook) OnDrop(e hark.DropEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts = map[hark.DropReason]int{}
	}
	h.counts[e.Reason] += e.Count
}

func (h *dropHook) total(why hark.DropReason) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[why]
}
