package natsdriver

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

func TestEnvelopeOnTheWire(t *testing.T) {
	c := &Conn{opts: options{source: "/shop é"}}
	c.ids.init()
	at := time.Date(2026, 11, 23, 12, 0, 0, 5000, time.FixedZone("", 3600))
	msg, err := c.encode("s", "orders.placed", &driver.Message{
		ID: `Euro € 😀`, Key: `a "b"%`, HasKey: true, Time: at, ContentType: "text/plain; charset=utf-8",
		Headers: map[string]string{"Trace": "1", "note": "two\nlines", "ce-dataschema": "http://x/ y"},
		Data:    []byte("data"), Expires: at.Add(time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": "Euro%20%E2%82%AC%20%F0%9F%98%80", "ce-source": "/shop%20%C3%A9", "ce-type": "orders.placed",
		"ce-time": "2026-11-23T11:00:00.000005Z", "ce-datacontenttype": "text/plain;%20charset=utf-8",
		"ce-partitionkey": "a%20%22b%22%25", "hark-expires": "2026-11-23T11:00:01.000005Z", "Trace": "1",
		"note": "two%0Alines", "hark-encoded": "note", "ce-dataschema": "http://x/%20y",
	}
	got := map[string]string{}
	for name, values := range msg.Header {
		got[name] = values[0]
	}
	if !maps.Equal(got, want) || string(msg.Data) != "data" {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
}

func TestBareOnTheWire(t *testing.T) {
	c := &Conn{opts: options{source: "/s"}}
	msg, err := c.encode("s", "t", &driver.Message{Bare: true, ID: "1", Data: []byte("d"), ContentType: "a/b"})
	if err != nil || msg.Header != nil || string(msg.Data) != "d" {
		t.Errorf("got %+v, %v", msg, err)
	}
	first, _ := c.encode("s", "t", &driver.Message{})
	second, _ := c.encode("s", "t", &driver.Message{})
	if a, b := first.Header[ceID][0], second.Header[ceID][0]; a == "" || a == b {
		t.Errorf("IDs made up: got %q and %q", a, b)
	}
}

func TestWireRoundTrip(t *testing.T) {
	c := &Conn{opts: options{source: "/s"}}
	f := func(id, key, value, topic string, hasKey bool, ns int64, data []byte) bool {
		m := driver.Message{
			ID: strings.ToValidUTF8(id, "") + "x", Time: time.Unix(0, ns).UTC(), ContentType: "a/b", Data: data,
			Headers: map[string]string{"h": value, "Ce": value},
		}
		if hasKey {
			m.Key, m.HasKey = strings.ToValidUTF8(key, ""), true
		}
		topic = strings.ToValidUTF8(topic, "")
		msg, err := c.encode("s", topic, &m)
		if err != nil {
			t.Log(err)
			return false
		}
		got := (&Conn{}).decode(msg, topic)
		return reflect.DeepEqual(got.Message, m)
	}
	if err := quick.Check(f, nil); err != nil {
		t.Error(err)
	}
}

func TestMessagesOfOthers(t *testing.T) {
	at := time.Date(2018, 4, 5, 17, 31, 0, 0, time.UTC)
	tests := []struct {
		name string
		msg  nats.Msg
		want driver.Message
	}{
		{"nothing but data", nats.Msg{Data: []byte("x")}, driver.Message{Data: []byte("x"), Bare: true}},
		{
			"headers",
			nats.Msg{Header: nats.Header{"A": {"1", "2"}, "Content-Type": {"text/plain"}, "Nats-Msg-Id": {"7"}}},
			driver.Message{Bare: true, ContentType: "text/plain", Headers: map[string]string{"A": "1", "Content-Type": "text/plain"}},
		},
		{
			"binary mode, other case and quotes",
			nats.Msg{Header: nats.Header{"Ce-Specversion": {"1.0"}, "CE-ID": {`"a \"b\" %e2%82%ac"`}, "ce-type": {"com.x"}, "ce-source": {"/y"}, "Ce-Time": {"2018-04-05T17:31:00Z"}, "ce-ext": {"%41"}}},
			driver.Message{ID: `a "b" €`, Time: at, Headers: map[string]string{"ce-type": "com.x", "ce-source": "/y", "ce-ext": "A"}},
		},
		{
			"what cannot be read stays",
			nats.Msg{Header: nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"%C0%A0"}, "ce-time": {"noon"}, "hark-expires": {"?"}}},
			driver.Message{Headers: map[string]string{"ce-id": "%C0%A0", "ce-time": "noon", "hark-expires": "?"}},
		},
		{
			"structured mode",
			nats.Msg{Header: nats.Header{"Content-Type": {"application/CloudEvents+json; charset=utf-8"}, "x": {"y"}}, Data: []byte(`{"specversion":"1.0","id":"1","type":"com.x","source":"/y","time":"2018-04-05T17:31:00Z","partitionkey":"k","n":5,"data":{"a":[1]}}`)},
			driver.Message{ID: "1", Time: at, Key: "k", HasKey: true, ContentType: "application/json", Data: []byte(`{"a":[1]}`), Headers: map[string]string{"ce-type": "com.x", "ce-source": "/y", "ce-n": "5", "x": "y"}},
		},
		{
			"structured mode, text",
			nats.Msg{Header: nats.Header{"content-type": {"application/cloudevents"}}, Data: []byte(`{"specversion":"1.0","datacontenttype":"text/plain","data":"a\nb"}`)},
			driver.Message{ContentType: "text/plain", Data: []byte("a\nb"), Headers: map[string]string{}},
		},
		{
			"structured mode, bytes",
			nats.Msg{Header: nats.Header{"content-type": {"application/cloudevents+json"}}, Data: []byte(`{"specversion":"1.0","datacontenttype":"a/b","data_base64":"AQI="}`)},
			driver.Message{ContentType: "a/b", Data: []byte{1, 2}, Headers: map[string]string{}},
		},
		{
			"not structured after all",
			nats.Msg{Header: nats.Header{"content-type": {"application/cloudevents+json"}}, Data: []byte(`{`)},
			driver.Message{Bare: true, ContentType: "application/cloudevents+json", Data: []byte(`{`), Headers: map[string]string{"content-type": "application/cloudevents+json"}},
		},
	}
	for _, tt := range tests {
		got := (&Conn{}).decode(&tt.msg, "topic").Message
		if len(got.Headers) == 0 && len(tt.want.Headers) == 0 {
			got.Headers, tt.want.Headers = nil, nil
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got\n%+v, want\n%+v", tt.name, got, tt.want)
		}
	}
}

func TestHeadersThatCannotTravel(t *testing.T) {
	c := &Conn{opts: options{source: "/s"}}
	for _, name := range []string{"", "a b", "a:b", "a/b", `a"`, "ä", "Nats-Msg-Id", "CE-ID", "hark-expires", "Status"} {
		if _, err := c.encode("s", "t", &driver.Message{Headers: map[string]string{name: "x"}}); err == nil {
			t.Errorf("header %q: got no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("ce-id", "%41", "content-type", "application/cloudevents+json", []byte(`{"specversion":"1.0","data":"x"}`))
	f.Add("hark-encoded", "a b", "a", "%", []byte(nil))
	f.Add("ce-time", `"`, "ce-", `"\`, []byte(`{"specversion":1,"id":null}`))
	f.Fuzz(func(_ *testing.T, a, av, b, bv string, data []byte) {
		(&Conn{}).decode(&nats.Msg{Header: nats.Header{a: {av}, b: {bv}}, Data: data}, "topic") // must not panic
	})
}

func TestNamesOfStreams(t *testing.T) {
	seen := map[string]string{}
	long := strings.Repeat("a", 250)
	for _, name := range []string{
		"a", "a.b", "a=b", "a%3Db", "a~3Db", "a~b", "a%b", "A", "größe", "gr%C3%B6", "a/b", `a\b`, long, long + ".b", long + ".c", "a-b", "a_b", "a__b",
	} {
		got := topicStream(name)
		if len(got) > 255 || strings.ContainsAny(got, " .*>/\\%") {
			t.Errorf("%s: %q is no name for a stream", name, got)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s have the same stream %s", name, other, got)
		}
		seen[got] = name
	}
	if got, want := topicStream("orders.placed"), "hark-topic-orders=placed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestLetterIsUsedAgain writes several messages with different headers in the same
// msgBuilder.
func TestLetterIsUsedAgain(t *testing.T) {
	c := &Conn{}
	c.ids.init()
	c.opts.source = "here"
	at := time.Unix(1, 2)
	messages := []driver.Message{
		{ID: "1", Time: at, ContentType: "a/b"},
		{ID: "2", Time: at.Add(1), ContentType: "c/d"},
		{ID: "3", ContentType: "e/f", Key: "k", HasKey: true},
		{ID: "4", Time: at, Headers: map[string]string{"a": "b", "ce-subject": "s"}},
		{ID: "5", Time: at, Key: "k", HasKey: true, Expires: at},
		{Bare: true},
		{Bare: true, Expires: at},
		{Bare: true, Expires: at.Add(1), Headers: map[string]string{"hark-expires": "never"}},
		{Bare: true, Expires: at.Add(2)},
		{ID: "6", Time: at, ContentType: "a/b"},
	}
	l := new(msgBuilder)
	for i := range 200 {
		m := &messages[i*7%len(messages)]
		if i > 100 {
			m = &messages[rand.IntN(len(messages))]
		}
		got, err := l.write(c, "s", "t", m)
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.encode("s", "t", m)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
			t.Fatalf("message %d: got %v, want %v", i, got.Header, want.Header)
		}
	}
}
