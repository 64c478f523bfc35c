package filedriver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/store"
)

// openEmpty opens a directory without messages until the benchmark ends.
func openEmpty(b *testing.B) *Conn {
	b.Helper()
	c, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return c
}

// BenchmarkPublish measures publishing by callers that wait for each message.
func BenchmarkPublish(b *testing.B) {
	for name, d := range map[string]driver.Durability{"strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				c := openEmpty(b)
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

// BenchmarkOpen measures opening a directory that does not exist, and one with
// 100,000 messages of 128 bytes and 50 groups that have read some of them, both
// after a clean close and after a crash.
func BenchmarkOpen(b *testing.B) {
	open := func(dir string) *Conn {
		c, err := Open(b.Context(), dir)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	shut := func(c *Conn) {
		if err := c.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			c := open(filepath.Join(b.TempDir(), "data"))
			b.StopTimer()
			shut(c)
			b.StartTimer()
		}
	})
	full := b.TempDir()
	fill(b, open(full))
	for _, crashed := range []bool{false, true} {
		b.Run(fmt.Sprintf("messages=100000/groups=50/crashed=%v", crashed), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				if crashed { // a clean close leaves the list of files and their checksums
					if err := os.Remove(filepath.Join(full, store.ListName)); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				c := open(full)
				b.StopTimer()
				shut(c)
				b.StartTimer()
			}
		})
	}
}

// fill publishes 100,000 messages, has 50 groups read 2,000 each, and closes
// the connection.
func fill(b *testing.B, c *Conn) {
	const messages, groups, run = 100_000, 50, 1000
	topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{}})
	if err != nil {
		b.Fatal(err)
	}
	ms := make([]*driver.Message, run)
	for i := range ms {
		ms[i] = &driver.Message{Data: make([]byte, 128)}
	}
	for range messages / run {
		if err := topic.Publish(b.Context(), ms); err != nil {
			b.Fatal(err)
		}
	}
	for i := range groups {
		sub, err := topic.Subscribe(b.Context(), driver.SubscribeConfig{Group: fmt.Sprint("g", i), From: driver.FromStart, Window: run})
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < messages/groups; {
			rs, err := sub.Receive(b.Context(), run)
			if err == nil {
				err = sub.Ack(b.Context(), rs)
			}
			if err != nil {
				b.Fatal(err)
			}
			got += len(rs)
		}
		if err := sub.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkEphemeral measures publishing on a topic that is not stored, to subscriptions
// of the same process. Those that publish wait for those that receive at the end.
func BenchmarkEphemeral(b *testing.B) {
	for _, publishers := range []int{1, 8} {
		for _, subscriptions := range []int{1, 4} {
			b.Run(fmt.Sprintf("publishers=%d/subscriptions=%d", publishers, subscriptions), func(b *testing.B) {
				benchmarkEphemeral(b, publishers, subscriptions)
			})
		}
	}
}

func benchmarkEphemeral(b *testing.B, publishers, subscriptions int) {
	const window = 4096 // publishers are at most half of it ahead
	c := openEmpty(b)
	topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "t"})
	if err != nil {
		b.Fatal(err)
	}
	var receivers, senders sync.WaitGroup
	room := make([]chan struct{}, subscriptions)
	for i := range room {
		room[i] = make(chan struct{}, window/2)
		sub, err := topic.Subscribe(b.Context(), driver.SubscribeConfig{Window: window})
		if err != nil {
			b.Fatal(err)
		}
		receivers.Go(func() {
			for got := 0; got < b.N; {
				rs, err := sub.Receive(b.Context(), 256)
				if err != nil {
					b.Error(err)
					return
				}
				for range rs {
					<-room[i]
				}
				if got += len(rs); got < b.N {
					sub.(driver.Recycler).Recycle(rs)
				}
			}
		})
	}
	ms := []*driver.Message{{Data: make([]byte, 128), Bare: true}}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	for range publishers {
		senders.Go(func() {
			for left.Add(-1) >= 0 {
				for _, r := range room {
					r <- struct{}{}
				}
				if err := topic.Publish(b.Context(), ms); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	receivers.Wait()
}
