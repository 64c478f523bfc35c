package natsdriver

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
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

// notStatuses returns messages to a subject on which a server answers requests for
// messages.
func notStatuses(subject string) []*nats.Msg {
	status := func(code, left string, data []byte) *nats.Msg {
		return &nats.Msg{Subject: subject, Header: nats.Header{"Status": {code}, "Nats-Pending-Messages": {left}}, Data: data}
	}
	return []*nats.Msg{
		{Subject: subject},
		{Subject: subject, Data: []byte("x")},
		{Subject: subject, Reply: "x"},
		{Subject: subject, Reply: "$JS.ACK."},
		status("", "", []byte("x")),
		status("408", strconv.Itoa(math.MinInt), nil),
		status("408", "-1000000", nil),
	}
}

func TestStoredSubscriptionOutlivesOthersMessages(t *testing.T) {
	for _, cfg := range []driver.SubscribeConfig{
		{From: driver.FromStart},
		{From: driver.FromStart, Group: "g"},
		{From: driver.FromStart, Group: "g", Keyed: true},
	} {
		name := "alone"
		if cfg.Keyed {
			name = "keyed"
		} else if cfg.Group != "" {
			name = "group"
		}
		t.Run(name, func(t *testing.T) {
			s := startServer(t, withJetStream)
			topic := openTopic(t, s.open(t), "t", relaxed())
			sub := subscribe(t, topic, cfg)
			next := func() []*driver.Received {
				t.Helper()
				got := receive(t, sub, 1)
				if cfg.Group != "" { // else it would come again on a slow machine
					if err := sub.Ack(testContext(t), got); err != nil {
						t.Fatal(err)
					}
				}
				return got
			}
			publish(t, topic, "a")
			next()
			var pullers []*puller
			switch sub := sub.(type) {
			case *orderedConsumer:
				pullers = append(pullers, sub.puller)
			case *member:
				pullers = append(pullers, sub.puller)
			case *keyed:
				pullers = sub.pullers()
			}
			for _, p := range pullers {
				s.say(t, notStatuses(p.inbox+".1")...)
			}
			const more = 2 * firstReadAhead
			publish(t, topic, numbered(0, more)...)
			var got []*driver.Received
			for len(got) < more {
				got = append(got, next()...)
			}
			if want := numbered(0, more); !slices.Equal(texts(got), want) {
				t.Errorf("got other messages than %d in order", more)
			}
		})
	}
}

func TestChanOutlivesOthersMessages(t *testing.T) {
	s := startServer(t, withJetStream)
	sender, ch := openChan(t, s.open(t), driver.Unbounded), openChan(t, s.open(t), driver.Unbounded).(*channel)
	ctx := testContext(t)
	for round := range 2 {
		got := make(chan string, 1)
		go func() {
			v, err := ch.Receive(ctx, false)
			if err == nil {
				err = v.Done(ctx)
			}
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(v.Data)
		}()
		var inbox string
		eventually(t, "the receiver asks", func() bool {
			ch.mu.Lock()
			defer ch.mu.Unlock()
			if ch.intake == nil || ch.intake.asked == 0 {
				return false
			}
			inbox = ch.intake.inbox
			return true
		})
		ms := notStatuses(inbox + ".n")
		if round == 0 {
			ms = ms[len(ms)-1:]
		} else {
			ms = append(ms, notStatuses(inbox+".t")...)
		}
		s.say(t, ms...)
		if err := ch.conn.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		ch.mu.Lock()
		if ch.intake != nil && ch.intake.asked > 1 {
			t.Errorf("the receiver has asked for %d values, want 1", ch.intake.asked)
		}
		ch.mu.Unlock()
		want := strconv.Itoa(round)
		if err := sender.Send(ctx, []byte(want), false); err != nil {
			t.Fatal(err)
		}
		if v := <-got; v != want {
			t.Errorf("got %q, want %q", v, want)
		}
	}
}

func TestOfferIsClaimedByReceiversOnly(t *testing.T) {
	s := startServer(t, withJetStream)
	sender, receiver := openChan(t, s.open(t), 0).(*channel), openChan(t, s.open(t), 0)
	ctx := testContext(t)
	sent := make(chan error, 1)
	go func() { sent <- sender.Send(ctx, []byte("x"), false) }()
	var id string
	eventually(t, "the sender offers a value", func() bool {
		sender.mu.Lock()
		defer sender.mu.Unlock()
		for id = range sender.offers {
		}
		return sender.offered == 1
	})
	claim := &nats.Msg{Subject: sender.claims + "." + id, Reply: "x"}
	s.say(t, claim, claim, &nats.Msg{Subject: sender.claims + ".x", Data: []byte("x")})
	if err := sender.conn.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	v, err := receiver.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Done(ctx); err != nil || string(v.Data) != "x" {
		t.Errorf("received %q, %v", v.Data, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
}

func TestOfferWithoutSender(t *testing.T) {
	s := startServer(t, withJetStream)
	ch := openChan(t, s.open(t), 0).(*channel)
	ctx := testContext(t)
	epoch := ch.conn.state.epoch()
	for _, subject := range []string{"no subject", "a\tb c d e", "$HARK.x", "x.>"} {
		s.say(t, &nats.Msg{Subject: chanPrefix + "jobs", Header: nats.Header{harkOffer: {subject}}})
		v, err := ch.Receive(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Done(ctx); !errors.Is(err, driver.ErrEnded) {
			t.Errorf("offer at %q: Done returned %v, want %v", subject, err, driver.ErrEnded)
		}
	}
	if ch.conn.state.epoch() != epoch {
		t.Error("the connection was lost")
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

func TestSignalsOutliveOthersMessages(t *testing.T) {
	s := startServer(t, withJetStream)
	a, b := listen(t, s.open(t)), listen(t, s.open(t))
	here, epoch := a.conn.signals.Load(), a.conn.state.epoch()
	for _, subject := range []string{signalSubject, here.inbox("x"), here.inbox(rollToken), rollSubject} {
		for _, text := range []string{
			"", " ", "hello", "hello ", "hello a.b", "hello >", "hello *", "hello a\r\nPING\r\n", "hello a\tb", "bye", "notify", "notify x", "notify x -1 t", "notify x 1", "notify x 2 ", "notify x 3 *",
			"notify " + here.id, "notify " + here.id + " 1", "ready " + here.id + " 99999999999999999999", "answer", "answer 1", "answer 1 -5", "answer 1 x", "probe", "past", "past 1", "roll", "roll a.b > c\rd", "roll " + here.id,
		} {
			s.say(t, &nats.Msg{Subject: subject, Data: []byte(text)})
		}
	}
	s.say(t, &nats.Msg{Subject: here.inbox("x"), Header: nats.Header{"Status": {noResponders}}})
	if err := a.conn.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	reached, err := a.conn.Notify(testContext(t), "target")
	if err != nil || reached != 1 {
		t.Errorf("Notify = %d, %v, want 1", reached, err)
	}
	if took := time.Since(begin); took >= signalTimeout {
		t.Errorf("Notify waited %v for connections that do not exist", took)
	}
	if a.conn.state.epoch() != epoch {
		t.Error("the connection was lost")
	}
	if !slices.Contains(b.signals(), "target") {
		t.Error("the signal has not arrived")
	}
}

// What cannot be written as JSON would stop those who follow the topic over HTTP.
func TestTimesCanBeWritten(t *testing.T) {
	for text, taken := range map[string]bool{
		"2024-01-01T00:00:00Z": true, "2024-01-01T00:00:00+23:59": true, "0000-01-01T00:00:00+23:59": true, "9999-12-31T23:59:59-23:59": true,
		"2024-01-01T00:00:00+24:00": false, "2024-01-01T00:00:00-24:59": false, "2024-01-01T00:00:00+23:60": false,
	} {
		for _, m := range []*nats.Msg{
			{Header: nats.Header{ceTime: {text}, harkExpires: {text}}},
			{Header: nats.Header{contentType: {"application/cloudevents+json"}}, Data: []byte(`{"specversion":"1.0","time":"` + text + `"}`)},
		} {
			r := (&Conn{}).decode(m, "topic")
			if r.Time.IsZero() == taken {
				t.Errorf("%s: the time is %v", text, r.Time)
			}
			for _, at := range []time.Time{r.Time, r.Expires} {
				if _, err := at.MarshalJSON(); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			}
		}
	}
}

func TestNegativeAnswers(t *testing.T) {
	var o peerList
	o.init()
	a := newAsk()
	o.asks[1] = a
	for _, rest := range []string{"1 -5", "1 9223372036854775807", "1 99999999999999999999", "1"} {
		if o.answered("x", rest); o.reached(a) != 0 {
			t.Fatalf("after the answer %q, %d were reached", rest, o.reached(a))
		}
	}
	if o.answered("y", "1 2"); o.reached(a) != 2 {
		t.Errorf("%d were reached, want 2", o.reached(a))
	}
}

func TestEncodedHeadersAreDecodedOnce(t *testing.T) {
	m := &nats.Msg{Header: nats.Header{harkEncoded: {"a a b a x"}, "a": {"%2541"}, "b": {"%2542"}}}
	got := (&Conn{}).decode(m, "topic").Headers
	if want := map[string]string{"a": "%41", "b": "%42"}; !maps.Equal(got, want) {
		t.Errorf("got headers %q, want %q", got, want)
	}
}

func TestChanIsClosedInTheStreamOnly(t *testing.T) {
	for _, capacity := range []int{0, 1} {
		t.Run(strconv.Itoa(capacity), func(t *testing.T) {
			s := startServer(t, withJetStream)
			ch, other := openChan(t, s.open(t), capacity).(*channel), openChan(t, s.open(t), capacity)
			ctx := testContext(t)
			s.say(t, &nats.Msg{Subject: chanClosedPrefix + ch.config.Name})
			eventually(t, "the message has been handled", func() bool {
				delivered, err := ch.subs[0].Delivered()
				pending, _, err2 := ch.subs[0].Pending()
				return err == nil && err2 == nil && delivered == 1 && pending == 0
			})
			sent := make(chan error, 1)
			go func() { sent <- ch.Send(ctx, []byte("x"), false) }()
			v, err := other.Receive(ctx, false)
			if err == nil {
				err = v.Done(ctx)
			}
			if err != nil {
				t.Errorf("receive: %v", err)
			}
			if err := <-sent; err != nil {
				t.Errorf("send: %v", err)
			}
			if err := other.Close(ctx); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ch.Closed():
			case <-ctx.Done():
				t.Error("the close was not noticed")
			}
		})
	}
}

func TestClaimWithoutAnswer(t *testing.T) {
	before := keepOffers
	keepOffers = 2*chanAnswer + time.Millisecond
	defer func() { keepOffers = before }()
	s := startServer(t, withJetStream)
	ch := openChan(t, s.open(t), 0)
	ctx := testContext(t)
	silent, err := nats.Connect(s.url())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.SubscribeSync("silent"); err != nil {
		t.Fatal(err)
	}
	if err := silent.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	s.say(t, &nats.Msg{Subject: chanPrefix + "jobs", Header: nats.Header{harkOffer: {"silent"}}})
	v, err := ch.Receive(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Done(ctx); !errors.Is(err, driver.ErrUnsure) || ctx.Err() != nil {
		t.Errorf("Done returned %v, want %v before the context ends", err, driver.ErrUnsure)
	}
}

func TestPeersAreBounded(t *testing.T) {
	var o peerList
	o.init()
	for i := range maxPeers + 10 {
		o.called([]string{strconv.Itoa(i), strings.Repeat("x", maxPeerID) + strconv.Itoa(i)})
		o.hear(strconv.Itoa(-i))
	}
	if n := len(o.peers); n > maxPeers {
		t.Errorf("%d connections are tracked, want at most %d", n, maxPeers)
	}
	if n := len(o.everybody()); n > 1<<20 {
		t.Errorf("the list of all has %d bytes, more than a message can", n)
	}
}

func TestNumbersOfSignals(t *testing.T) {
	var o peerList
	o.init()
	for _, tt := range []struct {
		number uint64
		isNew  bool
	}{
		{5, true},
		{5, false},
		{4, false},
		{6, true},
		{math.MaxUint64, true}, // somebody else's
		{7, true},
		{7, false},
		{8, true},
	} {
		if got := o.isNew("x", tt.number); got != tt.isNew {
			t.Errorf("%d is new: %v, want %v", tt.number, got, tt.isNew)
		}
	}
}

// The server does not look at headers.
func TestReadMessageWithOthersHeaders(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic := openTopic(t, c, "t", relaxed())
	nc, err := net.Dial("tcp", strings.TrimPrefix(s.url(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "CONNECT {\"headers\":true,\"verbose\":false}\r\n"); err != nil {
		t.Fatal(err)
	}
	for _, headers := range []string{"x", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0\r\n: a\r\n\r\n", "NATS/1.0 4\r\n\r\n", "NATS/1.0\r\na: b"} {
		if _, err := fmt.Fprintf(nc, "HPUB t %d %d\r\n%sdata\r\n", len(headers), len(headers)+4, headers); err != nil {
			t.Fatal(err)
		}
	}
	sub := subscribe(t, topic, driver.SubscribeConfig{From: driver.FromStart})
	for _, r := range receive(t, sub, 5) {
		if string(r.Data) != "data" {
			t.Errorf("received %q", r.Data)
		}
		if m, err := c.ReadMessage(testContext(t), "t", r.Seq); err != nil || string(m.Data) != "data" {
			t.Errorf("message %d: %v, %v", r.Seq, m, err)
		}
	}
}
