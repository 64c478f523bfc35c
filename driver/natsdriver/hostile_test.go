package natsdriver

import (
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
)

// These tests send what no connection of hark sends to subjects that connections
// subscribe to, as any client of the server may.

// say sends messages from another client, and returns once the server has them.
func (s *testServer) say(t *testing.T, ms ...*nats.Msg) {
	t.Helper()
	nc, err := nats.Connect(s.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, m := range ms {
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestGroupOutlivesOthersRosters(t *testing.T) {
	s := startServer(t, withJetStream)
	topic := openTopic(t, s.open(t, Lease(testLease)), "t", relaxed())
	sub := joinKeyed(t, topic)
	for i, roster := range []string{"", "x", "null", `{"members":null}`, `{"members":{},"slots":null}`, `{"slots":[{"owner":"x","left":[1,2]}]}`, `{"members":{"":1},"slots":[{}]}`, "[]"} {
		s.say(t, &nats.Msg{Subject: rosterOf("t", "g"), Data: []byte(roster)})
		text := strconv.Itoa(i)
		if err := topic.Publish(testContext(t), ofKey(text)); err != nil {
			t.Fatal(err)
		}
		for {
			r := receive(t, sub, 1)
			if err := sub.Ack(testContext(t), r); err != nil {
				t.Fatal(err)
			}
			if string(r[0].Data) == text {
				break
			}
		}
	}
}
