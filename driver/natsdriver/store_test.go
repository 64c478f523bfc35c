package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// openStore makes a store, which is relaxed.
func openStore(t *testing.T, c *Conn, cfg StoreConfig) driver.Topic {
	t.Helper()
	cfg.Durability = driver.DurableRelaxed
	store, err := c.OpenStore(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// asItIs opens a stored topic by whatever keeps it.
func asItIs(t *testing.T, c *Conn, name string) driver.Topic {
	t.Helper()
	return openTopic(t, c, name, &driver.StoredConfig{Existing: true, Dedup: time.Minute})
}

func withKey(key string, texts ...string) []*driver.Message {
	ms := bare(texts...)
	for _, m := range ms {
		m.Key, m.HasKey = key, true
	}
	return ms
}

func put(t *testing.T, topic driver.Topic, ms ...*driver.Message) {
	t.Helper()
	if err := topic.Publish(testContext(t), ms); err != nil {
		t.Fatal(err)
	}
}

// mixed publishes to a and b of the store s.> in turn, with and without keys, by those
// who know of the store and by those who do not. It returns what each has.
func mixed(t *testing.T, c *Conn) (a, b driver.Topic, ofA, ofB []string) {
	t.Helper()
	a, b = asItIs(t, c, "s.a"), asItIs(t, c, "s.b")
	live := openTopic(t, c, "s.a", nil)
	for i := range 10 {
		text := func(of, how string) string { return fmt.Sprint(of, i, how) }
		put(t, a, bare(text("a", "plain"))...)
		put(t, b, withKey("k", text("b", "keyed"))...)
		put(t, a, withKey(fmt.Sprint("k", i), text("a", "keyed"))...)
		put(t, live, bare(text("a", "live"))...)
		if err := c.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
		put(t, b, bare(text("b", "plain"))...)
		ofA = append(ofA, text("a", "plain"), text("a", "keyed"), text("a", "live"))
		ofB = append(ofB, text("b", "keyed"), text("b", "plain"))
	}
	return a, b, ofA, ofB
}

// TestStoreKeepsTopicsApart has two topics in one store, and looks at one from all sides.
func TestStoreKeepsTopicsApart(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	store := openStore(t, c, StoreConfig{Pattern: "s.>"})
	everything, pattern := subscribe(t, store, driver.SubscribeConfig{From: driver.FromNow}), listenTo(t, c, "s.*")
	a, b, ofA, ofB := mixed(t, c)
	want := func(what string, rs []*driver.Received, want []string) {
		t.Helper()
		if got := texts(rs); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	from := func(topic driver.Topic, cfg driver.SubscribeConfig) driver.Subscription {
		return subscribe(t, topic, cfg)
	}
	all := receive(t, from(a, driver.SubscribeConfig{From: driver.FromStart}), len(ofA))
	want("from the start", all, ofA)
	want("the other from the start", receive(t, from(b, driver.SubscribeConfig{From: driver.FromStart}), len(ofB)), ofB)
	for i, r := range all {
		if r.Topic != "s.a" || i > 0 && r.Seq <= all[i-1].Seq {
			t.Fatalf("got %s with sequence %d after %d", r.Topic, r.Seq, all[max(i-1, 0)].Seq)
		}
	}
	want("from a sequence", receive(t, from(a, driver.SubscribeConfig{From: driver.FromSeq, Seq: all[20].Seq}), 10), ofA[20:])
	want("from between", receive(t, from(a, driver.SubscribeConfig{From: driver.FromSeq, Seq: all[18].Seq - 1}), 12), ofA[18:])
	want("from a time", receive(t, from(a, driver.SubscribeConfig{From: driver.FromTime, Time: all[15].Time}), 15), ofA[15:])
	for _, n := range []int{1, 2, 7, 29, 30} {
		want(fmt.Sprint("the last ", n), receive(t, from(a, driver.SubscribeConfig{From: driver.FromLast, Seq: uint64(n)}), n), ofA[30-n:])
	}
	want("more than there are", receive(t, from(a, driver.SubscribeConfig{From: driver.FromLast, Seq: 99}), 30), ofA)

	rs := receive(t, everything, len(ofA)+len(ofB))
	live := receive(t, pattern, len(rs))
	for _, got := range [][]*driver.Received{rs, live} {
		byTopic := map[string][]string{}
		for _, r := range got {
			byTopic[r.Topic] = append(byTopic[r.Topic], string(r.Data))
		}
		if len(byTopic["s.a"]) != len(ofA) || len(byTopic["s.b"]) != len(ofB) || len(byTopic) != 2 {
			t.Errorf("got %v", byTopic)
		}
	}
	want("of the store", slices.DeleteFunc(rs, func(r *driver.Received) bool { return r.Topic != "s.a" }), ofA)

	// Groups of one name on both, and on the pattern.
	for round := range 2 {
		for _, tt := range []struct {
			topic driver.Topic
			want  []string
		}{{a, ofA}, {b, ofB}} {
			g := from(tt.topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
			rs := receive(t, g, len(tt.want))
			if round == 0 {
				want("group", rs, tt.want)
			} else if got := texts(rs); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tt.want))) { // what was returned comes in any order
				t.Errorf("group: got %q, want %q again", got, tt.want)
			}
			if err := g.Return(testContext(t), rs); err != nil {
				t.Error(err)
			}
			if err := g.Close(testContext(t)); err != nil {
				t.Error(err)
			}
		}
	}
	s, err := a.Stats(testContext(t))
	if err != nil || s.Stored != 30 || s.First != all[0].Seq || s.Last != all[29].Seq {
		t.Errorf("got %+v, %v, want 30 from %d to %d", s, err, all[0].Seq, all[29].Seq)
	}
}

func listenTo(t *testing.T, c *Conn, pattern string) driver.Subscription {
	t.Helper()
	s, err := c.SubscribePattern(testContext(t), pattern, driver.SubscribeConfig{Window: 1024})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStoreLag counts what waits for subscriptions of one topic, and what they missed.
func TestStoreLag(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{MaxMessages: 2000}})
	a, b := asItIs(t, c, "s.a"), asItIs(t, c, "s.b")
	for i := range 10 {
		put(t, a, bare(numbered(2*i, 2)...)...)
		put(t, b, bare("b", "b", "b")...)
	}
	follow, group := subscribe(t, a, driver.SubscribeConfig{From: driver.FromStart}), subscribe(t, a, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
	receive(t, follow, 5)
	lag := func(s driver.Subscription) driver.Lag {
		l, err := s.Lag(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := lag(follow); got.Waiting != 15 {
		t.Errorf("got %+v, want 15 waiting", got)
	}
	if got := lag(group); got.Waiting != 20 {
		t.Errorf("got %+v, want 20 waiting", got)
	}
	receive(t, follow, 15)
	// One that has all misses nothing by what others publish.
	put(t, b, bare(numbered(0, 4000)...)...)
	put(t, a, bare("next")...)
	receive(t, follow, 1)
	if got := lag(follow); got.Waiting != 0 || got.Lost != 0 {
		t.Errorf("got %+v, want nothing waiting and nothing lost", got)
	}
	// One that is behind does, and is told.
	put(t, a, bare(numbered(0, 8000)...)...)
	for got := ""; got != "7999"; {
		rs, err := follow.Receive(testContext(t), 100)
		if err != nil {
			t.Fatal(err)
		}
		got = string(rs[len(rs)-1].Data)
	}
	if got := lag(follow); got.Lost == 0 {
		t.Errorf("got %+v, want it to have lost some", got)
	}
}

// TestStorePerTopic keeps the last value of each topic.
func TestStorePerTopic(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	store := openStore(t, c, StoreConfig{Pattern: "state.*", MaxPerTopic: 1})
	for i := range 10 {
		for k := range 3 {
			put(t, asItIs(t, c, fmt.Sprint("state.", k)), bare(fmt.Sprint(k, "-", i))...)
		}
	}
	if got := texts(receive(t, subscribe(t, store, driver.SubscribeConfig{From: driver.FromStart}), 3)); !slices.Equal(got, []string{"0-9", "1-9", "2-9"}) {
		t.Errorf("got %q", got)
	}
	if _, err := c.AlterStore(testContext(t), StoreConfig{Pattern: "state.*", MaxPerTopic: 2, StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}}); err != nil {
		t.Fatal(err)
	}
	put(t, asItIs(t, c, "state.0"), bare("0-10")...)
	if s, err := asItIs(t, c, "state.0").Stats(testContext(t)); err != nil || s.Stored != 2 {
		t.Errorf("got %+v, %v, want 2 messages", s, err)
	}
}

// TestStoreDelay has messages become due in their topics, with and without a key.
func TestStoreDelay(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openStore(t, c, StoreConfig{Pattern: "d.*.x"})
	a := asItIs(t, c, "d.a.x")
	sub, other := subscribe(t, a, driver.SubscribeConfig{From: driver.FromStart}), subscribe(t, asItIs(t, c, "d.b.x"), driver.SubscribeConfig{From: driver.FromStart})
	due := time.Now().Add(300 * time.Millisecond)
	ms := append(bare("plain"), withKey("k", "keyed")...)
	for i, m := range ms {
		m.Due = due.Add(time.Duration(i) * time.Millisecond)
	}
	put(t, a, ms...)
	if s, err := a.Stats(testContext(t)); err != nil || time.Now().Before(due) && (s.Delayed != 2 || s.Stored != 0) {
		t.Errorf("got %+v, %v, want 2 delayed", s, err)
	}
	rs := receive(t, sub, 2)
	if got := texts(rs); !slices.Equal(got, []string{"plain", "keyed"}) || rs[1].Key != "k" || time.Now().Before(due) {
		t.Errorf("got %q with key %q", got, rs[1].Key)
	}
	put(t, asItIs(t, c, "d.b.x"), bare("b")...)
	if got := texts(receive(t, other, 1)); got[0] != "b" {
		t.Errorf("got %q on the other topic", got)
	}
}

// TestStoreGroupOrder has members share a whole store, and one topic of it, with keys in
// order.
func TestStoreGroupOrder(t *testing.T) {
	s := startServer(t, withJetStream)
	one, two := s.open(t), s.open(t)
	store := openStore(t, one, StoreConfig{Pattern: "s.>"})
	other, err := two.OpenStore(testContext(t), StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ one, two driver.Topic }{{store, other}, {asItIs(t, one, "s.a"), asItIs(t, two, "s.a")}} {
		l := &ledger{next: map[string]int{}}
		ctx, cancel := context.WithCancel(testContext(t))
		first, second := joinKeyed(t, tt.one), joinKeyed(t, tt.two)
		ended := make(chan struct{}, 2)
		for _, m := range []driver.Subscription{first, second} {
			go func() { labour(ctx, t, l, m); ended <- struct{}{} }()
		}
		if tt.one == store {
			publishKeys(t, asItIs(t, one, "s.a"), 40, 0, 20)
		}
		eventually(t, "all have come", func() bool { return l.has(40, 20) })
		cancel()
		for range 2 {
			<-ended
		}
		l.check(t, false)
		for _, m := range []driver.Subscription{first, second} {
			if err := m.Close(testContext(t)); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestStoreAdmin administers a topic of a store, and sees the others stay.
func TestStoreAdmin(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>"})
	openTopic(t, c, "own", relaxed())
	a, b, ofA, ofB := mixed(t, c)
	put(t, asItIs(t, c, "s.a.dead"), bare("dead")...)
	ctx := testContext(t)
	for _, topic := range []driver.Topic{a, b} {
		if err := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart}).Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := c.StoreGroups(ctx, "s.>"); err != nil || len(all) != 2 || all[0].Topic != "s.a" || all[0].Waiting != 30 || all[0].Keyed || all[0].Oldest.IsZero() {
		t.Errorf("got %+v, %v", all, err)
	}
	if g, err := c.GroupInfo(ctx, "s.b", "g"); err != nil || g.Waiting != 20 {
		t.Errorf("got %+v, %v", g, err)
	}
	names := func(q TopicQuery) (all []string) {
		for {
			page, next, err := c.TopicNames(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			if all = append(all, page...); next == "" {
				return all
			}
			q.After = next
		}
	}
	for n := 1; n <= 5; n++ {
		if got := names(TopicQuery{Limit: n}); !slices.Equal(got, []string{"s.a", "s.a.dead", "s.b", "own"}) {
			t.Errorf("%d at a time: got %q", n, got)
		}
	}
	if got := names(TopicQuery{Limit: 10, Dead: true}); !slices.Equal(got, []string{"s.a.dead"}) {
		t.Errorf("dead letters: got %q", got)
	}
	// Those that a subscription names are found, of a store while they have messages.
	for _, topic := range []string{"own", "s.b", "s.none", "s.a.dead", "s.b", "made"} {
		if _, err := c.OpenTopic(ctx, driver.TopicConfig{Name: topic, Stored: &driver.StoredConfig{Durability: driver.DurableRelaxed, Existing: true, DeadLetters: true}}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := c.js.Stream(ctx, deadStream); err != nil || info.CachedInfo().State.Msgs != 3 {
		t.Errorf("got the notes %+v, %v, want one each of own, s.b and s.none", info.CachedInfo().State, err)
	}
	openTopic(t, c, "more", relaxed())
	for n := 1; n <= 6; n++ {
		if got := names(TopicQuery{Limit: n, Dead: true}); !slices.Equal(got, []string{"s.a.dead", "s.b", "made", "own"}) {
			t.Errorf("dead letters, %d at a time: got %q", n, got)
		}
	}
	for pattern, want := range map[string][]string{"own": {"own"}, "s.*": {"s.b"}, "*": {"made", "own"}} {
		if got := names(TopicQuery{Limit: 10, Dead: true, Pattern: pattern}); !slices.Equal(got, want) {
			t.Errorf("dead letters that match %s: got %q, want %q", pattern, got, want)
		}
	}
	if err := c.DeleteTopic(ctx, "made"); err != nil {
		t.Fatal(err)
	}
	if got := names(TopicQuery{Limit: 10, Pattern: "s.*"}); !slices.Equal(got, []string{"s.a", "s.b"}) {
		t.Errorf("by pattern: got %q", got)
	}
	if got, err := c.Stores(ctx); err != nil || !slices.Equal(got, []string{"s.>"}) {
		t.Errorf("got %q, %v", got, err)
	}
	info, err := c.TopicInfo(ctx, "s.a")
	if err != nil || info.Store != "s.>" || info.Messages != uint64(len(ofA)) || info.Groups != 1 {
		t.Errorf("got %+v, %v", info, err)
	}
	// A message is found by those who ask for its topic, and by no others.
	if m, err := c.ReadMessage(ctx, "s.a", info.First); err != nil || string(m.Data) != ofA[0] {
		t.Errorf("got %v, %v", m, err)
	}
	if m, err := c.ReadMessage(ctx, "s.b", info.First); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, %v, want it not to be there", m, err)
	}
	if err := errors.Join(c.DeleteMessage(ctx, "s.b", info.First), c.SeekGroup(ctx, "s.a", "g", info.Last)); err != nil {
		t.Fatal(err)
	}
	if g, err := c.GroupInfo(ctx, "s.a", "g"); err != nil || g.Waiting != 1 {
		t.Errorf("got %+v, %v, want one message waiting", g, err)
	}
	if seq, err := c.SeqAt(ctx, "s.a", info.LastTime); err != nil || seq != info.Last {
		t.Errorf("got %d, %v, want %d", seq, err, info.Last)
	}
	if n, err := c.PurgeTopic(ctx, "s.a", 0, 5); err != nil || n != uint64(len(ofA))-5 {
		t.Errorf("got %d removed, %v", n, err)
	}
	if err := c.DeleteTopic(ctx, "s.a"); err != nil {
		t.Fatal(err)
	}
	after, err := c.TopicInfo(ctx, "s.a")
	if err != nil || after.Messages != 0 || after.Groups != 0 {
		t.Errorf("got %+v, %v, want nothing", after, err)
	}
	if rest, err := c.TopicInfo(ctx, "s.b"); err != nil || rest.Messages != uint64(len(ofB)) || rest.Groups != 1 {
		t.Errorf("got %+v, %v, want what there was", rest, err)
	}
}

// TestStoreConflicts refuses what cannot be kept together, and says why.
func TestStoreConflicts(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openTopic(t, c, "taken.a", relaxed())
	openStore(t, c, StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{MaxAge: time.Hour}})
	store := func(pattern string) error {
		_, err := c.OpenStore(testContext(t), StoreConfig{Pattern: pattern, StoredConfig: *relaxed()})
		return err
	}
	topic := func(cfg driver.StoredConfig) error {
		_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "s.a", Stored: &cfg})
		return err
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{store("taken.*"), "topic taken.a"},
		{store("s.*"), "store s.>"},
		{store("s.>"), "MaxAge is 1h0m0s, not 0s"},
		{topic(driver.StoredConfig{Durability: driver.DurableRelaxed, MaxMessages: 5}), "MaxMessages of all of them together is 0, not 5"},
		{topic(driver.StoredConfig{Durability: driver.DurableMemory, MaxAge: time.Minute}), "MaxAge is 1h0m0s, not 1m0s"},
	} {
		if !errors.Is(tt.err, driver.ErrConflict) || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("got %v, want %s", tt.err, tt.want)
		}
	}
	for _, cfg := range []driver.StoredConfig{{Durability: driver.DurableRelaxed}, {Durability: driver.DurableMemory, MaxAge: time.Hour, Dedup: time.Second}} {
		if err := topic(cfg); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	s, err := c.OpenStore(testContext(t), StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{Existing: true}})
	if err == nil {
		err = s.Publish(testContext(t), bare("x"))
	}
	if err == nil || !strings.Contains(err.Error(), "is a pattern") {
		t.Errorf("got %v, want publishing to a pattern to be refused", err)
	}
}

// TestStoreNames keeps the names of consumers apart, and short enough.
func TestStoreNames(t *testing.T) {
	b := storeBacking("s.>")
	seen := map[string]string{}
	long := strings.Repeat("x", 240)
	for _, topic := range []string{"a", "a.b", "a~gb", "a=b", long + "1", long + "2"} {
		for _, group := range []string{"g", "b", "a", "~gb", long + "1", long + "2"} {
			name, what := b.consumer(topic, group), topic+" "+group
			if other := seen[name]; other != "" || len(slotConsumer(name, 15)) > maxNATSName || strings.ContainsAny(name, ".*> ") {
				t.Errorf("%s: got %s, which is %d bytes and that of %q", what, name, len(name), other)
			}
			seen[name] = what
		}
	}
	for pattern, want := range map[string]string{"a.>": "p.a.>", "a.*.b.*": "p.a.{{wildcard(2)}}.b.{{wildcard(3)}}", "a.*.>": "p.a.{{wildcard(2)}}.>"} {
		if got := moved(pattern, "p.", 1); got != want {
			t.Errorf("%s: got %s, want %s", pattern, got, want)
		}
	}
}

// TestAwaitStored publishes faster than the server writes to disk.
func TestAwaitStored(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	ctx := testContext(t)
	openTopic(t, c, "own.a", &driver.StoredConfig{Durability: driver.DurableRelaxed})
	if _, err := c.OpenStore(ctx, StoreConfig{Pattern: "store.*.>", StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}}); err != nil {
		t.Fatal(err)
	}
	heard, err := c.SubscribePattern(ctx, ">", driver.SubscribeConfig{Window: 4096})
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	for _, tt := range []struct{ kept, topic string }{{"own.a", "own.a"}, {"store.*.>", "store.a.b.c"}} {
		live, err := c.OpenTopic(ctx, driver.TopicConfig{Name: tt.topic})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := live.Publish(ctx, []*driver.Message{{Data: []byte("1")}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.AwaitStored(ctx, tt.kept); err != nil {
			t.Fatal(err)
		}
		if info, err := c.TopicInfo(ctx, tt.kept); err != nil || info.Messages != n || info.Last != n {
			t.Errorf("%s: got %d messages up to %d, %v, want %d", tt.kept, info.Messages, info.Last, err, n)
		}
		for got := 0; got < n; {
			ms, err := heard.Receive(ctx, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				if got++; m.Topic != tt.topic {
					t.Errorf("heard something on %s", m.Topic)
				}
			}
		}
	}
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond) // it may come to be there
	defer cancel()
	if err := c.AwaitStored(soon, "nothing"); err == nil {
		t.Error("a topic that is not there was stored")
	}
}

// TestStorePart reads those topics of a store that match a narrower pattern.
func TestStorePart(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	ctx := testContext(t)
	if _, err := c.OpenStore(ctx, StoreConfig{Pattern: "shop.>", StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}}); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{"shop.>": "shop.>", "shop.*": "shop.>", "shop.eu.>": "shop.>", "*.eu": "", ">": "", "shop.eu": "shop.>", "other.*": ""} {
		if got, err := c.StoreOf(ctx, pattern); got != want || err != nil {
			t.Errorf("store of %s: got %q, %v, want %q", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"*.eu", ">", "other.*"} {
		_, err := c.OpenTopic(ctx, driver.TopicConfig{Name: pattern, Stored: &driver.StoredConfig{Existing: true}})
		if !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "declare one that covers it") {
			t.Errorf("%s: got %v, want to be told what to declare", pattern, err)
		}
	}
	if _, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "shop.*"}); err == nil {
		t.Error("a pattern was opened as an ephemeral topic")
	}
	part, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "shop.eu.*", Stored: &driver.StoredConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := part.Stats(ctx); err != nil || s != (driver.TopicStats{Created: s.Created}) || s.Created.IsZero() {
		t.Errorf("got %+v, %v, want nothing but when the store was made", s, err)
	}
	for i, name := range []string{"shop.us.a", "shop.eu.a", "shop.eu.b", "shop.us.b", "shop.eu.b.c"} {
		topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true}})
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Publish(ctx, []*driver.Message{{Key: "k", HasKey: i%2 == 0, Data: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := part.Stats(ctx); err != nil || s != (driver.TopicStats{Stored: 2, First: 2, Last: 3, Newest: 5, Created: s.Created}) {
		t.Errorf("got %+v, %v, want 2 messages, 2 and 3", s, err)
	}
	for _, cfg := range []driver.SubscribeConfig{
		{From: driver.FromStart, Window: 8},
		{From: driver.FromLast, Seq: 2, Window: 8},
		{From: driver.FromStart, Window: 8, Group: "g"},
		{From: driver.FromSeq, Seq: 2, Window: 8, Group: "keyed", Keyed: true},
	} {
		sub, err := part.Subscribe(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]uint64{}
		for len(seen) < 2 {
			ms, err := sub.Receive(ctx, 8)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				seen[m.Topic] = m.Seq
			}
			if err := sub.Ack(ctx, ms); err != nil {
				t.Fatal(err)
			}
		}
		if seen["shop.eu.a"] != 2 || seen["shop.eu.b"] != 3 {
			t.Errorf("%+v: got %v", cfg, seen)
		}
		if err := sub.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	long := "shop." + strings.Repeat("long.", 40) + "name"
	topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: long, Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Subscribe(ctx, driver.SubscribeConfig{Group: strings.Repeat("g", 60), Window: 1}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{long: 1, "shop.eu.a": 0} {
		if info, err := c.TopicInfo(ctx, name); err != nil || info.Groups != want {
			t.Errorf("%s: got %+v, %v, want %d consumers", name, info, err, want)
		}
	}
	eventually(t, "the group has done all", func() bool {
		g, err := c.GroupInfo(ctx, "shop.eu.*", "g")
		if err != nil {
			t.Fatal(err)
		}
		return g.Waiting+g.InFlight == 0
	})
	if part.Publish(ctx, []*driver.Message{{Data: []byte("1")}}) == nil {
		t.Error("something was published to a pattern")
	}
	if info, err := c.StoreInfo(ctx, "shop.>"); err != nil || info.Messages != 5 {
		t.Errorf("got %+v, %v, want 5 messages", info, err)
	}
}

// What has the same ID on two topics of a store is two messages, and on one topic
// one, due later or not.
func TestStoreDedup(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{Dedup: time.Minute}})
	a, b := asItIs(t, c, "s.a"), asItIs(t, c, "s.b")
	for range 2 {
		for _, topic := range []driver.Topic{a, b} {
			put(t, topic, &driver.Message{ID: "1", Data: []byte("1")})
			put(t, topic, &driver.Message{ID: "2", Key: "k", HasKey: true, Data: []byte("2")})
			put(t, topic, &driver.Message{ID: "3", Data: []byte("3"), Due: time.Now().Add(50 * time.Millisecond)})
		}
	}
	for name, topic := range map[string]driver.Topic{"s.a": a, "s.b": b} {
		ms := receive(t, subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}), 3)
		if ms[0].ID != "1" || ms[1].ID != "2" || ms[2].ID != "3" {
			t.Errorf("%s: got %s, %s, %s", name, ms[0].ID, ms[1].ID, ms[2].ID)
		}
		if info, err := c.TopicInfo(testContext(t), name); err != nil || info.Messages != 3 {
			t.Errorf("%s: got %+v, %v, want 3 messages", name, info, err)
		}
	}
}
