package natsdriver

import (
	"bytes"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// A server of a cluster may not know yet who has the stream for the names of topics
// for dead letters, which was just made. Then a topic is noted a little later.
func TestDeadLettersAreNotedLater(t *testing.T) {
	c, ctx := startServer(t, withJetStream).open(t), testContext(t)
	openTopic(t, c, "t", relaxed())
	cfg := jetstream.StreamConfig{Name: deadStream, Subjects: []string{"elsewhere"}} // nobody answers at those to come
	if _, err := c.js.CreateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	calls := make(chan *nats.Msg, 1000)
	if _, err := c.Client().ChanSubscribe("$JS.EVENT.ADVISORY.API", calls); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		existing := driver.StoredConfig{Durability: driver.DurableRelaxed, Existing: true, DeadLetters: true}
		_, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "t", Stored: &existing})
		opened <- err
	}()
	for asked := 0; asked < 2; {
		select {
		case m := <-calls:
			if bytes.Contains(m.Data, []byte(`STREAM.INFO.`+deadStream)) {
				asked++
			}
		case err := <-opened:
			t.Fatalf("opened with %v before it was noted", err)
		case <-ctx.Done():
			t.Fatalf("the stream was asked for %d times, want 2", asked)
		}
	}
	cfg.Subjects = []string{deadNotePrefix + ">"}
	stream, err := c.js.UpdateStream(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(ctx); err != nil || info.State.Msgs != 1 {
		t.Errorf("%+v (%v), want one topic noted", info, err)
	}
}
