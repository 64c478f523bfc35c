package natsdriver

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// ofKey makes messages of one key.
func ofKey(texts ...string) []*driver.Message {
	ms := bare(texts...)
	for _, m := range ms {
		m.Key, m.HasKey = "k", true
	}
	return ms
}

// replaceStream removes the stream of topic "t", as a restarted server forgets one
// in memory, and makes another whose sequences start anew.
func replaceStream(t *testing.T, c *Conn, cfg *driver.StoredConfig) *stored {
	t.Helper()
	if err := c.js.DeleteStream(testContext(t), nominalBacking("t").stream); err != nil {
		t.Fatal(err)
	}
	return openTopic(t, c, "t", cfg).(*stored)
}

// The roster of a recreated topic still describes messages that are gone. The new
// messages have the same sequences, and are not done.
func TestSlotOfFormerStream(t *testing.T) {
	for _, d := range []driver.Durability{driver.DurableRelaxed, driver.DurableMemory} {
		t.Run(durabilities[d].name, func(t *testing.T) {
			s := startServer(t, withJetStream)
			cfg := &driver.StoredConfig{Durability: d}
			before := openTopic(t, s.open(t), "t", cfg)
			member := joinKeyed(t, before)
			if err := before.Publish(testContext(t), ofKey("a", "b", "c")); err != nil {
				t.Fatal(err)
			}
			if err := member.Ack(testContext(t), receive(t, member, 3)); err != nil {
				t.Fatal(err)
			}
			if err := member.Close(testContext(t)); err != nil {
				t.Fatal(err)
			}
			after := replaceStream(t, s.open(t), cfg)
			if err := after.Publish(testContext(t), ofKey("d", "e", "f")); err != nil {
				t.Fatal(err)
			}
			got := texts(receive(t, joinKeyed(t, after), 3))
			if want := []string{"d", "e", "f"}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// A member learns that the stream was recreated only after another member has
// recreated the consumers too. What it has done or has in flight belongs to the
// former stream: it receives the new messages with the same sequences, and
// acknowledging a former message does not acknowledge a new one.
func TestMemberFindsOthersStream(t *testing.T) {
	s := startServer(t, withJetStream)
	cfg := &driver.StoredConfig{Durability: driver.DurableMemory}
	before := openTopic(t, s.open(t), "t", cfg)
	member := joinKeyed(t, before).(*keyed)
	if err := before.Publish(testContext(t), ofKey("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	former := receive(t, member, 3)
	if err := member.Ack(testContext(t), former[:2]); err != nil {
		t.Fatal(err)
	}

	member.agreeing.Lock() // it does not look before the others are ready
	after := replaceStream(t, s.open(t), cfg)
	other := &keyed{topic: after, name: "g"}
	if err := other.ensureSlots(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart}); err != nil {
		t.Fatal(err)
	}
	if err := after.Publish(testContext(t), ofKey("d", "e", "f")); err != nil {
		t.Fatal(err)
	}
	member.agreeing.Unlock()
	want := []string{"d", "e", "f"}
	if got := texts(receive(t, member, 3)); !slices.Equal(got, want) {
		t.Fatalf("the member got %v, want %v", got, want)
	}

	if err := member.Ack(testContext(t), former[2:]); err != nil {
		t.Fatal(err)
	}
	if err := member.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, joinKeyed(t, after), 3)); !slices.Equal(got, want) {
		t.Errorf("the next member got %v, want %v, of which none was done", got, want)
	}
}

// misinformed is JetStream on servers that say something else about streams.
type misinformed struct {
	jetstream.JetStream
	change func(*jetstream.StreamInfo)
}

type misinformedStream struct {
	jetstream.Stream
	change func(*jetstream.StreamInfo)
}

func (m misinformed) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := m.JetStream.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return misinformedStream{s, m.change}, nil
}

func (m misinformedStream) CachedInfo() *jetstream.StreamInfo {
	info := *m.Stream.CachedInfo()
	m.change(&info)
	return &info
}

// A cluster has recreated a stream in memory as if it were the same one, and it has got
// more messages than the former one had. None of them is taken for one of these.
func TestSlotOfStreamThatHasGrown(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	c.js = misinformed{c.js, func(info *jetstream.StreamInfo) { info.Created = time.Unix(1, 0) }} // the same for all
	cfg := &driver.StoredConfig{Durability: driver.DurableMemory}
	before := openTopic(t, c, "t", cfg)
	member := joinKeyed(t, before)
	reader := subscribe(t, before, driver.SubscribeConfig{From: driver.FromStart})
	if err := before.Publish(testContext(t), ofKey("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	receive(t, reader, 3)
	if err := errors.Join(member.Ack(testContext(t), receive(t, member, 3)), member.Close(testContext(t))); err != nil {
		t.Fatal(err)
	}
	after := replaceStream(t, s.open(t), cfg)
	if err := after.Publish(testContext(t), ofKey("d", "e", "f", "g", "h")); err != nil {
		t.Fatal(err)
	}
	want := []string{"d", "e", "f", "g", "h"}
	if got := texts(receive(t, reader, 5)); !slices.Equal(got, want) {
		t.Errorf("the reader got %v, want %v", got, want)
	}
	if got := texts(receive(t, joinKeyed(t, before), 5)); !slices.Equal(got, want) {
		t.Errorf("the member got %v, want %v", got, want)
	}
}

// What tells a stream from a former one.
func TestReplacedStream(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	for _, tt := range []struct {
		name    string
		storage jetstream.StorageType
		made    time.Time
		last    uint64
		at      time.Time
		state   jetstream.StreamState
		want    bool
	}{
		{"nothing known", jetstream.MemoryStorage, time.Time{}, 0, time.Time{}, jetstream.StreamState{FirstSeq: 1, FirstTime: at(5), LastSeq: 9}, false},
		{"made at another time", jetstream.FileStorage, at(2), 3, at(4), jetstream.StreamState{FirstSeq: 1, FirstTime: at(3), LastSeq: 9}, true},
		{"the same", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 1, FirstTime: at(3), LastSeq: 9}, false},
		{"the same, the last is the first", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 3, FirstTime: at(4), LastSeq: 9}, false},
		{"the same, the last is gone", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 4, FirstTime: at(5), LastSeq: 9}, false},
		{"the same, empty", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 4, LastSeq: 3}, false},
		{"shorter", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 1, FirstTime: at(5), LastSeq: 2}, true},
		{"longer", jetstream.MemoryStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 1, FirstTime: at(5), LastSeq: 9}, true},
		{"of an older member", jetstream.MemoryStorage, at(1), 3, time.Time{}, jetstream.StreamState{FirstSeq: 1, FirstTime: at(5), LastSeq: 9}, false},
		{"on disk", jetstream.FileStorage, at(1), 3, at(4), jetstream.StreamState{FirstSeq: 1, FirstTime: at(5), LastSeq: 9}, false},
	} {
		topic := &stored{}
		topic.config.Store(&jetstream.StreamConfig{Storage: tt.storage})
		if got := topic.replaced(&jetstream.StreamInfo{Created: at(1), State: tt.state}, tt.made, tt.last, tt.at); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

// Messages of a recreated consumer, or those that come over a new connection before
// anybody has been told of it, are not mistaken for messages already done: the slot
// must first look at what is there. Until then it says nothing about the messages
// it has in flight.
func TestSlotLooksBeforeItReads(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed()).(*stored)
	epoch := topic.conn.state.epoch()
	for name, known := range map[string]*slot{
		"another consumer":       {epoch: epoch, next: 7},
		"the same connection":    {epoch: epoch, next: 1},
		"a different connection": {epoch: epoch + 1, next: 1},
	} {
		t.Run(name, func(t *testing.T) {
			known.group = &keyed{topic: topic}
			known.last, known.left, known.deliveries = 3, map[uint64]struct{}{}, map[uint64]*slotDelivery{}
			held := &slotDelivery{slot: known, seq: 3, reply: "there"}
			known.deliveries[3] = held
			rs, err := known.read([]*nats.Msg{{Subject: "t", Data: []byte("d"), Reply: "$JS.ACK.S.C.1.4.1.0.0"}})
			if looks := errors.Is(err, errCut); looks != (name != "the same connection") || looks != (len(rs) == 0) {
				t.Errorf("got %d messages and %v", len(rs), err)
			}
			if said := held.subject() != ""; said != (known.epoch == epoch) {
				t.Errorf("said that a message is done: %v", said)
			}
		})
	}
}

// The first message of a topic in memory has a later time than the last, because the
// clocks of two servers differ. Nothing begins again for that.
func TestClocksOfServersDiffer(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	c.js = misinformed{c.js, func(info *jetstream.StreamInfo) { info.State.FirstTime = info.State.LastTime.Add(time.Minute) }}
	topic := openTopic(t, c, "t", &driver.StoredConfig{Durability: driver.DurableMemory}).(*stored)
	reader := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}).(*orderedConsumer)
	if err := topic.Publish(testContext(t), ofKey("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	receive(t, reader, 3)
	if err := reader.resume(testContext(t), 3); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(testContext(t), ofKey("d")); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, reader, 1)); !slices.Equal(got, []string{"d"}) {
		t.Errorf("got %v, want d", got)
	}
	s := &slot{group: &keyed{topic: topic}, made: reader.made, last: reader.last, at: reader.at, left: map[uint64]struct{}{2: {}}}
	info, err := topic.info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.found(testContext(t), info, 1); err != nil || len(s.left) != 1 {
		t.Errorf("%v, %v: a slot has forgotten what is left", err, s.left)
	}
	s.at = s.at.Add(-time.Second) // that of another message
	if err := s.found(testContext(t), info, 1); err != nil || len(s.left) != 0 {
		t.Errorf("%v, %v: a slot has not noticed another stream", err, s.left)
	}
}
