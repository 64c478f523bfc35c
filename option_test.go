package hark_test

import (
	"context"
	"errors"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
)

// TestNilOptions gives nil to everything that has options, between others.
func TestNilOptions(t *testing.T) {
	ctx := t.Context()
	bus := hark.New(nil, hark.Grace(0), nil)
	topic, err := hark.NewTopic[int](bus, "a", nil, hark.Stored(hark.Retention{}))
	if err != nil {
		t.Fatal(err)
	}
	keys := make(chan string, 2)
	handle := func(_ context.Context, m *hark.Message[int]) error {
		keys <- m.Key()
		return nil
	}
	if _, err := topic.Subscribe(handle, nil, hark.Group("g"), nil); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(ctx, 1, nil, hark.Key("k")); err != nil {
		t.Fatal(err)
	}
	if err := topic.PublishAll(ctx, []int{2}, nil, hark.Key("k")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if key := <-keys; key != "k" {
			t.Errorf("got the key %q, want k", key)
		}
	}
	if _, err := hark.NewChan[int](bus, "c", 1, nil, hark.Memory); err != nil {
		t.Fatal(err)
	}
	v, err := hark.NewValue(bus, "v", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := v.Observe(func(old, new int) {}, nil, hark.Buffer(1))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	n, err := hark.NewNotifier(bus)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Register("n", func(context.Context, hark.Signal) {}, nil, hark.EachSignal()); err != nil {
		t.Fatal(err)
	}
	if _, err := filter.Compile("true", nil); err != nil {
		t.Error(err)
	}
	if err := bus.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := hark.NewTopic[int](hark.New(), "a", hark.KeyBy[int](nil)); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("KeyBy(nil): got %v, want ErrInvalidOption", err)
	}
}
