package natsdriver

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver"
)

// BenchmarkPublish measures publishing to stored topics over TCP, with callers that
// wait for each message.
func BenchmarkPublish(b *testing.B) {
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableRelaxed, driver.DurableMemory} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", durabilities[d].name, callers), func(b *testing.B) {
				c := benchConn(b, d == driver.DurableStrict)
				topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{Durability: d}})
				if err != nil {
					b.Fatal(err)
				}
				ms := []*driver.Message{{Data: make([]byte, 128), Bare: true}}
				parallel(b, callers, func() error { return topic.Publish(b.Context(), ms) })
			})
		}
	}
}

// parallel runs f b.N times, from several callers at once.
func parallel(b *testing.B, callers int, f func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func benchConn(b *testing.B, sync bool) *Conn {
	b.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, StoreDir: b.TempDir(), JetStream: true, SyncAlways: sync})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		b.Fatal("the server does not start")
	}
	c, err := Open(b.Context(), srv.ClientURL(), SyncAlways())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			b.Error(err)
		}
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return c
}

// BenchmarkGroup measures four members of a group that receive stored messages and
// acknowledge them, in any order and in that of 1,000 keys.
func BenchmarkGroup(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("keyed=%v", keyed), func(b *testing.B) {
			c := benchConn(b, false)
			topic, err := c.OpenTopic(b.Context(), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{Durability: driver.DurableRelaxed}})
			if err != nil {
				b.Fatal(err)
			}
			ms := make([]*driver.Message, 0, 1000)
			for n := range b.N {
				ms = append(ms, &driver.Message{Data: make([]byte, 128), Key: fmt.Sprint(n % 1000), HasKey: true, Bare: true})
				if len(ms) == cap(ms) || n == b.N-1 {
					if err := topic.Publish(b.Context(), ms); err != nil {
						b.Fatal(err)
					}
					ms = ms[:0]
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range 4 {
				m, err := topic.Subscribe(b.Context(), driver.SubscribeConfig{Group: "g", Keyed: keyed, From: driver.FromStart, Window: 1024})
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					for {
						rs, err := m.Receive(ctx, 256)
						if err != nil {
							return
						}
						if err := m.Ack(b.Context(), rs); err != nil {
							b.Error(err)
						}
						if left.Add(-int64(len(rs))) <= 0 {
							cancel()
						}
					}
				})
			}
			wg.Wait()
			cancel()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkRequest measures a request and its answer, one at a time.
func BenchmarkRequest(b *testing.B) {
	c := benchConn(b, false)
	r, err := c.Respond(b.Context(), "t", 64)
	if err != nil {
		b.Fatal(err)
	}
	answering := make(chan struct{})
	go func() {
		defer close(answering)
		for {
			calls, err := r.Receive(b.Context(), 64)
			if err != nil {
				return
			}
			for _, call := range calls {
				if err := call.Answer(b.Context(), &driver.Message{Data: call.Data}); err != nil {
					b.Error(err)
				}
			}
		}
	}()
	m := &driver.Message{Data: make([]byte, 128)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Request(b.Context(), "t", m); err != nil {
			b.Fatal(err)
		}
	}
	if err := r.Close(b.Context()); err != nil {
		b.Error(err)
	}
	<-answering
}
