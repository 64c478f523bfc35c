package natsdriver

import (
	"slices"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

func TestDelay(t *testing.T) {
	s := startServer(t, withSync)
	c := s.open(t, SyncAlways())
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableMemory} {
		topic := openTopic(t, c, "t."+durabilities[d].name, &driver.StoredConfig{Durability: d, MaxMessages: 3, Dedup: time.Minute})
		sub := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
		now := time.Now()
		due := now.Add(400 * time.Millisecond)
		ms := []*driver.Message{
			{ID: "late", Data: []byte("late"), Due: due, Headers: map[string]string{"a": "b"}},
			{ID: "late", Data: []byte("repeated"), Due: due},
			{ID: "keyed", Key: "k", HasKey: true, Data: []byte("keyed"), Due: due.Add(time.Millisecond)},
			{Data: []byte("past"), Due: now.Add(-time.Hour)},
			{Data: []byte("now")},
			{Data: []byte("now")},
			{Data: []byte("now")},
			{Data: []byte("now")},
		}
		if err := topic.Publish(testContext(t), ms); err != nil {
			t.Fatal(err)
		}
		stats, err := topic.Stats(testContext(t))
		if time.Now().Before(due) && (err != nil || stats.Delayed < 2 || stats.Delayed > 3 || stats.Deduplicated != 1) {
			t.Errorf("got %+v, %v, want 2 or 3 delayed and 1 deduplicated", stats, err)
		}
		var got []string
		for !slices.Contains(got, "keyed") || !slices.Contains(got, "late") || !slices.Contains(got, "past") {
			r := receive(t, sub, 1)[0]
			text := string(r.Data)
			got = append(got, text)
			switch {
			case text != "late" && text != "keyed":
			case time.Now().Before(due):
				t.Errorf("%s came %v early", text, time.Until(due))
			case r.Topic != "t."+durabilities[d].name || r.ID != text || r.HasKey != (text == "keyed") || r.Seq == 0 || text == "late" && (len(r.Headers) != 1 || r.Headers["a"] != "b"):
				t.Errorf("got %+v", r)
			}
		}
		if slices.Contains(got, "repeated") {
			t.Errorf("got %v", got)
		}
		eventually(t, "nothing is delayed", func() bool {
			stats, err := topic.Stats(testContext(t))
			return err == nil && stats.Delayed == 0
		})
	}
	eventually(t, "nothing is left where messages wait", func() bool {
		stream, err := c.js.Stream(testContext(t), dueStream)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
}

// Delayed messages arrive after a restart, at once if overdue.
func TestDelayOverRestart(t *testing.T) {
	s := startServer(t, withSync)
	c := s.open(t, SyncAlways())
	topic := openTopic(t, c, "t", &driver.StoredConfig{})
	if err := topic.Publish(testContext(t), []*driver.Message{{Data: []byte("x"), Due: time.Now().Add(300 * time.Millisecond)}}); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.start()
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	if got := texts(receive(t, sub, 1)); got[0] != "x" {
		t.Errorf("got %v", got)
	}
}

func TestExpires(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	at := time.Now().Add(700 * time.Millisecond)
	if err := topic.Publish(testContext(t), []*driver.Message{{Expires: at}, {Bare: true, Expires: at}, {Data: []byte("stays")}}); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	rs := receive(t, sub, 3)
	if !rs[0].Expires.Equal(at) || !rs[1].Expires.Equal(at) || !rs[2].Expires.IsZero() {
		t.Errorf("got %v, %v and %v, want %v twice and none", rs[0].Expires, rs[1].Expires, rs[2].Expires, at)
	}
	eventually(t, "the server removes what has expired", func() bool {
		stats, err := topic.Stats(testContext(t))
		return err == nil && stats.Stored == 1
	})
}
