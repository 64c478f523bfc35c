package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// recorder records what handlers receive.
type recorder[T any] struct {
	mu      sync.Mutex // guards the fields below
	got     []T
	changed chan struct{} // closed when the next value is recorded
}

func newRecorder[T any]() *recorder[T] { return &recorder[T]{changed: make(chan struct{})} }

func (w *recorder[T]) note(v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, v)
	close(w.changed)
	w.changed = make(chan struct{})
}

// handle is a handler that records values.
func (w *recorder[T]) handle(_ context.Context, m *hark.Message[T]) error {
	w.note(m.Value)
	return nil
}

func (w *recorder[T]) all() []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

// wait waits until at least n values have been recorded, and returns all of
// them.
func (w *recorder[T]) wait(ctx context.Context, t *testing.T, n int) []T {
	t.Helper()
	for {
		w.mu.Lock()
		got, changed := slices.Clone(w.got), w.changed
		w.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("got %d values %v, want %d: %v", len(got), got, n, context.Cause(ctx))
		}
	}
}

// gate blocks handlers until the test lets them go.
type gate struct {
	entered chan struct{} // receives one value for each handler that arrives
	open    chan struct{} // a value lets one handler go; closing it lets all go
	once    sync.Once
}

// newGate returns a closed gate that is opened when the test ends.
func newGate(t *testing.T) *gate {
	g := &gate{entered: make(chan struct{}, 10000), open: make(chan struct{})}
	t.Cleanup(g.release)
	return g
}

// pass waits until the gate lets the handler go or ctx ends.
func (g *gate) pass(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reached waits until n handlers have arrived.
func (g *gate) reached(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for i := range n {
		select {
		case <-g.entered:
		case <-ctx.Done():
			t.Fatalf("%d handlers began, want %d", i, n)
		}
	}
}

// release lets all handlers go from here on.
func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// until polls until ok returns true, for facts that nothing announces.
func until(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never came true: %s", what)
		}
	}
}

// must returns v or fails the test. If the engine refuses what the test needs,
// it skips the test.
func must[V any](v V, err error) func(t *testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		if errors.Is(err, hark.ErrUnsupported) {
			refused(t, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newTopic[T any](t *testing.T, bus *hark.Bus, name string, opts ...hark.TopicOption) *hark.Topic[T] {
	t.Helper()
	return must(hark.NewTopic[T](bus, name, opts...))(t)
}

func subscribe[T any](t *testing.T, topic *hark.Topic[T], h hark.Handler[T], opts ...hark.SubscribeOption) *hark.Subscription {
	t.Helper()
	return must(topic.Subscribe(h, opts...))(t)
}

// publish publishes the values one by one.
func publish[T any](ctx context.Context, t *testing.T, topic *hark.Topic[T], vs ...T) {
	t.Helper()
	for _, v := range vs {
		if err := topic.Publish(ctx, v); err != nil {
			t.Fatalf("publish %v: %v", v, err)
		}
	}
}

// count returns the numbers from from up to, but not including, to.
func count(from, to int) []int {
	var ns []int
	for n := from; n < to; n++ {
		ns = append(ns, n)
	}
	return ns
}

func wantEqual[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// needs skips the test if the engine has not declared all these capabilities.
func needs(t *testing.T, bus *hark.Bus, all ...driver.Capability) {
	t.Helper()
	info := bus.Engine()
	for _, c := range all {
		if !info.Has(c) {
			refused(t, fmt.Errorf("engine %s: %s", info.Engine, c))
		}
	}
}

// inProcess reports whether values travel without being encoded.
func inProcess(bus *hark.Bus) bool { return bus.Engine().Engine == "mem" }

// underFaults reports whether package faults is between the bus and its engine.
// The messages of groups may then come late, and more than once.
func underFaults(bus *hark.Bus) bool {
	return strings.HasSuffix(bus.Engine().Engine, " under faults")
}

// waitDistinct waits until a group has received at least n different values,
// and returns them: as they came, or under faults sorted and without repeats.
func waitDistinct(ctx context.Context, t *testing.T, bus *hark.Bus, w *recorder[int], n int) []int {
	t.Helper()
	got := w.wait(ctx, t, n)
	if !underFaults(bus) {
		return got
	}
	for {
		seen := len(got)
		slices.Sort(got)
		if got = slices.Compact(got); len(got) >= n {
			return got
		}
		got = w.wait(ctx, t, seen+1)
	}
}

// groupTopic returns a topic whose groups lose nothing when members leave. It
// is a stored topic, unless the engine promises the same for ephemeral ones.
func groupTopic[T any](t *testing.T, bus *hark.Bus, name string, opts ...hark.TopicOption) *hark.Topic[T] {
	t.Helper()
	if info := bus.Engine(); !info.Has(driver.HandBack) {
		opts = append(opts, hark.Stored(hark.Retention{}))
	}
	return newTopic[T](t, bus, name, opts...)
}

// quick is a backoff that keeps tests short.
func quick(attempts int) []hark.SubscribeOption {
	return []hark.SubscribeOption{
		hark.MaxAttempts(attempts),
		hark.Backoff(hark.BackoffPolicy{Min: time.Millisecond, Max: time.Millisecond}),
	}
}
