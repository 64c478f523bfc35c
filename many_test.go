package hark_test

import (
	"context"
	"slices"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
	"github.com/harkbus/hark/internal/race"
)

// manySubscriptions returns a number of subscriptions so large that the test
// would take minutes if the cost of each grew with the number of others. Under
// the race detector fewer are enough, since its purpose is to find races.
func manySubscriptions() int {
	if race.Enabled {
		return 5_000
	}
	return 100_000
}

// subscribeMany subscribes n times and sends each subscription one message, so
// that the log has something to clean up behind them.
func subscribeMany(t *testing.T, n int) (*hark.Bus, []*hark.Subscription) {
	t.Helper()
	leak.Check(t)
	b := hark.New()
	topic, err := hark.NewTopic[*int](b, "many")
	if err != nil {
		t.Fatal(err)
	}
	subs := make([]*hark.Subscription, n)
	for i := range subs {
		if subs[i], err = topic.Subscribe(func(context.Context, *hark.Message[*int]) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := topic.Publish(t.Context(), new(int)); err != nil {
		t.Fatal(err)
	}
	return b, subs
}

func TestManySubscriptionsEndOneByOne(t *testing.T) {
	b, subs := subscribeMany(t, manySubscriptions())
	for _, s := range subs { // the oldest first, which is the worst case for a list
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(b.Stats().Topics[0].Subscriptions); got != 0 {
		t.Errorf("got %d subscriptions after all were closed, want 0", got)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestManySubscriptionsEndWithTheBus(t *testing.T) {
	b, subs := subscribeMany(t, manySubscriptions())
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*hark.Subscription{subs[0], subs[len(subs)-1]} {
		if got := s.Stats(); got.Delivered != 1 || got.Waiting != 0 {
			t.Errorf("got %d delivered and %d waiting after the bus closed, want 1 and 0", got.Delivered, got.Waiting)
		}
	}
}

func TestStatsKeepTheOrderOfSubscriptions(t *testing.T) {
	b, subs := subscribeMany(t, 10)
	var want []string
	for i, s := range subs {
		if i%3 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want = append(want, s.Name())
	}
	var got []string
	for _, s := range b.Stats().Topics[0].Subscriptions {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
