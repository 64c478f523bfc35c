package broker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

func TestEventJSON(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	tests := []struct {
		m    driver.Received
		text string
	}{
		{
			driver.Received{Topic: "a.b", Seq: 7, Message: driver.Message{ID: "1", Key: "k", HasKey: true, Time: at, Headers: map[string]string{"n": "1", "ce-type": "t", "ce-source": "/s"}, Data: []byte(`{"x":1}`)}},
			`{"topic":"a.b","seq":7,"id":"1","source":"/s","type":"t","time":"2026-03-04T05:06:07.000000008Z","key":"k","headers":{"n":"1"},"data":{"x":1}}`,
		},
		{driver.Received{Topic: "a", Message: driver.Message{HasKey: true}}, `{"topic":"a","key":""}`},
		{driver.Received{Topic: "a", Message: driver.Message{ContentType: "text/plain", Data: []byte("plain <text>")}}, `{"topic":"a","datacontenttype":"text/plain","data":"plain \u003ctext\u003e"}`},
		{driver.Received{Topic: "a", Message: driver.Message{ContentType: "image/png", Data: []byte{0xff, 1}}}, `{"topic":"a","datacontenttype":"image/png","data_base64":"/wE="}`},
		{driver.Received{Topic: "a", Message: driver.Message{Data: []byte(`"text"`)}}, `{"topic":"a","data":"text"}`},
	}
	for _, tt := range tests {
		got, err := json.Marshal(&Event{&tt.m})
		if err != nil || string(got) != tt.text {
			t.Errorf("got  %s, %v\nwant %s", got, err, tt.text)
		}
		var back Event
		if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(*back.Message, tt.m) {
			t.Errorf("%s: got %+v, %v, want %+v", got, back.Message, err, tt.m)
		}
	}
	for _, text := range []string{`1`, `{"topic":1}`, `{"data":1,"data_base64":"eA=="}`, `{"datacontenttype":"text/plain","data":1}`, `{"time":"soon"}`} {
		if err := json.Unmarshal([]byte(text), &Event{}); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	var e Event
	if err := json.Unmarshal([]byte(`{"specversion":"1.0","topic":"a","partitionkey":"k","data":[1]}`), &e); err != nil || e.Key() != "k" || string(e.Message.Data) != "[1]" {
		t.Errorf("got %+v, %v", e.Message, err)
	}
}

// TestEventText checks that encoding/json reads the JSON of our own writer, whatever
// characters the texts contain.
func TestEventText(t *testing.T) {
	texts := []string{"plain", `a "quoted" \ one`, "<b>&", "two\nlines\ttab", "\x00\x1f\x7f", "grüße, 世界", "\u2028\u2029", "\xff\xfe"}
	for _, text := range texts {
		want := strings.ToValidUTF8(text, "\ufffd\ufffd")
		m := driver.Received{Topic: "a.b", Seq: 1 << 63, Deliveries: 3, Message: driver.Message{
			ID: text, Key: text, HasKey: true, ContentType: "text/plain", Data: []byte(text),
			Headers: map[string]string{"ce-subject": text, "ce-x": text, "ce-source": "/s", "n": text, "a" + text: "1"},
		}}
		line, err := (&Event{&m}).appendCloudEvent([]byte("data: "), "/hark", nil)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(line[len("data: "):], &got); err != nil || strings.ContainsAny(string(line), "\r\n") {
			t.Fatalf("%q: %s: %v", text, line, err)
		}
		wanted := map[string]any{
			"specversion": "1.0", "topic": "a.b", "seq": float64(1 << 63), "id": want, "source": "/s", "type": "a.b", "subject": want,
			"key": want, "headers": map[string]any{"n": want, "a" + want: "1"}, "datacontenttype": "text/plain", "data": want, "deliveries": 3.0, "x": want,
		}
		if text == "\xff\xfe" {
			wanted["data_base64"] = "//4="
			delete(wanted, "data")
		}
		if !reflect.DeepEqual(got, wanted) {
			t.Errorf("got  %v\nwant %v", got, wanted)
		}
	}
	for _, tt := range []struct{ typ, data, want string }{
		{"", " {\n\"x\": [1,\t2]}\r\n", `"data":{"x":[1,2]}`},
		{jsonType, `"<\u2028>"`, `"data":"<\u2028>"`},
		{"application/x+json; charset=utf-8", "1", `"data":1`},
		{jsonType, ` {"x": [1, 2]} `, `"data":{"x":[1,2]}`},
		{jsonType, `{"x":"1, 2"}`, `"data":{"x":"1, 2"}`},
		{jsonType, `{"x":`, `"datacontenttype":"text/plain","data":"{\"x\":"`},
		{jsonType, "{\"x\":\n", `"datacontenttype":"text/plain","data":"{\"x\":\n"`},
		{jsonType, "{\xff", `"data_base64":"e/8="`},
		{"", "plain", `"datacontenttype":"text/plain","data":"plain"`},
		{"text/html", "", `"datacontenttype":"text/html"`},
	} {
		line, err := (&Event{&driver.Received{Topic: "t", Message: driver.Message{ContentType: tt.typ, Data: []byte(tt.data)}}}).appendCloudEvent(nil, "/hark", func() string { return "made" })
		want := `{"specversion":"1.0","topic":"t","id":"made","source":"/hark","type":"t",` + tt.want + "}"
		if err != nil || string(line) != want {
			t.Errorf("%+v: got  %s, %v\nwant %s", tt, line, err, want)
		}
	}
	// A time that JSON cannot express is an error, and not a line that no client can
	// read.
	if _, err := (&Event{&driver.Received{Message: driver.Message{Time: time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)}}}).appendCloudEvent(nil, "", func() string { return "" }); err == nil {
		t.Error("a year of five digits was written")
	}
}

// BenchmarkFrame encodes a message for clients over HTTP.
func BenchmarkFrame(b *testing.B) {
	k := &frameMaker{source: "/hark", made: func() string { return "made" }}
	m := &driver.Received{Topic: "orders.placed", Message: driver.Message{
		ID: "A6XJLBWTNLTBZQHQ5MOCEEPBL5", Time: time.Now(), ContentType: jsonType,
		Data: []byte(`{"region":"eu","customer":"ada","total":7,"items":[{"sku":"a-1","count":2}],"note":"an order as others are"}`),
	}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.frame(m, ""); err != nil {
			b.Fatal(err)
		}
	}
}
