package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// receiver counts what a subscription receives.
type receiver struct {
	mu       sync.Mutex
	received int
	cancel   context.CancelFunc // of Receive
	asked    chan int
}

func (r *receiver) run(ctx context.Context, t *testing.T, sub driver.Subscription) {
	for {
		turn, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		r.cancel = cancel
		if r.asked != nil {
			r.asked <- r.received
			r.asked = nil
		}
		r.mu.Unlock()
		rs, err := sub.Receive(turn, 8)
		cancel()
		switch {
		case errors.Is(err, context.Canceled) && ctx.Err() == nil:
			continue
		case errors.Is(err, driver.ErrEnded):
			return
		case err == nil:
			err = sub.Ack(ctx, rs)
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.received += len(rs)
	}
}

// count returns how many messages have arrived through calls of Receive that have
// returned.
func (r *receiver) count() int {
	asked := make(chan int, 1)
	r.mu.Lock()
	r.asked = asked
	r.cancel()
	r.mu.Unlock()
	return <-asked
}

// TestCaughtUp checks that a message that is stored but not received is not caught
// up with, wherever it is at the time, and that a received one is.
func TestCaughtUp(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>"})
	stored := func(name string) driver.Topic {
		return openTopic(t, c, name, &driver.StoredConfig{Durability: driver.DurableMemory, Dedup: time.Minute})
	}
	alone := driver.SubscribeConfig{From: driver.FromStart, Window: 8}
	group := driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 8}
	keyed := driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 8}
	for _, tt := range []struct {
		name  string
		topic driver.Topic
		cfg   driver.SubscribeConfig
	}{
		{"alone", stored("alone"), alone},
		{"group", stored("group"), group},
		{"keyed", stored("keyed"), keyed},
		{"alone in a store", asItIs(t, c, "s.a"), alone},
		{"group in a store", asItIs(t, c, "s.b"), group},
		{"keyed in a store", asItIs(t, c, "s.c"), keyed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			sub := subscribe(t, tt.topic, tt.cfg)
			r := &receiver{cancel: func() {}}
			receiving := make(chan struct{})
			go func() {
				defer close(receiving)
				r.run(ctx, t, sub)
			}()
			for i := range 60 {
				ms := bare(fmt.Sprint(i))
				if i%3 > 0 {
					ms = withKey(fmt.Sprint("k", i%7), fmt.Sprint(i))
				}
				put(t, tt.topic, ms...)
				stats, err := tt.topic.Stats(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for done := false; !done; {
					if done, err = sub.CaughtUp(ctx, stats.Last); err != nil {
						t.Fatal(err)
					}
				}
				if n, want := r.count(), i+1; n != want {
					t.Fatalf("caught up with %d messages when %d were received", want, n)
				}
			}
			if err := sub.Close(ctx); err != nil {
				t.Error(err)
			}
			<-receiving
		})
	}
}

// A consumer that has not noticed a stored message has not delivered it.
func TestConsumerThatTrails(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "a", &driver.StoredConfig{Durability: driver.DurableMemory})
	put(t, topic, bare("1", "2")...)
	put(t, topic, withKey("k", "3")...)
	st := topic.(*stored)
	keyed := st.partition("a", partitionOf("k"))
	for _, tt := range []struct {
		filter    string
		given, to uint64
		want      bool
	}{
		{"", 0, 3, false},
		{"", 2, 3, false},
		{"", 3, 3, true},
		{"", 2, 2, true},
		{"a", 1, 3, false},
		{"a", 2, 3, true},
		{"a", 1, 1, true},
		{keyed, 0, 3, false},
		{keyed, 0, 2, true},
		{keyed, 3, 3, true},
	} {
		info := &jetstream.ConsumerInfo{
			Config:    jetstream.ConsumerConfig{FilterSubject: tt.filter},
			Delivered: jetstream.SequenceInfo{Stream: tt.given},
		}
		if got, err := st.hasGiven(testContext(t), info, tt.to); got != tt.want || err != nil {
			t.Errorf("filter %q, given %d, up to %d: got %v, %v", tt.filter, tt.given, tt.to, got, err)
		}
	}
}
