package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

func TestDelay(t *testing.T) {
	t.Parallel()
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
	awaitNothingDue(t, c)
}

func awaitNothingDue(t *testing.T, c *Conn) {
	t.Helper()
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

// delayedFor publishes a message that is due after d, or at once if that is 0.
func delayedFor(t *testing.T, topic driver.Topic, text string, d time.Duration) {
	t.Helper()
	m := &driver.Message{Data: []byte(text)}
	if d > 0 {
		m.Due = time.Now().Add(d)
	}
	if err := topic.Publish(testContext(t), []*driver.Message{m}); err != nil {
		t.Fatal(err)
	}
}

// TestDelayInMemory restarts the server of a topic in memory. Its stream is created
// again, and gets the messages that were and are delayed.
func TestDelayInMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t, withSync)
	c := s.open(t)
	topic := openTopic(t, c, "t", &driver.StoredConfig{Durability: driver.DurableMemory})
	for _, first := range []time.Duration{0, 10 * time.Millisecond} { // what creates it is delayed, or not
		delayedFor(t, topic, "before", 100*time.Millisecond)
		s.stop()
		s.start()
		c.due.mu.Lock()
		if first > 0 {
			clear(c.due.ready)
		}
		c.due.mu.Unlock()
		delayedFor(t, topic, "first", first)
		sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
		delayedFor(t, topic, "after", 100*time.Millisecond)
		got := texts(receive(t, sub, 3))
		if slices.Sort(got); !slices.Equal(got, []string{"after", "before", "first"}) {
			t.Errorf("got %v", got)
		}
		awaitNothingDue(t, c) // what the server has not noted as taken comes again
	}
}

// TestAlterWhileDelaying changes a topic at the moment at which another process delays
// the first of its messages.
func TestAlterWhileDelaying(t *testing.T) {
	s := startServer(t, withJetStream)
	other := openTopic(t, s.open(t), "t", relaxed())
	c := s.open(t)
	to := &stored{conn: c, topic: "t", backing: ownBacking("t"), wanted: *relaxed()}
	to.wanted.MaxMessages = 7
	if err := c.alter(testContext(t), to, func(*jetstream.StreamConfig) { delayedFor(t, other, "x", time.Millisecond) }); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, other, driver.SubscribeConfig{From: driver.FromStart})
	if got := texts(receive(t, sub, 1)); got[0] != "x" {
		t.Errorf("got %v", got)
	}
	if info, err := c.TopicInfo(testContext(t), "t"); err != nil || info.Config.MaxMessages != 7 {
		t.Errorf("got %+v, %v", info.Config, err)
	}
}

// TestAlterAndDelay changes topics while the same process delays the first of their
// messages.
func TestAlterAndDelay(t *testing.T) {
	t.Parallel()
	c := startServer(t, withJetStream).open(t)
	for i := range 30 {
		name := fmt.Sprint("t", i)
		topic := openTopic(t, c, name, relaxed())
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := c.AlterTopic(testContext(t), name, driver.StoredConfig{Durability: driver.DurableRelaxed, MaxMessages: 7}); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if err := topic.Publish(testContext(t), []*driver.Message{{Data: []byte("x"), Due: time.Now().Add(time.Millisecond)}}); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if info, err := c.TopicInfo(testContext(t), name); err != nil || info.Config.MaxMessages != 7 {
			t.Fatalf("%s: got %+v, %v", name, info.Config, err)
		}
		receive(t, subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}), 1)
	}
}

// deletedAfterDelay returns the topic t, which was deleted after a delayed message had
// come to it.
func deletedAfterDelay(t *testing.T, c *Conn) driver.Topic {
	t.Helper()
	topic := openTopic(t, c, "t", relaxed())
	arrivesDelayed(t, topic, "old")
	awaitNothingDue(t, c)
	if err := c.DeleteTopic(testContext(t), "t"); err != nil {
		t.Fatal(err)
	}
	return topic
}

// arrivesDelayed delays a message, and waits until it is the first of its topic.
func arrivesDelayed(t *testing.T, topic driver.Topic, text string) {
	t.Helper()
	delayedFor(t, topic, text, time.Millisecond)
	if got := texts(receive(t, subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}), 1)); got[0] != text {
		t.Errorf("got %v, want %s", got, text)
	}
}

// TestDelayIntoAnotherStream deletes a topic that another process then creates again.
// Messages that are delayed later come to it.
func TestDelayIntoAnotherStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := deletedAfterDelay(t, c)
	openTopic(t, s.open(t), "t", relaxed())
	c.due.mu.Lock()
	c.due.ready[topicStream("t")] = time.Now().Add(-dueKnown)
	c.due.mu.Unlock()
	arrivesDelayed(t, topic, "new")
}

// TestDelayIntoTopicCreatedAgain deletes a topic and creates it again in the same process.
// Messages that are delayed later come to it.
func TestDelayIntoTopicCreatedAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, withJetStream)
	c := s.open(t)
	deletedAfterDelay(t, c)
	arrivesDelayed(t, openTopic(t, c, "t", relaxed()), "new")
}

// TestDelayAfterDelete deletes a topic, which another process then creates again without
// the messages that become due.
func TestDelayAfterDelete(t *testing.T) {
	t.Parallel()
	c := startServer(t, withJetStream).open(t)
	topic := deletedAfterDelay(t, c)
	if _, err := c.js.CreateStream(testContext(t), topic.(*stored).streamConfig()); err != nil {
		t.Fatal(err)
	}
	arrivesDelayed(t, topic, "new")
}

// TestCreateWithoutDue creates topics in memory as a user who may not ask whether messages were
// delayed.
func TestCreateWithoutDue(t *testing.T) {
	s := startServer(t, withJetStream, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.INFO." + dueStream}},
		}}}
	})
	nc, err := nats.Connect(s.url(), nats.UserInfo("u", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	over, err := New(testContext(t), nc)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, over)
	for name, c := range map[string]*Conn{"own": s.openAs(t, "u"), "over": over} {
		openTopic(t, c, name, &driver.StoredConfig{Durability: driver.DurableMemory})
	}
}

// TestDelayWhileOthersWait has a publisher wait for a lost connection to delay the first
// message of a topic. Others that do so, or change a topic, wait no longer than they want.
func TestDelayWhileOthersWait(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", relaxed())
	publish := func(ctx context.Context) error {
		return topic.Publish(ctx, []*driver.Message{{Due: time.Now().Add(time.Hour)}})
	}
	alter := func(ctx context.Context) error {
		_, err := c.AlterTopic(ctx, "other", driver.StoredConfig{})
		return err
	}
	s.stop()
	long, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer giveUp()
	waiting.Go(func() {
		if err := publish(long); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	for range 2 {
		awaitTooLate(t, "publish", publish)
		awaitTooLate(t, "alter", alter)
	}
}

// TestReconfigureInTurn has another call change the configuration of a stream for longer
// than callers want to wait.
func TestReconfigureInTurn(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	c.configuring <- struct{}{}
	awaitTooLate(t, "publish", func(ctx context.Context) error {
		return topic.Publish(ctx, []*driver.Message{{Due: time.Now().Add(time.Hour)}})
	})
	awaitTooLate(t, "alter", func(ctx context.Context) error {
		_, err := c.AlterTopic(ctx, "t", *relaxed())
		return err
	})
	<-c.configuring
	delayedFor(t, topic, "x", time.Millisecond)
	receive(t, subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart}), 1)
}

// TestAlteredHalfway ends the context of a call that has changed a topic, before it has
// made sure of what is delayed to it.
func TestAlteredHalfway(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openTopic(t, c, "t", relaxed())
	to := relaxed()
	to.MaxMessages = 7
	turns := c.configuring
	c.configuring = make(chan struct{}) // gives turns while somebody receives
	ctx, cancel := context.WithCancel(testContext(t))
	given := make(chan struct{})
	go func() {
		defer close(given)
		defer cancel()
		<-c.configuring             // the first turn begins
		c.configuring <- struct{}{} // and ends
	}()
	_, err := c.AlterTopic(ctx, "t", *to)
	if !errors.Is(err, ErrAltered) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrAltered and the cause", err)
	}
	<-given
	c.configuring = turns
	info, err := c.TopicInfo(testContext(t), "t")
	if err != nil || info.Config.MaxMessages != 7 {
		t.Errorf("got %+v, %v, want 7 messages", info.Config, err)
	}
	if before, err := c.AlterTopic(testContext(t), "t", *to); err != nil || before.MaxMessages != 7 {
		t.Errorf("repeated: got %+v, %v", before, err)
	}
}

// unanswered calls meanwhile after the first change of a stream's configuration, and
// loses the answer, or fails with refusal instead if that is not nil.
type unanswered struct {
	jetstream.JetStream
	refusal   error
	meanwhile func()
}

func (u *unanswered) UpdateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	meanwhile := u.meanwhile
	if u.meanwhile = nil; meanwhile == nil {
		return u.JetStream.UpdateStream(ctx, cfg)
	}
	err := u.refusal
	if err == nil {
		_, err = u.JetStream.UpdateStream(ctx, cfg)
	}
	meanwhile()
	if err != nil {
		return nil, err
	}
	return nil, jetstream.ErrNoStreamResponse // one of the errors after which it is tried again
}

// TestAlterWhoseAnswerIsLost loses the answer of the server that has changed a topic, or a
// store. Another attempt finds the new settings, but these are not the former ones.
func TestAlterWhoseAnswerIsLost(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	was, to := relaxed(), relaxed()
	was.MaxMessages, to.MaxMessages = 3, 7
	openTopic(t, c, "t", was)
	if _, err := c.OpenStore(testContext(t), StoreConfig{Pattern: "s.*", MaxPerTopic: 1, StoredConfig: *was}); err != nil {
		t.Fatal(err)
	}
	js := c.js
	lose := func(meanwhile func()) { c.js = &unanswered{JetStream: js, meanwhile: meanwhile} }
	lose(func() {})
	if before, err := c.AlterTopic(testContext(t), "t", *to); err != nil || before.MaxMessages != 3 {
		t.Errorf("topic: got %+v, %v, want 3 messages", before, err)
	}
	lose(func() {})
	if before, err := c.AlterStore(testContext(t), StoreConfig{Pattern: "s.*", MaxPerTopic: 2, StoredConfig: *to}); err != nil || before.MaxMessages != 3 || before.MaxPerTopic != 1 {
		t.Errorf("store: got %+v, %v, want 3 messages and 1 for each topic", before, err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	lose(cancel)
	before, err := c.AlterTopic(ctx, "t", *was)
	if !errors.Is(err, driver.ErrUnsure) || !errors.Is(err, context.Canceled) || before.MaxMessages != 7 {
		t.Errorf("given up: got %+v, %v, want 7 messages, ErrUnsure and the cause", before, err)
	}
	// An attempt that was refused has changed nothing, so what others changed since counts.
	c.js = &unanswered{JetStream: js, refusal: &jetstream.APIError{Code: 503, ErrorCode: notAvailable}, meanwhile: func() {
		others := relaxed()
		others.MaxMessages = 5
		cfg := (&stored{conn: c, topic: "t", backing: ownBacking("t"), wanted: *others}).streamConfig()
		if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
			t.Error(err)
		}
	}}
	if before, err := c.AlterTopic(testContext(t), "t", *to); err != nil || before.MaxMessages != 5 {
		t.Errorf("after a refusal: got %+v, %v, want 5 messages", before, err)
	}
	c.js = js
}

// awaitTooLate calls f with a context that soon ends, and expects its cause.
func awaitTooLate(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	tooLate := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, tooLate)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, tooLate) {
			t.Errorf("%s: got %v", what, err)
		}
	case <-testContext(t).Done():
		t.Fatalf("%s has not returned", what)
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
