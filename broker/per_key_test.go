package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// untilStored waits until a topic has want messages.
func untilStored(t *testing.T, topic driver.Topic, want uint64) {
	t.Helper()
	for ctx := testContext(t); ; {
		s := stats(t, topic)
		if s.Stored == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d messages are stored, want %d", s.Stored, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestPerKey keeps the newest messages of each key, across other limits and a
// restart.
func TestPerKey(t *testing.T) {
	dir := t.TempDir()
	text := "topics: [{name: prices, per_key: 2}, {name: other}]"
	b := start(t, configIn(t, dir, text))
	prices := storedTopic(t, dial(t, b, ""), "prices")
	publishTo(t, prices, &driver.Message{ID: "plain", Data: []byte("0")})
	n := 0
	round := func() {
		for key := range 5 {
			publishTo(t, prices, keyed(n, fmt.Sprint(key), fmt.Sprint(n)))
			n++
		}
	}
	for range 10 {
		round()
	}
	untilStored(t, prices, 11) // two of each key, and the one without a key
	newest := func(each int) {
		t.Helper()
		got := map[string][]string{}
		for _, m := range receive(t, replay(t, b.conn, "prices"), 5*each+1) {
			if m.HasKey {
				got[m.Key] = append(got[m.Key], m.ID)
			}
		}
		for key := range 5 {
			for i, id := range got[fmt.Sprint(key)] {
				if want := fmt.Sprint("id-", n-5*(each-i)+key); id != want {
					t.Errorf("key %d: got %s, want %s", key, id, want)
				}
			}
		}
	}
	newest(2)
	shown := func() int64 {
		info, err := b.conn.TopicInfo(testContext(t), "prices")
		if err != nil {
			t.Fatal(err)
		}
		return b.topicView(&info).PerKey
	}
	if n := shown(); n != 2 {
		t.Errorf("the admin API says per_key %d, want 2", n)
	}

	// Only the last value of each key, and again after a restart.
	text = strings.Replace(text, "per_key: 2", "per_key: 1", 1)
	if err := b.Reload(testContext(t), configIn(t, dir, text)); err != nil {
		t.Fatal(err)
	}
	untilStored(t, prices, 6)
	if n := shown(); n != 1 {
		t.Errorf("the admin API says per_key %d, want 1", n)
	}
	newest(1)
	stop(t, b)
	b = start(t, configIn(t, dir, text))
	prices = storedTopic(t, dial(t, b, ""), "prices")
	round()
	untilStored(t, prices, 6)
	newest(1)

	// Without the limit everything stays.
	if err := b.Reload(testContext(t), configIn(t, dir, strings.Replace(text, ", per_key: 1", "", 1))); err != nil {
		t.Fatal(err)
	}
	round()
	round()
	if s := stats(t, prices); s.Stored != 16 {
		t.Errorf("got %d messages, want 16", s.Stored)
	}
}

// TestPerKeyCreatedAgain creates a topic again, as that of a topic in memory is when the
// server starts again: its sequences are those of other messages, which must stay.
func TestPerKeyCreatedAgain(t *testing.T) {
	b := start(t, config(t, "topics: [{name: state, per_key: 1, durability: memory}]\n"))
	state := storedTopic(t, b.conn, "state")
	publishTo(t, state, keyed(0, "a", "1"), keyed(1, "b", "1"), keyed(2, "a", "2"), keyed(3, "c", "1"))
	untilStored(t, state, 3)
	if err := jetStreamOf(t, connectTo(t, b.Addr().String())).DeleteStream("hark-topic-state"); err != nil {
		t.Fatal(err)
	}
	state, err := b.conn.OpenTopic(testContext(t), driver.TopicConfig{Name: "state", Stored: &driver.StoredConfig{Durability: driver.DurableMemory}})
	if err != nil {
		t.Fatal(err)
	}
	publishTo(t, state, keyed(0, "c", "2"), keyed(1, "d", "1"), keyed(2, "e", "1"), keyed(3, "f", "1"), keyed(4, "d", "2"))
	untilStored(t, state, 4)
	for i, m := range receive(t, replay(t, b.conn, "state"), 4) {
		if want := "cefd"[i : i+1]; m.Key != want {
			t.Errorf("got key %s, want %s", m.Key, want)
		}
	}
}

// TestKeptIsBounded has each message of a topic, which keeps 100, with a key of its own.
func TestKeptIsBounded(t *testing.T) {
	k := newKept(keepRule{perKey: 1, perTopic: 1000})
	for seq := range uint64(20 * leastKept) {
		m := &driver.Received{Topic: fmt.Sprint("topic-", seq%10_000), Seq: seq + 1}
		m.Key, m.HasKey = fmt.Sprint(seq), true
		if gone := k.add(m); len(gone) > 0 {
			t.Fatalf("%d: got %v to remove", seq, gone)
		}
		if k.full() {
			k.forget(max(seq, 100) - 98)
		}
		if n := len(k.byKey) + len(k.byTopic); n > leastKept {
			t.Fatalf("%d: %d keys and topics", seq, n)
		}
	}
	k.forget(20*leastKept - 98)
	if len(k.byKey) != 99 || len(k.byTopic) != 99 || len(k.keyed) != 99 {
		t.Errorf("got %d keys of %d topics, %d with keys; want 99", len(k.byKey), len(k.byTopic), len(k.keyed))
	}
}
