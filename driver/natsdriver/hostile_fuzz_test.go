package natsdriver

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// FuzzReceived feeds what may come over the wire to all that reads it.
func FuzzReceived(f *testing.F) {
	f.Add("", "", "", "", []byte(nil))
	f.Add("$HARK.signal", "_INBOX.a.hark-1~2", "Status", "503", []byte("notify a 1 b"))
	f.Add("_INBOX.a.b-1.500.ok.1.1.$FI", "$JS.ACK.s.c.1.2.3.4.5", "Nats-Pending-Messages", "-1", []byte(`{"type":"gap","last_seq":1,"seq":9}`))
	f.Add("$HARK.k.t.1", "x.500.ok.1.3.$FI", "hark-offer", "a b", []byte(`{"members":null}`))
	f.Add("$HARK.s.1.t", "hark-1", "Nats-Sequence", "99999999999999999999", []byte(`{"error":{"err_code":10060}}`))
	f.Add("a", "", "ce-time", "2024-01-01T00:00:00+24:00", []byte(nil))
	f.Add("_INBOX.p.1", "~", "hark-kind", "x", []byte(`answer 1 -1`))
	f.Fuzz(func(t *testing.T, subject, reply, name, value string, data []byte) {
		if subject == "" || reply != "" && subject[0] == ' ' { // the server passes on no such message
			return
		}
		m := &nats.Msg{Subject: subject, Reply: reply, Header: nats.Header{name: {value}}, Data: data, Sub: &nats.Subscription{}}
		if isAckSubject(reply) && strings.HasSuffix(reply, burstEnd) {
			t.Errorf("%q ends a burst, and is no message", reply)
		}
		new(arrivals).repeats(reply)
		_, _ = placeOf(reply)
		readBurstSubject(subject)
		keyedTopic(subject)
		storedTopic(subject)
		_, _ = readAck(m)
		ofStream(m)
		decoded := (&Conn{}).decode(m, "topic")
		for _, at := range []time.Time{decoded.Time, decoded.Expires} {
			if _, err := at.MarshalJSON(); err != nil {
				t.Error(err)
			}
		}

		a := acks{waiting: map[uint64]waiter{}}
		fl := newFlight(4, true)
		a.waiting[1] = burstWaiter{fl}
		fl.end.sent = true // there is no connection
		a.receive(m)
		(&answers{waiting: map[string]chan *nats.Msg{}}).receive(m)

		p := &puller{inbox: "_INBOX.p"}
		p.asked.Store(10)
		p.granted = 10
		var gone bool
		if p.isMessage(m, &gone); p.asked.Load() > 10 || p.granted > 10 {
			t.Errorf("%d awaited of %d, want at most 10", p.asked.Load(), p.granted)
		}

		r := readRoster(data)
		r.Members["x"]++
		if q := r.quota("x"); q < 0 || q > partitions {
			t.Errorf("quota %d", q)
		}
		r.orphans()
		heartbeats{}.silent(r, time.Time{}, 0)

		var o peerList
		o.init()
		o.asks[1] = newAsk()
		_ = isPeerID(value)
		for range 2 {
			o.isNew(value, uint64(len(data)))
			o.came(value)
			o.answered(name, value)
			o.answered(name, string(data))
			o.past(name, value)
			o.drop(name)
		}
		if o.reached(o.asks[1]) < 0 {
			t.Error("fewer than none were reached")
		}
		o.called([]string{name, value})
		o.everybody()
	})
}
