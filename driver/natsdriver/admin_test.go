package natsdriver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/race"
)

// TestTopicNames lists more topics than the server returns in one page, except with the
// race detector.
func TestTopicNames(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	long := strings.Repeat("long.", 48) + "name"
	want := []string{"a", "a.b", "a.b.dead", "odd=name", "odd%name", "odd~=nä:me/", long}
	first := 0
	if race.Enabled {
		first = 900 // 1,100 streams take a quarter of a minute then
	}
	var round []string
	for i := first; i < 1100; i++ {
		name := fmt.Sprintf("many.%04d", i)
		if want = append(want, name); i%100 == 99 {
			round = append(round, name)
		}
	}
	memory := &driver.StoredConfig{Durability: driver.DurableMemory}
	for _, name := range want {
		openTopic(t, c, name, memory)
	}
	openTopic(t, c, "failed", &driver.StoredConfig{Durability: driver.DurableMemory, DeadLetters: true})
	want = append(want, "failed")
	if err := c.SetLatch(testContext(t), "a", true); err != nil { // another stream
		t.Fatal(err)
	}
	all := func(q TopicQuery) (names []string) {
		t.Helper()
		for {
			page, next, err := c.TopicNames(testContext(t), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > q.Limit {
				t.Fatalf("got %d names, want %d at most", len(page), q.Limit)
			}
			names = append(names, page...)
			if q.After = next; next == "" {
				return names
			}
		}
	}
	sorted := func(names []string) []string { return slices.Sorted(slices.Values(names)) }
	for _, limit := range []int{100, 1000, 2000} {
		if got := sorted(all(TopicQuery{Limit: limit})); !slices.Equal(got, sorted(want)) {
			t.Errorf("pages of %d: got %d names, want %d", limit, len(got), len(want))
		}
	}
	for _, tt := range []struct {
		q    TopicQuery
		want []string
	}{
		{TopicQuery{Pattern: "a.>", Limit: 10}, []string{"a.b", "a.b.dead"}},
		{TopicQuery{Dead: true, Limit: 1}, []string{"a.b.dead", "failed"}},
		{TopicQuery{Dead: true, Pattern: "a.>", Limit: 10}, []string{"a.b.dead"}},
		{TopicQuery{Limit: 10, Match: func(name string) bool { return strings.HasSuffix(name, "99") }}, round},
		{TopicQuery{After: "many.1098", Limit: 2}, []string{"many.1099", "odd%name", "odd=name", "odd~=nä:me/"}},
		{TopicQuery{After: "many.0998x", Limit: 1, Pattern: "many.0999"}, []string{"many.0999"}},
	} {
		if got := sorted(all(tt.q)); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %v, want %v", tt.q, got, tt.want)
		}
	}
}

func TestTopicInfoAndPurge(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	cfg := relaxed()
	cfg.MaxMessages, cfg.MaxAge, cfg.Dedup = 50, time.Hour, time.Minute
	topic := openTopic(t, c, "t", cfg)
	publish(t, topic, numbered(1, 20)...)
	info, err := c.TopicInfo(testContext(t), "t")
	if err != nil || info.Messages != 20 || info.First != 1 || info.Last != 20 || info.Bytes == 0 || info.Created.IsZero() || info.Config != *cfg {
		t.Errorf("got %+v, %v", info, err)
	}
	if m, err := c.ReadMessage(testContext(t), "t", 7); err != nil || string(m.Data) != "7" || m.Seq != 7 || m.Time.IsZero() {
		t.Errorf("got %+v, %v", m, err)
	}
	if n, err := c.PurgeTopic(testContext(t), "t", 6, 0); err != nil || n != 5 {
		t.Errorf("got %d, %v, want 5 before the sixth", n, err)
	}
	if n, err := c.PurgeTopic(testContext(t), "t", 0, 3); err != nil || n != 12 {
		t.Errorf("got %d, %v, want all but 3", n, err)
	}
	if n, err := c.PurgeTopic(testContext(t), "t", 1000, 0); err != nil || n != 3 {
		t.Errorf("got %d, %v, want the rest", n, err)
	}
	for _, upTo := range []uint64{0, 1, 1000} { // nothing is there any more, and the sequences go on
		if n, err := c.PurgeTopic(testContext(t), "t", upTo, 0); err != nil || n != 0 {
			t.Errorf("got %d, %v, want none of none", n, err)
		}
	}
	if info, err := c.TopicInfo(testContext(t), "t"); err != nil || info.Last != 20 {
		t.Errorf("got %+v, %v, want 20 as the last sequence", info, err)
	}
	for what, err := range map[string]error{
		"info":    second(c.TopicInfo(testContext(t), "none")),
		"purge":   second(c.PurgeTopic(testContext(t), "none", 0, 0)),
		"message": second(c.ReadMessage(testContext(t), "none", 1)),
		"gone":    second(c.ReadMessage(testContext(t), "t", 7)),
		"groups":  second(c.Groups(testContext(t), "none")),
		"group":   second(c.GroupInfo(testContext(t), "t", "none")),
		"seq":     second(c.SeqAt(testContext(t), "none", time.Now())),
		"value":   second(c.ValueInfo(testContext(t), "none")),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestGroupInfo checks the counts of groups, and moves groups to other places.
func TestGroupInfo(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		t.Run(fmt.Sprintf("keyed=%v", keyed), func(t *testing.T) {
			c := startServer(t, withJetStream).open(t)
			topic := openTopic(t, c, "t", relaxed())
			now := subscribe(t, topic, driver.SubscribeConfig{Group: "now", Keyed: keyed})
			start := subscribe(t, topic, driver.SubscribeConfig{Group: "g.1", From: driver.FromStart, Keyed: keyed})
			other := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}) // no group
			for i := range 20 {
				m := &driver.Message{Key: fmt.Sprint("key", i%5), HasKey: keyed, Data: fmt.Append(nil, i)}
				if err := topic.Publish(testContext(t), []*driver.Message{m}); err != nil {
					t.Fatal(err)
				}
			}
			got := receive(t, start, 20)
			receive(t, other, 20)
			if err := start.Ack(testContext(t), got[:12]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "8 messages are in flight", func() bool {
				g, err := c.GroupInfo(testContext(t), "t", "g.1")
				if err != nil {
					t.Fatal(err)
				}
				return g.InFlight == 8 && g.Waiting == 0 && g.Keyed == keyed && !g.Oldest.IsZero()
			})
			eventually(t, "20 messages wait for the other group", func() bool {
				all, err := c.Groups(testContext(t), "t")
				if err != nil || len(all) != 2 || all[0].Name != "g.1" || all[1].Name != "now" {
					t.Fatalf("got %+v, %v", all, err)
				}
				return all[1].Waiting+all[1].InFlight == 20
			})
			if keyed {
				if err := c.SeekGroup(testContext(t), "t", "g.1", 1); !errors.Is(err, ErrListening) {
					t.Errorf("got %v, want ErrListening while it has members", err)
				}
			}
			for _, s := range []driver.Subscription{start, now} {
				if err := s.Close(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"g.1", "now", "now"} { // now: recreated the first time, and not the second
				seekAndRead(t, c, topic, name, keyed)
			}
			if err := c.DeleteGroup(testContext(t), "t", "g.1"); err != nil {
				t.Fatal(err)
			}
			if all, err := c.Groups(testContext(t), "t"); err != nil || len(all) != 1 {
				t.Errorf("got %+v, %v, want one group left", all, err)
			}
		})
	}
}

// seekAndRead moves a group without members to sequence 16, and reads from there.
func seekAndRead(t *testing.T, c *Conn, topic driver.Topic, group string, keyed bool) {
	t.Helper()
	nobodyListens(t, c, group)
	if err := c.SeekGroup(testContext(t), "t", group, 16); err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, topic, driver.SubscribeConfig{Group: group, Keyed: keyed})
	got := receive(t, s, 5)
	if seqs := sequences(got); !slices.Equal(seqs, upTo(16, 20)) {
		t.Errorf("group %s: got %v, want 16 to 20", group, seqs)
	}
	if err := errors.Join(s.Ack(testContext(t), got), s.Close(testContext(t))); err != nil {
		t.Error(err)
	}
}

// nobodyListens waits until no member of a group waits for messages.
func nobodyListens(t *testing.T, c *Conn, group string) {
	t.Helper()
	eventually(t, "nobody listens", func() bool {
		g, err := c.GroupInfo(testContext(t), "t", group)
		return err == nil && g.Listening == 0
	})
}

// TestSeekWhileMembersListen moves a group while it has members.
func TestSeekWhileMembersListen(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	s := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
	publish(t, topic, numbered(1, 10)...)
	if err := s.Ack(testContext(t), receive(t, s, 10)); err != nil {
		t.Fatal(err)
	}
	if err := c.SeekGroup(testContext(t), "t", "g", 8); err != nil {
		t.Fatal(err)
	}
	if got := texts(receive(t, s, 3)); !slices.Equal(got, []string{"8", "9", "10"}) {
		t.Errorf("got %v, want the last three again", got)
	}
}

// TestSeekPastTheEnd moves a group to a sequence that no message has yet: it must miss
// nothing that is published from then on.
func TestSeekPastTheEnd(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	s := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
	publish(t, topic, numbered(1, 3)...)
	if err := c.SeekGroup(testContext(t), "t", "g", 1<<63); err != nil {
		t.Fatal(err)
	}
	publish(t, topic, "new")
	if got := texts(receive(t, s, 1)); got[0] != "new" {
		t.Errorf("got %v, want new", got)
	}
}

// TestDeleteGroupWithoutJetStream removes a group where there can be none.
func TestDeleteGroupWithoutJetStream(t *testing.T) {
	if err := startServer(t).open(t).DeleteGroup(testContext(t), "t", "g"); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}

func TestPauseGroup(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	s := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
	until := time.Now().Add(time.Hour)
	if err := c.PauseGroup(testContext(t), "t", "g", until); err != nil {
		t.Fatal(err)
	}
	g, err := c.GroupInfo(testContext(t), "t", "g")
	if err != nil || g.PausedUntil.Sub(until).Abs() > 5*time.Second {
		t.Errorf("got %+v, %v, want a pause until %v", g, err, until)
	}
	publish(t, topic, "1")
	eventually(t, "the message waits", func() bool { // the server counts the message after confirming that it is stored
		g, err = c.GroupInfo(testContext(t), "t", "g")
		return err == nil && g.Waiting == 1
	})
	if err := c.ResumeGroup(testContext(t), "t", "g"); err != nil {
		t.Fatal(err)
	}
	receive(t, s, 1)
	if g, err = c.GroupInfo(testContext(t), "t", "g"); err != nil || !g.PausedUntil.IsZero() {
		t.Errorf("got %+v, %v, want no pause", g, err)
	}
}

func TestSeqAt(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	publish(t, topic, "1", "2", "3")
	m, err := c.ReadMessage(testContext(t), "t", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   time.Time
		want uint64
	}{
		{time.Unix(0, 0), 1},
		{m.Time, 2},
		{time.Now().Add(time.Hour), 4},
	} {
		if seq, err := c.SeqAt(testContext(t), "t", tt.at); err != nil || seq != tt.want {
			t.Errorf("%v: got %d, %v, want %d", tt.at, seq, err, tt.want)
		}
	}
}

func TestLatchAndValueInfo(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	if names, err := c.LatchNames(testContext(t), ""); err != nil || len(names) != 0 {
		t.Errorf("got %v, %v, want none", names, err)
	}
	for name, set := range map[string]bool{"a.b": true, "a.c": false, "d": true} {
		if err := c.SetLatch(testContext(t), name, set); err != nil {
			t.Fatal(err)
		}
		if l, err := c.LatchInfo(testContext(t), name); err != nil || l.Set != set || l.Changed.IsZero() {
			t.Errorf("got %+v, %v", l, err)
		}
	}
	if names, err := c.LatchNames(testContext(t), "a.*"); err != nil || !slices.Equal(names, []string{"a.b", "a.c"}) {
		t.Errorf("got %v, %v", names, err)
	}
	if l, err := c.LatchInfo(testContext(t), "none"); err != nil || l.Set {
		t.Errorf("got %+v, %v", l, err)
	}
	v, err := c.OpenValue(testContext(t), "v.1", []byte("7"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := v.Load(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.ValueInfo(testContext(t), "v.1"); err != nil || string(got.State.Data) != "7" || got.State.Version != state.Version {
		t.Errorf("got %+v, %v", got, err)
	}
	if names, err := c.ValueNames(testContext(t), ""); err != nil || !slices.Equal(names, []string{"v.1"}) {
		t.Errorf("got %v, %v", names, err)
	}
}

// Of the servers of a cluster the leader of a stream is asked for messages: others may
// not have yet what has just been stored, and whoever deletes a message that they do
// not have would take it for deleted.
func TestLeaderIsAsked(t *testing.T) {
	c, ctx := startServer(t, withJetStream).open(t), testContext(t)
	if _, err := c.OpenStore(ctx, StoreConfig{Pattern: "s.>", StoredConfig: *relaxed()}); err != nil {
		t.Fatal(err)
	}
	anyone, err := c.Client().SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	topic := openTopic(t, c, "s.a", relaxed())
	subscribe(t, topic, driver.SubscribeConfig{Group: "g"})
	publish(t, topic, "1", "2", "3")
	if m, err := c.ReadMessage(ctx, "s.a", 2); err != nil || string(m.Data) != "2" || m.Seq != 2 {
		t.Errorf("read message 2: %v, %v", m, err)
	}
	for range 2 { // the second time it is gone
		if err := c.DeleteMessage(ctx, "s.a", 2); err != nil {
			t.Error(err)
		}
	}
	if m, err := c.ReadMessage(ctx, "s.a", 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("read the deleted message 2: %v, %v, want ErrNotFound", m, err)
	}
	if info, err := c.TopicInfo(ctx, "s.a"); err != nil || info.First != 1 || info.Last != 3 || info.Messages != 2 {
		t.Errorf("topic info: %+v, %v", info, err)
	}
	if stats, err := topic.Stats(ctx); err != nil || stats.First != 1 || stats.Last != 3 || stats.Stored != 2 {
		t.Errorf("stats: %+v, %v", stats, err)
	}
	if g, err := c.GroupInfo(ctx, "s.a", "g"); err != nil || g.Waiting+g.InFlight == 0 || g.Oldest.IsZero() {
		t.Errorf("group info: %+v, %v", g, err)
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n, _, err := anyone.Pending(); err != nil || n != 0 {
		t.Errorf("any server was asked for messages %d times (%v)", n, err)
	}
}
