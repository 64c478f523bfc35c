package natsdriver

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// withUsers configures a user who may do everything, and one who may use the topic
// s.a of the store s.> and the stored topic own.
func withUsers(o *server.Options) {
	access := Access{User: "part", Publish: []string{"s.a", "own"}, Subscribe: []string{"s.a", "own"}, Writes: []string{"own"}, Reads: []string{"own"}}
	publish, subscribe := access.Subjects()
	o.Users = []*server.User{{Username: "all", Password: "secret"}, {Username: "part", Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
	}}}
}

func (s *testServer) openAs(t *testing.T, user string) *Conn {
	t.Helper()
	c, err := Open(testContext(t), strings.Replace(s.url(), "//", "//"+user+":secret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	return c
}

// TestWhereComesLate lets clients ask where a topic is before a broker answers, as
// happens while it starts, and checks that they open the topic once it does.
func TestWhereComesLate(t *testing.T) {
	s := startServer(t, withJetStream, withUsers)
	all := s.openAs(t, "all")
	openStore(t, all, StoreConfig{Pattern: "s.>"})
	openTopic(t, all, "own", relaxed())
	open := func(c *Conn, topic string) error {
		_, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: topic, Stored: &driver.StoredConfig{Existing: true}})
		return err
	}
	refused, served := s.openAs(t, "part"), s.openAs(t, "part")
	for _, c := range []*Conn{refused, served} {
		c.state.retry.firstAttempt = time.Hour // nothing waits that long
	}
	if err := open(refused, "s.a"); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("without a broker: got %v", err)
	}
	if err := open(served, "own"); err != nil {
		t.Errorf("without a broker: %v", err)
	}
	err := all.ServeLocations(func(user, topic string) *TopicLocation {
		if user != "part" || topic != "s.a" {
			return nil
		}
		at, err := all.StoreLocation(t.Context(), "s.>")
		if err != nil {
			t.Error(err)
		}
		return at
	})
	if err := errors.Join(err, all.Flush(testContext(t))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Conn{refused, served} {
		if err := open(c, "s.a"); err != nil {
			t.Errorf("with a broker: %v", err)
		}
	}
}

// TestWhereIsAnsweredToUsers checks that a client cannot direct answers anywhere
// but to an inbox.
func TestWhereIsAnsweredToUsers(t *testing.T) {
	s := startServer(t, withJetStream, withUsers)
	all := s.openAs(t, "all")
	if err := all.ServeLocations(func(string, string) *TopicLocation { return &TopicLocation{Whole: true} }); err != nil {
		t.Fatal(err)
	}
	got := make(chan *nats.Msg, 10)
	nc := all.Client()
	for _, subject := range []string{"part.>", InboxPrefix("part") + ".>"} {
		if _, err := nc.ChanSubscribe(subject, got); err != nil {
			t.Fatal(err)
		}
	}
	for _, reply := range []string{"part.x", InboxPrefix("part") + ".x"} {
		if err := nc.PublishRequest(locatePrefix+"s.a", reply, nil); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case m := <-got:
		if m.Subject != InboxPrefix("part")+".x" {
			t.Errorf("the answer went to %s", m.Subject)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}
