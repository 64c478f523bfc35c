package natsdriver

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// What has been published and not received is never missing in Lag, wherever it
// is just then.
func TestLagMissesNothing(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>"})
	stored := func(name string) driver.Topic {
		return openTopic(t, c, name, &driver.StoredConfig{Durability: driver.DurableMemory, Dedup: time.Minute})
	}
	for _, tt := range []struct {
		name  string
		topic driver.Topic
		cfg   driver.SubscribeConfig
	}{
		{"alone", stored("alone"), driver.SubscribeConfig{From: driver.FromStart, Window: 8}},
		{"group", stored("group"), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 8}},
		{"keyed", stored("keyed"), driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 8}},
		{"alone in a store", asItIs(t, c, "s.a"), driver.SubscribeConfig{From: driver.FromStart, Window: 8}},
		{"group in a store", asItIs(t, c, "s.b"), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 8}},
		{"keyed in a store", asItIs(t, c, "s.c"), driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 8}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub := subscribe(t, tt.topic, tt.cfg)
			for i := range 300 {
				ms := bare(fmt.Sprint(i))
				if i%3 > 0 {
					ms = withKey(fmt.Sprint("k", i%7), fmt.Sprint(i))
				}
				put(t, tt.topic, ms...)
				lag, err := sub.Lag(testContext(t))
				if err != nil || lag.Waiting == 0 {
					t.Fatalf("message %d is stored: %+v, %v", i, lag, err)
				}
				rs, err := sub.Receive(testContext(t), 8)
				if err != nil {
					t.Fatal(err)
				}
				if err := sub.Ack(testContext(t), rs); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A consumer that has not noticed what is stored does not make Lag say that
// nothing is.
func TestConsumerThatTrails(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "a", &driver.StoredConfig{Durability: driver.DurableMemory})
	put(t, topic, bare("1", "2")...)
	put(t, topic, withKey("k", "3")...)
	st := topic.(*stored)
	keyed := st.partition("a", partitionOf("k"))
	for _, tt := range []struct {
		filter string
		given  uint64
		want   uint64
	}{{"", 0, 1}, {"", 2, 1}, {"", 3, 0}, {"a", 1, 1}, {"a", 2, 0}, {keyed, 2, 1}, {keyed, 3, 0}} {
		info := &jetstream.ConsumerInfo{
			Config:    jetstream.ConsumerConfig{FilterSubject: tt.filter},
			Delivered: jetstream.SequenceInfo{Stream: tt.given},
		}
		if n, err := st.waiting(testContext(t), info); n != tt.want || err != nil {
			t.Errorf("filter %q, %d given: got %d, %v, want %d", tt.filter, tt.given, n, err, tt.want)
		}
	}
}
