package broker

import (
	"slices"
	"testing"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestAdminTwice removes what has already been removed, as happens after a crash.
func TestAdminTwice(t *testing.T) {
	b := start(t, config(t, "topics: [{name: a}]"))
	publishTo(t, storedTopic(t, b.conn, "a"), &driver.Message{Data: []byte("1")}, &driver.Message{Data: []byte("2")})
	ctx := testContext(t)
	for range 2 {
		for what, err := range map[string]error{
			"message":            b.conn.DeleteMessage(ctx, "a", 1),
			"group":              b.conn.DeleteGroup(ctx, "a", "g"),
			"place of the group": b.conn.ResetGroup(ctx, "a", "g"),
			"group of no topic":  b.conn.ResetGroup(ctx, "none", "g"),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if s := stats(t, storedTopic(t, b.conn, "a")); s.Stored != 1 || s.First != 2 {
		t.Errorf("got %+v, want message 2 alone", s)
	}
	for range 2 {
		if err := b.conn.DeleteTopic(ctx, "a"); err != nil {
			t.Error(err)
		}
	}
}

// TestPatternsOfStoredTopics checks that a pattern does not receive messages of the
// topic above it that have a key, and so other subjects.
func TestPatternsOfStoredTopics(t *testing.T) {
	b := start(t, config(t, "topics: [{name: a}, {name: a.b}]"))
	c := dial(t, b, "")
	sub := listen(t, c, "a.>")
	publishTo(t, storedTopic(t, c, "a"), keyed(1, "k", `"above"`))
	publishTo(t, storedTopic(t, c, "a.b"), keyed(2, "k", `"below"`))
	if m := receive(t, sub, 1)[0]; m.Topic != "a.b" || string(m.Data) != `"below"` {
		t.Errorf("got %s on %s, want what is on a.b", m.Data, m.Topic)
	}
}

// TestDeadLettersAreDeclared declares an existing topic as one for dead letters.
func TestDeadLettersAreDeclared(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, configIn(t, dir, "topics: [{name: failed}, {name: other}]")))
	b := start(t, configIn(t, dir, "topics: [{name: failed, dead_letters: true}, {name: other}]"))
	names, _, err := b.conn.TopicNames(testContext(t), natsdriver.TopicQuery{Dead: true, Limit: 10})
	if err != nil || !slices.Equal(names, []string{"failed"}) {
		t.Errorf("got %v, %v, want failed", names, err)
	}
	stop(t, b)
	start(t, configIn(t, dir, "topics: [{name: failed, dead_letters: true}]"))
}
