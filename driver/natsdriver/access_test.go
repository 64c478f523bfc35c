package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// withAccess has a user who may do everything and others with some permissions.
func withAccess(all ...Access) serverOption {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "all", Password: "secret"}}
		for _, a := range all {
			publish, subscribe := a.Subjects()
			o.Users = append(o.Users, &server.User{Username: a.User, Password: "secret", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
				Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
			}})
		}
	}
}

// startWithRoles starts a server with a stored topic, own, and users who may write it,
// read it, and do neither.
func startWithRoles(t *testing.T) *testServer {
	t.Helper()
	s := startServer(t, withJetStream, withAccess(
		Access{User: "writer", Publish: []string{"own", "ask"}, Writes: []string{"own"}},
		Access{User: "reader", Subscribe: []string{"own", "ask"}, Reads: []string{"own"}},
		Access{User: "stranger", Publish: []string{"other"}, Subscribe: []string{"other"}},
	))
	all := s.openAs(t, "all")
	openTopic(t, all, "own", relaxed())
	if err := all.PrepareGroups(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNoteDead has users note topics for dead letters: before somebody has made what is needed
// for it, where it has no effect, afterwards, and for a topic of which they may not say it.
func TestNoteDead(t *testing.T) {
	s := startWithRoles(t)
	all := s.openAs(t, "all")
	dead := func(user string) {
		t.Helper()
		c := s.openAs(t, user)
		if _, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "own", Stored: &driver.StoredConfig{Existing: true, DeadLetters: true}}); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		if got, _, err := all.TopicNames(testContext(t), TopicQuery{Dead: true, Limit: 10}); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	dead("writer")
	check()
	if err := all.PrepareDeadLetters(testContext(t)); err != nil {
		t.Fatal(err)
	}
	dead("reader")
	check()
	dead("writer")
	check("own")
}

// existing opens the stored topic own.
func existing(ctx context.Context, c *Conn) (driver.Topic, error) {
	return c.OpenTopic(ctx, driver.TopicConfig{Name: "own", Stored: &driver.StoredConfig{Existing: true}})
}

// A user who may not ask what JetStream can do hears so when it connects.
func TestOpenIsNotAllowed(t *testing.T) {
	s := startServer(t, withJetStream, func(o *server.Options) {
		o.Users = []*server.User{{Username: "plain", Password: "secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"orders"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	refused := make(chan error, 10)
	nc, err := nats.Connect(s.url(), nats.UserInfo("plain", "secret"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for name, connect := range map[string]func() (*Conn, error){
		"Open": func() (*Conn, error) {
			return Open(testContext(t), strings.Replace(s.url(), "://", "://plain:secret@", 1))
		},
		"New":       func() (*Conn, error) { return New(testContext(t), nc) },
		"New again": func() (*Conn, error) { return New(testContext(t), nc) },
	} {
		begin := time.Now()
		_, err := connect()
		if want := `Publish to "$JS.API.INFO"`; !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that names %s", name, err, want)
		}
		if took := time.Since(begin); took >= detectTimeout {
			t.Errorf("%s took %v", name, took)
		}
	}
	for range 2 { // the caller's handler hears of it too
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("the handler got %v", err)
			}
		case <-time.After(patience):
			t.Error("the handler was not called")
		}
	}
}

// What a user is not permitted is an error that names the subject, as soon as the server
// has said so: nothing here ends an attempt that waits for an answer, except the test.
func TestNotAllowed(t *testing.T) {
	s := startWithRoles(t)
	publish := func(ms ...*driver.Message) func(context.Context, *Conn) error {
		return func(ctx context.Context, c *Conn) error {
			topic, err := existing(ctx, c)
			if err != nil {
				return err
			}
			return topic.Publish(ctx, ms)
		}
	}
	join := func(cfg driver.SubscribeConfig) func(context.Context, *Conn) error {
		return func(ctx context.Context, c *Conn) error {
			topic, err := existing(ctx, c)
			if err == nil {
				_, err = topic.Subscribe(ctx, cfg)
			}
			return err
		}
	}
	for _, tt := range []struct {
		feature, user, want string
		try                 func(ctx context.Context, c *Conn) error
	}{
		{"open a stored topic", "stranger", `Publish to "$JS.API.STREAM.INFO.hark-topic-own"`, func(ctx context.Context, c *Conn) error {
			_, err := existing(ctx, c)
			return err
		}},
		{"make a stored topic", "stranger", `Publish to "$JS.API.STREAM.INFO.hark-topic-new"`, func(ctx context.Context, c *Conn) error {
			_, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "new", Stored: relaxed()})
			return err
		}},
		{"publish to a stored topic", "reader", `Publish to "own"`, publish(bare("a")...)},
		{"publish several", "reader", `Publish to "own"`, publish(bare("a", "b", "c")...)},
		{"publish with a key", "reader", `Publish to "$HARK.k.own.`, publish(ofKey("a")...)},
		{"follow", "writer", `Publish to "$JS.API.CONSUMER.CREATE.hark-topic-own.`, join(driver.SubscribeConfig{Window: 1})},
		{"join a group", "writer", `Publish to "$JS.API.CONSUMER.INFO.hark-topic-own.g"`, join(driver.SubscribeConfig{Group: "g", Window: 1})},
		{"join a keyed group", "writer", `Publish to "$JS.API.CONSUMER.INFO.hark-topic-own.g"`, join(driver.SubscribeConfig{Group: "g", Keyed: true, Window: 1})},
		{"subscribe", "stranger", `Subscription to "own"`, func(ctx context.Context, c *Conn) error {
			_, err := openTopic(t, c, "own", nil).Subscribe(ctx, driver.SubscribeConfig{Window: 1})
			return err
		}},
		{"subscribe to a pattern", "stranger", `(subscribe to own.*): nats: permissions violation`, func(ctx context.Context, c *Conn) error {
			_, err := c.SubscribePattern(ctx, "own.*", driver.SubscribeConfig{Window: 1})
			return err
		}},
		{"request", "stranger", `Publish to "ask"`, func(ctx context.Context, c *Conn) error {
			_, err := c.Request(ctx, "ask", &driver.Message{Data: []byte("a")})
			return err
		}},
		{"answer", "stranger", `Subscription to "ask"`, func(ctx context.Context, c *Conn) error {
			_, err := c.Respond(ctx, "ask", 1)
			return err
		}},
		{"open a channel", "stranger", `Publish to "$JS.API.STREAM.INFO.hark-chan-jobs"`, func(ctx context.Context, c *Conn) error {
			_, err := c.OpenChan(ctx, driver.ChanConfig{Name: "jobs", Capacity: 1, Durability: driver.DurableRelaxed})
			return err
		}},
		{"open a value", "stranger", `Publish to "$JS.API.STREAM.INFO.hark-values"`, func(ctx context.Context, c *Conn) error {
			_, err := c.OpenValue(ctx, "v", []byte("1"))
			return err
		}},
		{"listen", "stranger", `Subscription to "$HARK.`, func(ctx context.Context, c *Conn) error {
			return c.Listen(ctx, func(driver.Signal) int { return 0 })
		}},
	} {
		t.Run(tt.feature, func(t *testing.T) {
			t.Parallel()
			c := s.openAs(t, tt.user)
			c.state.retry.firstAttempt = time.Hour
			err := tt.try(testContext(t), c)
			if !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want an error that names %s", tt.user, err, tt.want)
			}
		})
	}
	t.Run("publish", func(t *testing.T) { // for which nothing is waited
		c := s.openAs(t, "stranger")
		topic := openTopic(t, c, "own", nil)
		var err error
		eventually(t, "it is refused", func() bool { err = topic.Publish(testContext(t), bare("a")); return err != nil })
		if !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), `Publish to "own"`) {
			t.Errorf("got %v", err)
		}
		if err := openTopic(t, c, "other", nil).Publish(testContext(t), bare("a")); err != nil {
			t.Errorf("to another topic: %v", err)
		}
	})
}

// What is refused to one call does not end others that wait on the same connection.
func TestOthersGoOnWaiting(t *testing.T) {
	s := startWithRoles(t)
	answers, err := s.openAs(t, "reader").Respond(testContext(t), "ask", 1)
	if err != nil {
		t.Fatal(err)
	}
	c := s.openAs(t, "writer")
	got := make(chan error, 1)
	go func() {
		_, err := c.Request(testContext(t), "ask", &driver.Message{Data: []byte("a")})
		got <- err
	}()
	calls, err := answers.Receive(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := c.OpenValue(testContext(t), "v", nil); !errors.Is(err, ErrNotAllowed) {
			t.Fatalf("got %v", err)
		}
	}
	if err := calls[0].Answer(testContext(t), &driver.Message{Data: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("request: %v", err)
	}
}

// TestAllowed does what users may do who may write and read a stored topic.
func TestAllowed(t *testing.T) {
	s := startWithRoles(t)
	writer, reader := s.openAs(t, "writer"), s.openAs(t, "reader")
	out, err1 := existing(testContext(t), writer)
	in, err2 := existing(testContext(t), reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	var subs []driver.Subscription
	for _, cfg := range []driver.SubscribeConfig{
		{From: driver.FromStart}, {Group: "plain", From: driver.FromStart}, {Group: "keyed", Keyed: true, From: driver.FromStart},
	} {
		subs = append(subs, subscribe(t, in, cfg))
	}
	for round := range 2 {
		if err := errors.Join(out.Publish(testContext(t), bare("a")), out.Publish(testContext(t), ofKey("b", "c"))); err != nil {
			t.Fatal(err)
		}
		for i, sub := range subs {
			rs := receive(t, sub, 3)
			got := texts(rs)
			if slices.Sort(got); fmt.Sprint(got) != "[a b c]" {
				t.Errorf("round %d, subscription %d: got %v", round, i, got)
			}
			if err := sub.Ack(testContext(t), rs[:2]); err != nil { // the rest is in flight when the connection is lost
				t.Error(err)
			}
			if _, err := sub.Lag(testContext(t)); err != nil {
				t.Errorf("lag of subscription %d: %v", i, err)
			}
			defer func() {
				if err := sub.Ack(testContext(t), rs[2:]); err != nil {
					t.Error(err)
				}
			}()
		}
		if err := reader.nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
	}
	// The group may be left and joined by others.
	if err := subs[2].Close(testContext(t)); err != nil {
		t.Error(err)
	}
	subscribe(t, in, driver.SubscribeConfig{Group: "keyed", Keyed: true, From: driver.FromStart})
}

// Users may be members of the groups of the topics that they read, and of no others.
func TestRosterSubjects(t *testing.T) {
	s := startServer(t, withJetStream, withAccess(
		Access{User: "a", Subscribe: []string{"a"}, Reads: []string{"a"}},
		Access{User: "below", Subscribe: []string{"a.>"}, Reads: []string{"a.>"}},
		Access{User: "star", Subscribe: []string{"*.b"}, Reads: []string{"*.b"}},
	))
	if err := s.openAs(t, "all").PrepareGroups(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for user, topics := range map[string]string{"a": "a", "below": "a.b a.b.c", "star": "a.b c.b"} {
		c := s.openAs(t, user)
		for _, topic := range []string{"a", "b", "a.b", "a.b.c", "c.b", "c"} {
			if err := errors.Join(c.nc.Publish(rosterOf(topic, "g"), nil), c.Flush(testContext(t))); err != nil {
				t.Fatal(err)
			}
			said := c.nc.LastError() // the server complains before it answers
			allowed := said == nil || !strings.Contains(said.Error(), rosterOf(topic, "g"))
			if want := slices.Contains(strings.Fields(topics), topic); allowed != want {
				t.Errorf("%s and the groups of %s: allowed %v, want %v", user, topic, allowed, want)
			}
		}
	}
}
