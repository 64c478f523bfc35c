package filedriver

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark/driver"
)

// BenchmarkPublish measures publishing by callers that wait for each message.
func BenchmarkPublish(b *testing.B) {
	for name, d := range map[string]driver.Durability{"strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				c, err := Open(b.Context(), b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					if err := c.Close(context.Background()); err != nil {
						b.Error(err)
					}
				})
				topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{Durability: d}})
				if err != nil {
					b.Fatal(err)
				}
				ms := []*driver.Message{{Data: make([]byte, 128), Bare: true}}
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := topic.Publish(b.Context(), ms); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}
