package natsdriver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

func relaxed() *driver.StoredConfig {
	return &driver.StoredConfig{Durability: driver.DurableRelaxed, Dedup: 2 * time.Minute}
}

func TestStored(t *testing.T) {
	s := startServer(t, withJetStream)
	pub, sub := s.open(t), s.open(t)
	out, in := openTopic(t, pub, "orders.placed", relaxed()), openTopic(t, sub, "orders.placed", relaxed())
	publish(t, out, numbered(0, 10)...)
	before := time.Now()
	publish(t, out, numbered(10, 10)...)

	tests := []struct {
		name string
		cfg  driver.SubscribeConfig
		want []string
	}{
		{"now", driver.SubscribeConfig{}, nil},
		{"start", driver.SubscribeConfig{From: driver.FromStart}, numbered(0, 20)},
		{"seq", driver.SubscribeConfig{From: driver.FromSeq, Seq: 15}, numbered(14, 6)},
		{"seq 0", driver.SubscribeConfig{From: driver.FromSeq}, numbered(0, 20)},
		{"time", driver.SubscribeConfig{From: driver.FromTime, Time: before}, numbered(10, 10)},
		{"last", driver.SubscribeConfig{From: driver.FromLast, Seq: 3}, numbered(17, 3)},
		{"last of more", driver.SubscribeConfig{From: driver.FromLast, Seq: 30}, numbered(0, 20)},
		{"last 0", driver.SubscribeConfig{From: driver.FromLast}, nil},
		{"group", driver.SubscribeConfig{From: driver.FromSeq, Seq: 3, Group: "g"}, numbered(2, 18)},
	}
	subs := make([]driver.Subscription, len(tests))
	for i, tt := range tests {
		subs[i] = subscribe(t, in, tt.cfg)
	}
	publish(t, out, "new")
	for i, tt := range tests {
		want := append(slices.Clone(tt.want), "new")
		rs := receive(t, subs[i], len(want))
		if got := texts(rs); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, want)
		}
		last := rs[len(rs)-1]
		if last.Seq != 21 || last.Topic != "orders.placed" || last.Deliveries != 1 || time.Since(last.Time) > patience {
			t.Errorf("%s: got %+v", tt.name, last)
		}
		if lag, err := subs[i].Lag(testContext(t)); err != nil || lag.Waiting != 0 || lag.Lost != 0 {
			t.Errorf("%s: got %+v, %v", tt.name, lag, err)
		}
		if err := subs[i].Close(testContext(t)); err != nil {
			t.Errorf("%s: close: %v", tt.name, err)
		}
		if _, err := subs[i].Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
			t.Errorf("%s: got %v, want ErrEnded", tt.name, err)
		}
	}
	stats, err := in.Stats(testContext(t))
	if stats.Created.IsZero() {
		t.Error("it is not said when the topic was made")
	}
	if want := (driver.TopicStats{Stored: 21, First: 1, Last: 21, Newest: 21, Created: stats.Created}); err != nil || stats != want {
		t.Errorf("got %+v, %v, want %+v", stats, err, want)
	}
}

// On a stream with replicas a subscription begins after the last message that the
// leader has, because the server that is to have its consumer may be behind. In memory
// it does not: the sequences begin anew if all servers restart.
func TestStartWithReplicas(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	for _, tt := range []struct {
		name       string
		durability driver.Durability
		want       uint64
	}{
		{"file", driver.DurableRelaxed, 4},
		{"memory", driver.DurableMemory, 0},
	} {
		topic := openTopic(t, c, tt.name, &driver.StoredConfig{Durability: tt.durability}).(*stored)
		cfg := *topic.config.Load()
		cfg.Replicas = 3 // as if
		topic.config.Store(&cfg)
		publish(t, topic, "1", "2", "3")
		subscribe(t, topic, driver.SubscribeConfig{})
		subscribe(t, topic, driver.SubscribeConfig{Group: "g"})
		subscribe(t, topic, driver.SubscribeConfig{From: driver.FromLast})
		stream, err := c.js.Stream(testContext(t), topic.stream)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		consumers := stream.ListConsumers(testContext(t))
		for info := range consumers.Info() {
			got = append(got, info.Config.OptStartSeq)
		}
		if err := consumers.Err(); err != nil || !slices.Equal(got, []uint64{tt.want, tt.want, tt.want}) {
			t.Errorf("%s: they begin with %v (%v), want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestStoredMessageIsWhole(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	at := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	ms := []*driver.Message{
		{ID: "i d", Key: "k.*", HasKey: true, Time: at, Headers: map[string]string{"a": "b"}, ContentType: "x/y", Data: []byte("1")},
		{Bare: true, ID: "bare", Key: "", HasKey: true, Data: []byte("2")},
	}
	if err := topic.Publish(testContext(t), ms); err != nil {
		t.Fatal(err)
	}
	rs := receive(t, sub, 2)
	if got := rs[0]; got.ID != "i d" || got.Key != "k.*" || !got.HasKey || !got.Time.Equal(at) || got.Headers["a"] != "b" || got.ContentType != "x/y" || got.Bare || got.Topic != "t" {
		t.Errorf("got %+v", got)
	}
	if got := rs[1]; !got.Bare || got.Key != "" || !got.HasKey || got.Topic != "t" || string(got.Data) != "2" {
		t.Errorf("got %+v", got)
	}
}

func TestDedup(t *testing.T) {
	s := startServer(t, withSync)
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableRelaxed, driver.DurableMemory} {
		t.Run(durabilities[d].name, func(t *testing.T) {
			topic := openTopic(t, s.open(t, SyncAlways()), "t."+durabilities[d].name, &driver.StoredConfig{Durability: d, Dedup: time.Minute})
			ids := func(all ...string) (ms []*driver.Message) {
				for _, id := range all {
					ms = append(ms, &driver.Message{ID: id, Data: []byte(id)})
				}
				return ms
			}
			for _, ms := range [][]*driver.Message{ids("1", "2", "", ""), ids("2"), ids("3", "1", "3", "4")} {
				if err := topic.Publish(testContext(t), ms); err != nil {
					t.Fatal(err)
				}
			}
			stats, err := topic.Stats(testContext(t))
			if err != nil || stats.Stored != 6 || stats.Deduplicated != 3 {
				t.Errorf("got %+v, %v, want 6 stored and 3 deduplicated", stats, err)
			}
			sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
			if got, want := texts(receive(t, sub, 6)), []string{"1", "2", "", "", "3", "4"}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestWithoutDedupIDsRepeat(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", &driver.StoredConfig{Durability: driver.DurableRelaxed})
	for range 2 {
		if err := topic.Publish(testContext(t), []*driver.Message{{ID: "same"}}); err != nil {
			t.Fatal(err)
		}
	}
	if stats, err := topic.Stats(testContext(t)); err != nil || stats.Stored != 2 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

func TestRetention(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	newest := openTopic(t, c, "newest", &driver.StoredConfig{MaxMessages: 10, Durability: driver.DurableMemory})
	sub := subscribe(t, newest, driver.SubscribeConfig{From: driver.FromStart})
	bytes := openTopic(t, c, "bytes", &driver.StoredConfig{MaxBytes: 4096, Durability: driver.DurableRelaxed})
	for _, topic := range []driver.Topic{newest, bytes} {
		publish(t, topic, slices.Repeat([]string{strings.Repeat("x", 1000)}, 2000)...)
	}
	stats, err := newest.Stats(testContext(t))
	if want := (driver.TopicStats{Stored: 10, First: 1991, Last: 2000, Newest: 2000, Created: stats.Created}); err != nil || stats != want {
		t.Errorf("got %+v, %v, want %+v", stats, err, want)
	}
	if stats, err := bytes.Stats(testContext(t)); err != nil || stats.Stored < 1 || stats.Stored > 4 {
		t.Errorf("got %+v, %v, want 1 to 4 messages", stats, err)
	}
	got := 0
	for last := uint64(0); last < 2000; got++ {
		last = receive(t, sub, 1)[0].Seq
	}
	if lag, err := sub.Lag(testContext(t)); err != nil || lag.Lost == 0 || int(lag.Lost) != 2000-got {
		t.Errorf("got %+v, %v after %d messages, want %d lost", lag, err, got, 2000-got)
	}
}

func TestOtherConfiguration(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	made := driver.StoredConfig{MaxMessages: 10, MaxAge: time.Hour, Durability: driver.DurableRelaxed, Dedup: 2 * time.Hour}
	openTopic(t, c, "t", &made)
	openTopic(t, c, "t", &made)
	for what, change := range map[string]func(*driver.StoredConfig){
		"MaxMessages": func(s *driver.StoredConfig) { s.MaxMessages = 11 },
		"MaxAge":      func(s *driver.StoredConfig) { s.MaxAge = 0 },
		"MaxBytes":    func(s *driver.StoredConfig) { s.MaxBytes = 1 << 20 },
		"storage":     func(s *driver.StoredConfig) { s.Durability = driver.DurableMemory },
		"dedup":       func(s *driver.StoredConfig) { s.Dedup = time.Minute },
	} {
		other := made
		change(&other)
		_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "t", Stored: &other})
		if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want ErrConflict that names %s", err, what)
		}
		other.Existing = true
		openTopic(t, c, "t", &other)
	}
	js, err := jetstream.New(c.Client())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "foreign", Subjects: []string{"other.>"}}); err != nil {
		t.Fatal(err)
	}
	_, err = c.OpenTopic(testContext(t), driver.TopicConfig{Name: "other.t", Stored: &made})
	if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), "foreign") {
		t.Errorf("got %v, want ErrConflict that names the stream", err)
	}
}

// TestTopicWithoutMaxAge checks that the maximum age that such a stream has is not that of
// the topic, and that a stream without one is the same.
func TestTopicWithoutMaxAge(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	plain, limited := *relaxed(), *relaxed()
	limited.MaxAge = time.Hour
	check := func(want driver.StoredConfig, age time.Duration) {
		t.Helper()
		openTopic(t, c, "t", &want)
		info, err := c.TopicInfo(testContext(t), "t")
		if err != nil || info.Config.MaxAge != want.MaxAge {
			t.Errorf("got %+v, %v, want MaxAge %v", info.Config, err, want.MaxAge)
		}
		if stream, err := c.js.Stream(testContext(t), ownBacking("t").stream); err != nil || stream.CachedInfo().Config.MaxAge != age {
			t.Errorf("got a stream with %+v, %v, want MaxAge %v", stream.CachedInfo().Config, err, age)
		}
	}
	check(plain, forever)
	if _, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "t", Stored: &limited}); !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), "MaxAge is 0s, not 1h") {
		t.Errorf("got %v, want ErrConflict that names both", err)
	}
	for _, to := range []struct {
		driver.StoredConfig
		age time.Duration
	}{{limited, time.Hour}, {plain, forever}} {
		if _, err := c.AlterTopic(testContext(t), "t", to.StoredConfig); err != nil {
			t.Fatal(err)
		}
		check(to.StoredConfig, to.age)
	}
	cfg := openTopic(t, c, "t", &plain).(*stored).streamConfig()
	cfg.MaxAge = 0
	if _, err := c.js.UpdateStream(testContext(t), cfg); err != nil {
		t.Fatal(err)
	}
	check(plain, 0)
}

func TestStrictIsRefusedUnlessKnown(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	if info := c.Info(); info.Has(driver.Strict) {
		t.Error("Strict is declared")
	}
	_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "t", Stored: &driver.StoredConfig{}})
	if !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "sync=always") {
		t.Errorf("got %v, want ErrUnsupported that says what to write", err)
	}
}

func TestConcurrentPublish(t *testing.T) {
	s := startServer(t, withSync)
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableRelaxed, driver.DurableMemory} {
		t.Run(durabilities[d].name, func(t *testing.T) {
			topic := openTopic(t, s.open(t, SyncAlways()), "t."+durabilities[d].name, &driver.StoredConfig{Durability: d})
			const callers, calls = 16, 20
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := range calls {
						ms := bare(fmt.Sprintf("%d.%d.0", c, i), fmt.Sprintf("%d.%d.1", c, i))
						if err := topic.Publish(testContext(t), ms[:1+i%2]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			const total = callers * calls * 3 / 2
			sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
			next := map[string]string{}
			for i, r := range receive(t, sub, total) {
				if r.Seq != uint64(i+1) {
					t.Fatalf("message %d has sequence %d", i+1, r.Seq)
				}
				var c, call, n int
				if _, err := fmt.Sscanf(string(r.Data), "%d.%d.%d", &c, &call, &n); err != nil {
					t.Fatal(err)
				}
				caller, place := fmt.Sprint(c), fmt.Sprintf("%03d.%d", call, n)
				if place <= next[caller] {
					t.Errorf("caller %s: %s after %s", caller, place, next[caller])
				}
				next[caller] = place
			}
		})
	}
}

func TestPublishLotsKeepsItsOrder(t *testing.T) {
	s := startServer(t, withSync)
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableMemory} {
		topic := openTopic(t, s.open(t, SyncAlways()), "t."+durabilities[d].name, &driver.StoredConfig{Durability: d})
		publish(t, topic, numbered(0, 3500)...)
		sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
		if got := texts(receive(t, sub, 3500)); !slices.Equal(got, numbered(0, 3500)) {
			t.Error("out of order")
		}
	}
}

func TestPartialError(t *testing.T) {
	s := startServer(t, withSync)
	c := s.open(t, SyncAlways())
	for _, d := range []driver.Durability{driver.DurableStrict, driver.DurableMemory} {
		topic := openTopic(t, c, "t."+durabilities[d].name, &driver.StoredConfig{Durability: d})
		err := topic.Publish(testContext(t), []*driver.Message{{Data: []byte("a")}, {Headers: map[string]string{"": ""}}, {Data: make([]byte, 2<<20)}, {Data: []byte("b")}})
		var some driver.PartialError
		if !errors.As(err, &some) || len(some) != 4 || some[0] != nil || some[1] == nil || !errors.Is(some[2], driver.ErrFull) || some[3] != nil {
			t.Errorf("got %v, want errors of the middle two", err)
		}
		if stats, err := topic.Stats(testContext(t)); err != nil || stats.Stored != 2 {
			t.Errorf("got %+v, %v", stats, err)
		}
	}
}

func TestGroup(t *testing.T) {
	s := startServer(t, withJetStream)
	a, b := s.open(t), s.open(t)
	ta, tb := openTopic(t, a, "t", relaxed()), openTopic(t, b, "t", relaxed())
	one := subscribe(t, ta, driver.SubscribeConfig{Group: "g.h i", From: driver.FromStart, Window: 4})
	publish(t, ta, numbered(0, 10)...)
	rs := receive(t, one, 4)
	eventually(t, "six wait", func() bool { // the server counts what is new in the background
		lag, err := one.Lag(testContext(t))
		return err == nil && lag.Waiting == 6
	})
	if err := one.Ack(testContext(t), rs[:2]); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// What it had in flight is for others at once.
	two := subscribe(t, tb, driver.SubscribeConfig{Group: "g.h i", From: driver.FromNow})
	rest := receive(t, two, 8)
	got := texts(rest)
	slices.Sort(got)
	if want := numbered(2, 8); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, r := range rest {
		want := 1
		for _, held := range rs[2:] {
			if held.Seq == r.Seq {
				want = 2
			}
		}
		if r.Deliveries < want {
			t.Errorf("message %d: got %d deliveries, want %d", r.Seq, r.Deliveries, want)
		}
	}
	if err := two.Ack(testContext(t), rest); err != nil {
		t.Fatal(err)
	}
	if err := two.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	three := subscribe(t, ta, driver.SubscribeConfig{Group: "g.h i", From: driver.FromStart})
	publish(t, ta, "new")
	if got := texts(receive(t, three, 1)); got[0] != "new" {
		t.Errorf("got %v, want the group's place kept", got)
	}
}

func TestReturn(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	sub := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart})
	publish(t, topic, "x")
	for want := 1; want <= 3; want++ {
		rs := receive(t, sub, 1)
		if rs[0].Deliveries != want {
			t.Errorf("got %d deliveries, want %d", rs[0].Deliveries, want)
		}
		if err := sub.Return(testContext(t), rs); err != nil {
			t.Fatal(err)
		}
	}
	if err := sub.Ack(testContext(t), []*driver.Received{{Message: driver.Message{}, Seq: 1}}); err == nil {
		t.Error("a message of somebody else was acknowledged")
	}
}

func TestDrainOfStored(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	all := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	group := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 8})
	publish(t, topic, numbered(0, 700)...)
	receive(t, group, 8)
	if err := all.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := group.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	publish(t, topic, "late")
	if got := texts(receive(t, all, 700)); !slices.Equal(got, numbered(0, 700)) {
		t.Errorf("got %d messages", len(got))
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := group.Receive(testContext(t), 100); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := <-ended; !errors.Is(err, driver.ErrEnded) {
		t.Errorf("group: got %v, want ErrEnded", err)
	}
	if _, err := all.Receive(testContext(t), 1); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("got %v, want ErrEnded", err)
	}
}

// A drain ends also when the last message is not there any more, and when
// Receive waits already.
func TestDrainWithoutTheLastMessage(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", relaxed())
	publish(t, topic, "a", "b")
	stream, err := c.js.Stream(testContext(t), topicStream("t"))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(testContext(t), 2); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromLast, Seq: 1})
	if got := texts(receive(t, sub, 1)); got[0] != "a" {
		t.Errorf("got %v, want the newest that is there", got)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := sub.Receive(testContext(t), 1)
		ended <- err
	}()
	if err := sub.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, driver.ErrEnded) {
		t.Errorf("got %v, want ErrEnded", err)
	}
}

func TestPlaceOf(t *testing.T) {
	want := place{3, 7, 5, time.Unix(0, 1700000000000000000), 9}
	for _, reply := range []string{
		"$JS.ACK.s.c.3.7.5.1700000000000000000.9",
		"$JS.ACK._.hash.s.c.3.7.5.1700000000000000000.9.random",
		"$JS.ACK.domain.hash.s.c.3.7.5.1700000000000000000.9.random",
	} {
		if got, err := placeOf(reply); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", reply, got, err, want)
		}
	}
	for _, reply := range []string{"", "a.b", "$JS.ACK.s.c.3.7.5.x.9", "$JS.ACK.s.c.3.7.5"} {
		if _, err := placeOf(reply); err == nil {
			t.Errorf("%s: got no error", reply)
		}
	}
}

func TestDepthFor(t *testing.T) {
	for _, tt := range []struct{ size, want int }{{0, maxReadAhead}, {128, maxReadAhead}, {32 << 10, 128}, {8 << 20, minReadAhead}} {
		ms := []*nats.Msg{{Data: make([]byte, tt.size)}, {Data: make([]byte, tt.size)}}
		if got := depthFor(ms); got != tt.want {
			t.Errorf("of messages of %d bytes %d are on their way, want %d", tt.size, got, tt.want)
		}
	}
}

// Large messages behind many small ones come in order, too, though fewer of them are
// asked for at a time.
func TestLargeMessagesAreRead(t *testing.T) {
	s := startServer(t, withJetStream)
	out, in := openTopic(t, s.open(t), "t", relaxed()), openTopic(t, s.open(t), "t", relaxed())
	want := numbered(0, 3000)
	for _, text := range numbered(3000, 200) {
		want = append(want, text+strings.Repeat(" ", 64<<10))
	}
	publish(t, out, want...)
	sub := subscribe(t, in, driver.SubscribeConfig{From: driver.FromStart})
	if got := texts(receive(t, sub, len(want))); !slices.Equal(got, want) {
		t.Errorf("got %d messages, not those that were published in their order", len(got))
	}
}

// However large messages are, a subscription that does not keep up has only some of them
// sent to it.
func TestReadAheadIsBoundedInBytes(t *testing.T) {
	const n, size = 40, 512 << 10
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed()).(*stored)
	want := numbered(0, n)
	for i := range want {
		want[i] += strings.Repeat(" ", size)
	}
	publish(t, topic, want...)
	for name, cfg := range map[string]driver.SubscribeConfig{"alone": {From: driver.FromStart}, "group": {From: driver.FromStart, Group: "g"}} {
		sub := subscribe(t, topic, cfg)
		got, err := sub.Receive(testContext(t), 100)
		if err != nil {
			t.Fatal(err)
		}
		consumer := ""
		switch sub := sub.(type) {
		case *orderedConsumer:
			consumer = sub.name
		case *member:
			consumer = sub.consumer
		}
		eventually(t, name+": the server has sent what was asked for", func() bool {
			info, err := topic.consumerInfo(testContext(t), consumer)
			if err != nil {
				t.Fatal(err)
			}
			if sent := info.Delivered.Consumer; sent > 2*pullBytes/size {
				t.Fatalf("%s: %d messages of %d bytes were sent, want no more than %d bytes for each of two requests", name, sent, size, pullBytes)
			}
			return info.NumWaiting == 0
		})
		if got = append(got, receive(t, sub, n-len(got))...); !slices.Equal(texts(got), want) {
			t.Errorf("%s: got other messages than %d in order", name, n)
		}
	}
}

// What the server says beside messages does not count as messages that wait, and messages
// that have been counted are received in order.
func TestLagOfWhatHasArrived(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t), "t", relaxed())
	sub := subscribe(t, topic, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 8}).(*member)
	var got []string
	for n := range 40 {
		publish(t, topic, numbered(n, 1)...)
		rs := receive(t, sub, 1)
		if got = append(got, texts(rs)...); n%3 > 0 {
			publish(t, topic, "more "+got[n])
			eventually(t, "one waits", func() bool {
				lag, err := sub.Lag(testContext(t))
				return err == nil && lag.Waiting == 1
			})
			if text := texts(receive(t, sub, 1))[0]; text != "more "+got[n] {
				t.Fatalf("got %q after %q", text, got[n])
			}
		}
		if lag, err := sub.Lag(testContext(t)); err != nil || lag.Waiting != 0 {
			t.Fatalf("after %d messages: got %+v, %v, want none that wait", n+1, lag, err)
		}
	}
	if !slices.Equal(got, numbered(0, 40)) {
		t.Errorf("got %v", got)
	}
}

// A message that is larger than what is asked for together comes, too.
func TestVeryLargeMessagesAreRead(t *testing.T) {
	s := startServer(t, withJetStream, func(o *server.Options) { o.MaxPayload = 2 * pullBytes })
	topic := openTopic(t, s.open(t), "t", relaxed())
	want := numbered(0, 20)
	for i := range want {
		if i%5 > 2 {
			want[i] += strings.Repeat(" ", pullBytes)
		}
	}
	publish(t, topic, want...)
	for name, cfg := range map[string]driver.SubscribeConfig{
		"alone": {From: driver.FromStart}, "group": {From: driver.FromStart, Group: "g"}, "keyed": {From: driver.FromStart, Group: "k", Keyed: true},
	} {
		if got := texts(receive(t, subscribe(t, topic, cfg), len(want))); !slices.Equal(got, want) {
			t.Errorf("%s: got other messages than %d in order", name, len(want))
		}
	}
}

// TestDurabilityOfExistingTopic opens topics of each class with another one, and through
// a connection that cannot promise Strict.
func TestDurabilityOfExistingTopic(t *testing.T) {
	s := startServer(t, withSync)
	knows, asks := s.open(t, SyncAlways()), s.open(t)
	classes := []driver.Durability{driver.DurableStrict, driver.DurableRelaxed, driver.DurableMemory}
	for _, d := range classes {
		openTopic(t, knows, durabilities[d].name, &driver.StoredConfig{Durability: d})
	}
	for _, c := range []*Conn{knows, asks} {
		for _, d := range classes {
			for _, wanted := range classes[1:] {
				name := durabilities[d].name
				_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Durability: wanted}})
				if refused := errors.Is(err, driver.ErrConflict); refused != (d != wanted) || err != nil && !refused {
					t.Errorf("%s as %s: got %v, want it refused: %v", name, durabilities[wanted].name, err, d != wanted)
				}
				topic := openTopic(t, c, name, &driver.StoredConfig{Durability: wanted, AnyClass: true}).(*stored)
				if topic.wanted.Durability != max(d, wanted) {
					t.Errorf("%s as any: is used as %s", name, durabilities[topic.wanted.Durability].name)
				}
				if topic.batches() != (d == driver.DurableStrict || c == knows && d == driver.DurableRelaxed) {
					t.Errorf("%s: messages are gathered into batches: %v", name, topic.batches())
				}
			}
		}
	}
	_, err := asks.OpenTopic(testContext(t), driver.TopicConfig{Name: "strict", Stored: &driver.StoredConfig{MaxMessages: 3, AnyClass: true, Durability: driver.DurableRelaxed}})
	if !errors.Is(err, driver.ErrConflict) {
		t.Errorf("with another limit: got %v, want ErrConflict", err)
	}
	have := driver.StoredConfig{MaxMessages: 3, MaxAge: time.Hour, MaxBytes: 1 << 20, Durability: driver.DurableMemory}
	openTopic(t, asks, "limited", &have)
	if w := openTopic(t, asks, "limited", &driver.StoredConfig{MaxMessages: 7, AnyClass: true, Existing: true}).(*stored).wanted; w.MaxMessages != 3 || w.MaxAge != time.Hour || w.MaxBytes != 1<<20 || w.Durability != driver.DurableMemory {
		t.Errorf("taken as it is: would be created again as %+v, want %+v", w, have)
	}
}
