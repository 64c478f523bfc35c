package hark_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/harkbus/hark"
)

type words struct{ a, b, c uint64 }

// BenchmarkTopic is for profiling the paths of messages: from one publishing
// goroutine to one subscription, ten, a group of four, or one on each of 10,000
// topics. For comparisons with others see bench/.
func BenchmarkTopic(b *testing.B) {
	for _, way := range []struct {
		name          string
		topics, subs  int
		group, handle bool
	}{
		{"one", 1, 1, false, false},
		{"one handle", 1, 1, false, true},
		{"ten", 1, 10, false, false},
		{"group", 1, 4, true, false},
		{"topics", 10_000, 1, false, false},
	} {
		b.Run(way.name, func(b *testing.B) {
			bus := hark.New()
			var pending sync.WaitGroup
			var opts []hark.SubscribeOption
			deliveries := way.subs
			if way.group {
				opts, deliveries = append(opts, hark.Group("g")), 1
			}
			topics := make([]*hark.Topic[words], way.topics)
			for i := range topics {
				var err error
				if topics[i], err = hark.NewTopic[words](bus, "topic."+strconv.Itoa(i)); err != nil {
					b.Fatal(err)
				}
				for range way.subs {
					if _, err := topics[i].Subscribe(func(_ context.Context, m *hark.Message[words]) error {
						if m.Value.b == 0 {
							b.Error("not what was published")
						}
						pending.Done()
						return nil
					}, opts...); err != nil {
						b.Fatal(err)
					}
				}
			}
			publish := topics[0].Publish
			if way.handle {
				publish = topics[0].Publisher().Publish
			}
			ctx := b.Context()
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				if way.topics > 1 {
					publish = topics[n%uint64(way.topics)].Publish
				}
				n++
				pending.Add(deliveries)
				if err := publish(ctx, words{n, 1, 2}); err != nil {
					b.Fatal(err)
				}
			}
			pending.Wait()
			if err := bus.Close(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}
