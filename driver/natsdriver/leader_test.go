package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// TestAnswersWithoutLeader asks for a topic while the servers that keep it elect a
// leader, and the one that answers has none of its messages yet.
func TestAnswersWithoutLeader(t *testing.T) {
	s := startServer(t, withJetStream)
	between := s.open(t).Client()
	var election atomic.Int32 // how many answers come from a server without a leader
	sub, err := between.Subscribe("$JS.far.API.>", func(m *nats.Msg) {
		to := "$JS.API." + strings.TrimPrefix(m.Subject, "$JS.far.API.")
		if !strings.HasPrefix(to, "$JS.API.STREAM.INFO.") || election.Load() == 0 {
			if err := between.PublishMsg(&nats.Msg{Subject: to, Reply: m.Reply, Header: m.Header, Data: m.Data}); err != nil {
				t.Error(err)
			}
			return
		}
		election.Add(-1)
		answer, err := between.Request(to, m.Data, patience)
		var info map[string]any
		if err == nil {
			err = json.Unmarshal(answer.Data, &info)
		}
		info["cluster"] = map[string]any{"name": "far"}
		info["state"] = map[string]any{}
		delete(info, "total") // of its subjects
		data, _ := json.Marshal(info)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = between.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	c, err := Open(testContext(t), s.url()+"?domain=far")
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, c)
	topic := openTopic(t, c, "t", relaxed())
	if err := topic.Publish(testContext(t), []*driver.Message{{}, {}, {}}); err != nil {
		t.Fatal(err)
	}
	election.Store(2)
	if have, err := topic.Stats(testContext(t)); err != nil || have.Stored != 3 {
		t.Errorf("%d messages stored (%v), want 3", have.Stored, err)
	}
	if left := election.Load(); left != 0 {
		t.Errorf("%d answers without a leader were left: this tests nothing", left)
	}
	election.Store(2)
	if first, err := topic.(*stored).newest(testContext(t), 2); err != nil || first != 2 {
		t.Errorf("the second newest is %d (%v), want 2", first, err)
	}
	election.Store(3)
	names, err := c.streamSubjects(testContext(t), "hark-topic-t", "", "")
	if err != nil || len(names) != 1 {
		t.Errorf("subjects %q (%v), want one", names, err)
	}
}

// TestNoLeader connects to a cluster without a leader, and asks it for a topic.
func TestNoLeader(t *testing.T) {
	s := startServer(t, withJetStream)
	between := s.open(t).Client()
	refuse := func(m *nats.Msg) {
		if err := m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`)); err != nil {
			t.Error(err)
		}
	}
	asked := make(chan struct{}, 1)
	sub, err := between.Subscribe("$JS.far.API.>", func(m *nats.Msg) {
		refuse(m)
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	if err == nil {
		err = between.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	go func() {
		<-asked
		<-asked // it has got the first answer
		cancel()
	}()
	if c, err := Open(ctx, s.url()+"?domain=far"); !errors.Is(err, ErrNoLeader) {
		t.Errorf("opening: %v, want ErrNoLeader", err)
		if err == nil {
			closeConn(t, c)
		}
	}
}
