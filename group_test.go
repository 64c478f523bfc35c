package hark_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

// TestGroupMembersComeAndGo lets members of a group join while others,
// including the last ones, leave. What is published while a member is there is
// handled exactly once.
func TestGroupMembersComeAndGo(t *testing.T) {
	type join func(b *hark.Bus, topic *hark.Topic[string], h hark.Handler[string]) (*hark.Subscription, error)
	for name, join := range map[string]join{
		"of a topic": func(_ *hark.Bus, topic *hark.Topic[string], h hark.Handler[string]) (*hark.Subscription, error) {
			return topic.Subscribe(h, hark.Group("g"))
		},
		"of a pattern": func(b *hark.Bus, _ *hark.Topic[string], h hark.Handler[string]) (*hark.Subscription, error) {
			return hark.SubscribePattern(b, "a.*", h, hark.Group("g"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bus := hark.New()
			defer closeBus(t, bus)
			topic, err := hark.NewTopic[string](bus, "a.b")
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			handled := map[string]int{}
			count := func(_ context.Context, m *hark.Message[string]) error {
				mu.Lock()
				defer mu.Unlock()
				handled[m.Value]++
				return nil
			}
			const members, rounds = 4, 100
			var all sync.WaitGroup
			for i := range members {
				all.Go(func() {
					for round := range rounds {
						s, err := join(bus, topic, count)
						if err != nil {
							t.Error(err)
							return
						}
						if err := topic.Publish(t.Context(), fmt.Sprint(i, " ", round)); err != nil {
							t.Error(err)
						}
						if err := s.Drain(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			for i := range members {
				for round := range rounds {
					if n := handled[fmt.Sprint(i, " ", round)]; n != 1 {
						t.Errorf("message %d of member %d was handled %d times", round, i, n)
					}
				}
			}
		})
	}
}
