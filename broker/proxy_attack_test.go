package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// proxyUsers are an attacker, some victims, and a user who sees everything.
func proxyUsers(victims int) string {
	var s strings.Builder
	s.WriteString("topics:\n  - {name: mine, durability: relaxed}\n")
	for i := range victims {
		fmt.Fprintf(&s, "  - {name: victim%d}\n", i)
	}
	fmt.Fprintf(&s, `users:
  - {name: eve, token: %q, publish: [mine, ask], subscribe: [mine, seen]}
  - {name: bob, token: %q, publish: [mine], subscribe: [mine, ask]}
  - {name: all, token: %q, publish: ">", subscribe: ">"}
`, HashToken("secret-eve"), HashToken("secret-bob"), HashToken("secret-all"))
	return s.String()
}

// TestWhereAnswersGo lets a user try every way to make somebody else publish where
// the user may not, and where it does harm. Each of them works on a server without
// the proxy.
func TestWhereAnswersGo(t *testing.T) {
	const api = "$JS.API."
	stream := func(victim string) string { return "hark-topic-" + victim }
	consumer := func(nc *nats.Conn, name, policy, more string) error {
		return request(nc, api+"CONSUMER.CREATE."+stream("mine")+"."+name,
			fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"ack_policy":"explicit","deliver_policy":%q,"inactive_threshold":60000000000%s}}`, stream("mine"), name, policy, more))
	}
	pull := func(nc *nats.Conn, name, policy, to string) error { // has the next message of mine, or the notice that there is none, sent to a subject
		return errors.Join(consumer(nc, name, policy, ""), nc.PublishRequest(api+"CONSUMER.MSG.NEXT."+stream("mine")+"."+name, to, []byte(`{"batch":1,"no_wait":true}`)))
	}
	push := func(nc *nats.Conn, name, to string) error { // has the last message of mine sent to a subject
		return nc.PublishRequest(api+"CONSUMER.CREATE."+stream("mine")+"."+name, nc.NewInbox(),
			fmt.Appendf(nil, `{"stream_name":%q,"config":{"name":%q,"ack_policy":"none","deliver_policy":"last","deliver_subject":%q,"inactive_threshold":60000000000}}`, stream("mine"), name, to))
	}
	batch := func(nc *nats.Conn, to string) error { // is acknowledged with an empty message until the batch is complete
		return nc.PublishMsg(&nats.Msg{Subject: "mine", Reply: to, Header: nats.Header{"Nats-Batch-Id": {to[len(to)-8:]}, "Nats-Batch-Sequence": {"1"}}})
	}
	attacks := []struct {
		name string
		do   func(nc *nats.Conn, victim string) error
		harm string // where nothing must arrive; empty for a victim that must not change
	}{
		{name: "delete, answered to a batch", do: func(nc *nats.Conn, victim string) error { return batch(nc, api+"STREAM.DELETE."+stream(victim)) }},
		{name: "purge, answered to a batch", do: func(nc *nats.Conn, victim string) error { return batch(nc, api+"STREAM.PURGE."+stream(victim)) }},
		{name: "delete a group, answered to a batch", do: func(nc *nats.Conn, victim string) error {
			return batch(nc, api+"CONSUMER.DELETE."+stream(victim)+".group")
		}},
		{name: "delete, by there being no message", do: func(nc *nats.Conn, victim string) error {
			return pull(nc, "delete-"+victim, "new", api+"STREAM.DELETE."+stream(victim))
		}},
		{name: "purge, by there being no message", do: func(nc *nats.Conn, victim string) error {
			return pull(nc, "purge-"+victim, "new", api+"STREAM.PURGE."+stream(victim))
		}},
		{name: "delete, by an acknowledgement that asks for the next", do: func(nc *nats.Conn, victim string) error {
			name := "next-" + victim
			return errors.Join(consumer(nc, name, "new", ""),
				nc.PublishRequest("$JS.ACK."+stream("mine")+"."+name+".1.1.1.1.0", api+"STREAM.DELETE."+stream(victim), []byte(`+NXT {"batch":1,"no_wait":true}`)))
		}},
		{name: "an acknowledgement on the topic of others", harm: "secret", do: func(nc *nats.Conn, _ string) error {
			return nc.PublishRequest("mine", "secret", nil)
		}},
		{name: "a stored message on the topic of others", harm: "secret", do: func(nc *nats.Conn, victim string) error {
			return pull(nc, "topic-"+victim, "last", "secret")
		}},
		{name: "a stored message on the topic of others, pushed", harm: "secret", do: func(nc *nats.Conn, victim string) error {
			return push(nc, "topic-"+victim, "secret")
		}},
		{name: "a stored message on the topic of others, pushed, and said in two pieces", harm: "secret", do: func(nc *nats.Conn, victim string) error {
			name := "pieces-" + victim
			return nc.PublishRequest(api+"CONSUMER.CREATE."+stream("mine")+"."+name, nc.NewInbox(), fmt.Appendf(nil,
				`{"stream_name":%q,"config":{"name":%q,"ack_policy":"none","deliver_policy":"last","inactive_threshold":60000000000}} {"CONFIG":{"Deliver_\u0053ubject":"secret"}}`, stream("mine"), name))
		}},
		{name: "something on a topic that the user may only read", harm: "seen", do: func(nc *nats.Conn, _ string) error {
			return nc.PublishRequest("mine", "seen", nil)
		}},
		{name: "an answer to the request of somebody else", harm: "_INBOX.bob.1.2", do: func(nc *nats.Conn, _ string) error {
			return nc.PublishRequest("mine", "_INBOX.bob.1.2", nil)
		}},
		{name: "the answer of somebody who may do more", harm: "secret", do: func(nc *nats.Conn, _ string) error {
			return nc.PublishRequest("ask", "secret", nil)
		}},
	}
	b := start(t, config(t, proxyUsers(len(attacks))))
	all := connectAs(t, b, "all", nil)
	js := jetStreamOf(t, all)
	if _, err := all.Subscribe("ask", func(m *nats.Msg) { _ = m.Respond([]byte("answer")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("mine", []byte("lies")); err != nil {
		t.Fatal(err)
	}
	for i, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			victim := fmt.Sprint("victim", i)
			for range 2 {
				if _, err := js.Publish(victim, []byte("precious")); err != nil {
					t.Fatal(err)
				}
			}
			if err := request(all, api+"CONSUMER.CREATE."+stream(victim)+".group", fmt.Sprintf(`{"stream_name":%q,"config":{"durable_name":"group","name":"group","ack_policy":"explicit"}}`, stream(victim))); err != nil {
				t.Fatal(err)
			}
			harmed := make(chan *nats.Msg, 1)
			if attack.harm != "" {
				sub, err := all.ChanSubscribe(attack.harm, harmed)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = sub.Unsubscribe() }()
				if err := all.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			refused := make(chan error, 8)
			eve := connectAs(t, b, "eve", func(err error) { refused <- err })
			if err := errors.Join(attack.do(eve, victim), eve.FlushTimeout(patience)); err != nil && !eve.IsClosed() && eve.IsConnected() {
				t.Fatal(err)
			}
			ctx, looking := testContext(t), time.NewTicker(20*time.Millisecond)
			defer looking.Stop()
			for {
				select {
				case err := <-refused:
					if errors.Is(err, nats.ErrPermissionViolation) && !strings.Contains(err.Error(), "with Reply of") {
						t.Errorf("got %v, want it to be about the reply", err)
					}
					// The server has processed what it refused. Any earlier effect
					// is visible by then.
					if what := harm(t, all, victim); what != "" {
						t.Error(what)
					}
					select {
					case m := <-harmed:
						t.Errorf("%q is published to %s", m.Data, m.Subject)
					default:
					}
					return
				case m := <-harmed:
					t.Fatalf("%q is published to %s", m.Data, m.Subject)
				case <-looking.C:
					if what := harm(t, all, victim); what != "" {
						t.Fatal(what)
					}
				case <-ctx.Done():
					t.Fatal("nothing is refused")
				}
			}
		})
	}
}

// connectAs connects a plain NATS client. fault is told about errors of the
// connection, and refusals of the server.
func connectAs(t *testing.T, b *Broker, user string, fault func(error)) *nats.Conn {
	t.Helper()
	if fault == nil {
		fault = func(error) {}
	}
	nc, err := nats.Connect("nats://"+user+":secret-"+user+"@"+b.Addr().String(), nats.CustomInboxPrefix("_INBOX."+user), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { fault(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				fault(err)
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// request sends a request to JetStream.
func request(nc *nats.Conn, subject, body string) error {
	m, err := nc.Request(subject, []byte(body), patience)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var answer struct{ Error *struct{ Description string } }
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", subject, answer.Error.Description)
	}
	return nil
}

// harm returns what has happened to a topic with two messages and a group.
func harm(t *testing.T, nc *nats.Conn, victim string) string {
	t.Helper()
	js := jetStreamOf(t, nc)
	info, err := js.StreamInfo("hark-topic-" + victim)
	switch {
	case errors.Is(err, nats.ErrStreamNotFound):
		return victim + " is deleted"
	case err != nil:
		t.Fatal(err)
	case info.State.Msgs != 2:
		return fmt.Sprintf("%s has %d messages left of 2", victim, info.State.Msgs)
	}
	if _, err := js.ConsumerInfo("hark-topic-"+victim, "group"); errors.Is(err, nats.ErrConsumerNotFound) {
		return "the group of " + victim + " is deleted"
	} else if err != nil {
		t.Fatal(err)
	}
	return ""
}
