package natsdriver

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// BenchmarkNotify measures signals over TCP to other connections, next to a plain
// request that one of them answers.
func BenchmarkNotify(b *testing.B) {
	for _, others := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			c := benchConn(b, false)
			benchListen(b, c, nil)
			for range others {
				benchListen(b, benchOther(b, c), nil)
			}
			benchLatency(b, func() error {
				n, err := c.Notify(b.Context(), "counter.incremented")
				if err == nil && n != others {
					err = fmt.Errorf("got %d, want %d", n, others)
				}
				return err
			})
		})
	}
	b.Run("plain request", func(b *testing.B) {
		c := benchConn(b, false)
		other := benchOther(b, c).Client()
		if _, err := other.Subscribe("x", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
			b.Fatal(err)
		}
		if err := other.Flush(); err != nil {
			b.Fatal(err)
		}
		benchLatency(b, func() error {
			_, err := c.Client().Request("x", []byte("counter.incremented"), patience)
			return err
		})
	})
}

// BenchmarkLatch measures the time until a latch is stored and another connection
// has seen it.
func BenchmarkLatch(b *testing.B) {
	c := benchConn(b, false)
	benchListen(b, c, nil)
	news := make(chan bool, 1)
	benchListen(b, benchOther(b, c), func(s driver.Signal) { news <- s.Set })
	set := false
	benchLatency(b, func() error {
		set = !set
		if err := c.Latch(b.Context(), "x", set); err != nil {
			return err
		}
		if got := <-news; got != set {
			return fmt.Errorf("got %t, want %t", got, set)
		}
		return nil
	})
}

func benchOther(b *testing.B, c *Conn) *Conn {
	b.Helper()
	other, err := Open(b.Context(), c.Client().ConnectedUrl())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := other.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return other
}

func benchListen(b *testing.B, c *Conn, latched func(driver.Signal)) {
	b.Helper()
	err := c.Listen(b.Context(), func(s driver.Signal) int {
		if s.Latch && latched != nil {
			latched(s)
		}
		return 1
	})
	if err != nil {
		b.Fatal(err)
	}
}

// benchLatency reports percentiles of how long f takes.
func benchLatency(b *testing.B, f func() error) {
	b.Helper()
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		begun := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1e3, fmt.Sprintf("p%d-µs", p))
	}
}
