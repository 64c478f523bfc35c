package harktest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

// Recorder keeps the messages that it has received. It is safe for concurrent
// use.
type Recorder[T any] struct {
	t   testing.TB
	bus *hark.Bus

	mu       sync.Mutex // guards the fields below
	messages []*hark.Message[T]
	changed  chan struct{} // closed when the next message arrives
}

// Record returns a Recorder of what is published from now on to the topic of
// that name, or to all topics that match if it is a pattern such as orders.*. It
// is a subscription without a group and with an unbounded buffer, so it takes
// nothing from others and holds up nobody. It ends with the bus.
func Record[T any](t testing.TB, bus *hark.Bus, pattern string) *Recorder[T] {
	t.Helper()
	r := &Recorder[T]{t: t, bus: bus, changed: make(chan struct{})}
	_, err := hark.SubscribePattern(bus, pattern, r.note, hark.Buffer(hark.Unbounded))
	if err != nil {
		t.Fatalf("harktest: record %s: %v", pattern, err)
	}
	return r
}

func (r *Recorder[T]) note(_ context.Context, m *hark.Message[T]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, m.Clone())
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// Messages settles the bus and returns what has been published, oldest first for
// each topic.
func (r *Recorder[T]) Messages() []*hark.Message[T] {
	r.t.Helper()
	Settle(r.t, r.bus)
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

// Values is like Messages, but returns only the values.
func (r *Recorder[T]) Values() []T {
	r.t.Helper()
	return values(r.Messages())
}

// Wait returns the first n messages once there are that many. It does not wait
// for handlers, so it can be called while work goes on. The test ends if they do
// not arrive within two minutes.
func (r *Recorder[T]) Wait(n int) []T {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), closeTimeout)
	defer cancel()
	for {
		r.mu.Lock()
		got, changed := r.messages, r.changed
		r.mu.Unlock()
		if len(got) >= n {
			return values(got[:n])
		}
		select {
		case <-changed:
		case <-ctx.Done():
			r.t.Fatalf("harktest: %d messages came, want %d: %v", len(got), n, values(got))
		}
	}
}

func values[T any](messages []*hark.Message[T]) []T {
	all := make([]T, len(messages))
	for i, m := range messages {
		all[i] = m.Value
	}
	return all
}
