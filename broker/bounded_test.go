package broker

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestRetriesKeepNothingElse has few of many messages wait for another attempt. They do not
// keep in memory those that came with them.
func TestRetriesKeepNothingElse(t *testing.T) {
	b := start(t, config(t, ""))
	live := func() *hark.Topic[[]byte] {
		conn, err := natsdriver.Open(testContext(t), "nats://"+b.Addr().String(), natsdriver.MaxWaiting(16<<20, 16<<20))
		if err != nil {
			t.Fatal(err)
		}
		bus := hark.Over(conn)
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // what waits is to be dropped
			_ = bus.Close(ctx)
		})
		topic, err := hark.NewTopic[[]byte](bus, "live")
		if err != nil {
			t.Fatal(err)
		}
		return topic
	}
	const size, n, ahead = 4 << 10, 60_000, 1000
	room := make(chan struct{}, ahead)
	var got atomic.Int64
	if _, err := live().Subscribe(func(context.Context, *hark.Message[[]byte]) error {
		<-room
		if got.Add(1)%60 == 0 {
			return errors.New("not yet")
		}
		return nil
	}, hark.Backoff(hark.BackoffPolicy{Min: time.Hour, Max: time.Hour, Exact: true})); err != nil {
		t.Fatal(err)
	}
	out, ctx, before := live(), testContext(t), heap()
	for range n {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			t.Fatalf("%d messages were handled", got.Load())
		}
		if err := out.Publish(ctx, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	for ; got.Load() < n; awaitTick(t) {
		if ctx.Err() != nil {
			t.Fatalf("%d messages were handled", got.Load())
		}
	}
	if grown, all := int(heap())-int(before), n*size; grown > all/2 {
		t.Errorf("the heap grew by %d MiB, of %d MiB published", grown>>20, all>>20)
	}
}

// TestLargeBatches gathers messages that are larger together than may wait: a batch has to
// be filled.
func TestLargeBatches(t *testing.T) {
	b := start(t, config(t, ""))
	conn, err := natsdriver.Open(testContext(t), "nats://"+b.Addr().String(), natsdriver.MaxWaiting(8<<20, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	bus := hark.Over(conn)
	defer func() {
		if err := bus.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}()
	topic, err := hark.NewTopic[[]byte](bus, "live")
	if err != nil {
		t.Fatal(err)
	}
	const n = 10
	full := make(chan struct{}, 1)
	if _, err := topic.SubscribeBatch(func(_ context.Context, ms []*hark.Message[[]byte]) error {
		if len(ms) == n {
			full <- struct{}{}
		}
		return nil
	}, hark.Batch(n, time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := topic.Publish(testContext(t), make([]byte, 900<<10)); err != nil {
			t.Fatal(err)
		}
		// As fast as they are received, so that none is dropped.
		for ctx := testContext(t); i+1 < n && bus.Stats().Topics[0].Subscriptions[0].InFlight < uint64(i+1); awaitTick(t) {
			if ctx.Err() != nil {
				t.Fatalf("%+v", bus.Stats())
			}
		}
	}
	select {
	case <-full:
	case <-testContext(t).Done():
		t.Errorf("no full batch: %+v", bus.Stats())
	}
}

// heap returns how large the heap is.
func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
