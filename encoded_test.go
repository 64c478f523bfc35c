package hark_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
	"github.com/harkbus/hark/filter"
)

// decodes counts how often a value of this type is decoded.
type decodes struct{ N int }

var decoded atomic.Int32

func (d *decodes) UnmarshalText(text []byte) error {
	decoded.Add(1)
	d.N = len(text)
	return nil
}

func (d decodes) MarshalText() ([]byte, error) { return make([]byte, d.N), nil }

// TestFiltersMatchBeforeDecoding checks that filters over an engine read the
// text of a message, and that a message that does not match is never decoded.
func TestFiltersMatchBeforeDecoding(t *testing.T) {
	type event struct {
		Kind string
		Body decodes
	}
	decoded.Store(0)
	bus := hark.Over(memdriver.New().Connect())
	topic, err := hark.NewTopic[event](bus, "events")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan event, 10)
	sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[event]) error {
		got <- m.Value
		return nil
	}, hark.Where(filter.MustCompile(`data.Kind == "b"`)))
	for _, kind := range []string{"a", "b", "a", "b", "a"} {
		mustPublish(t, topic, event{Kind: kind})
	}
	for range 2 {
		if e := <-got; e.Kind != "b" {
			t.Errorf("got %+v, want kind b", e)
		}
	}
	closeBus(t, bus)
	if s := sub.Stats(); s.Filtered != 3 || s.Delivered != 2 || s.FilterErrors != 0 {
		t.Errorf("got %+v, want 3 filtered and 2 delivered", s)
	}
	if n := decoded.Load(); n != 2 {
		t.Errorf("%d messages were decoded, want 2", n)
	}
}
