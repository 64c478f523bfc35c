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
