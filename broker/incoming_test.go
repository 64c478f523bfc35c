package broker

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// header returns headers from lines such as "a: b".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func TestReadIncoming(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	event := driver.Message{
		ID: "e-1", Key: "ada", HasKey: true, Time: at, ContentType: "application/json", Data: []byte(`{"a":1}`),
		Headers: map[string]string{"ce-source": "/shop", "ce-type": "order.placed", "ce-subject": "o 1 €", "ce-tenant": "eu", "ce-count": "3", "ce-urgent": "true"},
	}
	const structured = `{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.placed","subject":"o 1 €","time":"2026-01-02T03:04:05.0000006Z",
		"partitionkey":"ada","tenant":"eu","count":3,"urgent":true,"nothing":null,"datacontenttype":"application/json","data":{"a":1}}`
	tests := []struct {
		name    string
		headers http.Header
		body    string
		want    incoming
	}{
		{
			"binary",
			header("Content-Type: application/json", "ce-specversion: 1.0", "Ce-Id: e-1", "CE-SOURCE: /shop", "ce-type: order.placed", "ce-subject: o%201%20%E2%82%AC",
				"ce-time: 2026-01-02T03:04:05.0000006Z", "ce-partitionkey: ada", "ce-tenant: eu", "ce-count: 3", "ce-urgent: true"),
			`{"a":1}`,
			incoming{messages: []*driver.Message{&event}, events: true},
		},
		{
			"not encoded", header("ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t", "ce-subject: 100% €"), "",
			incoming{messages: []*driver.Message{{ID: "1", Data: []byte{}, Headers: map[string]string{"ce-source": "/s", "ce-type": "t", "ce-subject": "100% €"}}}, events: true},
		},
		{"structured", header("Content-Type: application/cloudevents+json; charset=utf-8"), structured, incoming{messages: []*driver.Message{&event}, events: true}},
		{"batch", header("Content-Type: application/cloudevents-batch+json"), "[" + structured + "," + structured + "]", incoming{messages: []*driver.Message{&event, &event}, events: true, batch: true}},
		{"empty batch", header("Content-Type: application/cloudevents-batch+json"), "[]", incoming{messages: []*driver.Message{}, events: true, batch: true}},
		{
			"structured text", header("Content-Type: application/cloudevents+json"),
			`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"a \"b\""}`,
			incoming{messages: []*driver.Message{{ID: "1", ContentType: "text/plain", Data: []byte(`a "b"`), Headers: map[string]string{"ce-source": "/s", "ce-type": "t"}}}, events: true},
		},
		{
			"structured bytes", header("Content-Type: application/cloudevents+json"),
			`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"image/png","data_base64":"/wE="}`,
			incoming{messages: []*driver.Message{{ID: "1", ContentType: "image/png", Data: []byte{0xff, 1}, Headers: map[string]string{"ce-source": "/s", "ce-type": "t"}}}, events: true},
		},
		{
			"structured without data", header("Content-Type: application/cloudevents+json"), `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`,
			incoming{messages: []*driver.Message{{ID: "1", Headers: map[string]string{"ce-source": "/s", "ce-type": "t"}}}, events: true},
		},
		{"plain JSON", header("Content-Type: application/json", "Hark-Header-Tenant: eu"), `{"a":1}`, incoming{messages: []*driver.Message{{ContentType: "application/json", Data: []byte(`{"a":1}`), Headers: map[string]string{"tenant": "eu"}}}}},
		{"as curl -d sends it", header("Content-Type: application/x-www-form-urlencoded"), `{"a":1}`, incoming{messages: []*driver.Message{{ContentType: "application/json", Data: []byte(`{"a":1}`)}}}},
		{"a form", header("Content-Type: application/x-www-form-urlencoded"), `a=1`, incoming{messages: []*driver.Message{{ContentType: "application/x-www-form-urlencoded", Data: []byte(`a=1`)}}}},
		{"no type, JSON", header(), `[1]`, incoming{messages: []*driver.Message{{ContentType: "application/json", Data: []byte(`[1]`)}}}},
		{"no type, text", header(), `hello`, incoming{messages: []*driver.Message{{ContentType: "text/plain; charset=utf-8", Data: []byte(`hello`)}}}},
		{"no type, bytes", header(), "\xff", incoming{messages: []*driver.Message{{ContentType: "application/octet-stream", Data: []byte("\xff")}}}},
		{"nothing", header("Content-Type: application/json"), "", incoming{messages: []*driver.Message{{ContentType: "application/json", Data: []byte{}}}}},
	}
	for _, tt := range tests {
		got, err := readIncoming(tt.headers, []byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !got.events && time.Since(got.messages[0].Time) > time.Minute {
			t.Errorf("%s: got time %v", tt.name, got.messages[0].Time)
		}
		for _, m := range got.messages {
			if !got.events {
				m.Time = time.Time{}
			}
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v of %+v, want %+v of %+v", tt.name, got, *got.messages[0], tt.want, *tt.want.messages[0])
		}
	}
}

func TestBrokenIncoming(t *testing.T) {
	whole := []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t"}
	structured := header("Content-Type: " + structuredType)
	tests := []struct {
		headers http.Header
		body    string
		want    string
	}{
		{header(whole[1:]...), "", "specversion is missing"},
		{header("ce-specversion: 0.3", "ce-id: 1", "ce-source: /s", "ce-type: t"), "", `specversion: got "0.3", want 1.0`},
		{header(whole[:3]...), "", "type is missing"},
		{header("ce-specversion: 1.0", "ce-id: ", "ce-source: /s", "ce-type: t"), "", "id is missing"},
		{header(append(whole, "ce-id: 2")...), "", "ce-id is given 2 times"},
		{header(append(whole, "ce-time: soon")...), "", "ce-time: got \"soon\", want a time"},
		{header(append(whole, "ce-subject: %C0%A0")...), "", "UTF-8"},
		{header(append(whole, "ce-my-name: x")...), "", "ce-my-name: the name of an attribute"},
		{header(append(whole, "ce-datacontenttype: x")...), "", "Content-Type is the type"},
		{header(append(whole, "Content-Type: application/json")...), `{"a":`, "is not JSON: unexpected end of JSON input, at byte 5"},
		{header("Content-Type: ;"), "", "Content-Type"},
		{header("Content-Type: application/cloudevents+avro"), "", "application/cloudevents+json"},
		{header("Content-Type: application/cloudevents"), "", "application/cloudevents+json"},
		{header("Content-Type: application/json"), `{"a":1`, "and is not JSON"},
		{header("Hark-Header-Nats-Msg-Id: x"), "1", "nats-"},
		{structured, "", "not a JSON object"},
		{structured, "[]", "not a JSON object"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","x":{}}`, "x: an attribute must be text"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","x":1.5}`, "x: got 1.5"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","X":1}`, "X: the name"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"eA=="}`, "give one of them"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"?"}`, "data_base64: "},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":1}`, "data_base64: "},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":";"}`, "datacontenttype: "},
		{structured, strings.Repeat("[", 20_000), "not a JSON object"},
		{structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t"` + strings.Repeat(`,"a":1`, maxMembers) + "}", "has 104 members; want at most 100"},
		{structured, `{"specversion":"` + strings.Repeat("x", 1000) + `"}`, `got "` + strings.Repeat("x", 60) + `", want 1.0`},
		{header("Content-Type: " + batchType), `{}`, "not a JSON list"},
		{header("Content-Type: " + batchType), "[" + strings.Repeat("1,", maxBatchEvents) + "1]", "at most 10000"},
		{header("Content-Type: " + batchType), "[" + strings.Repeat("{"+strings.Repeat(`"a":1,`, 49)+`"a":1},`, 4001) + "1]", "have 200050 members; want at most 200000"},
		{header("Content-Type: " + batchType), `[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{},1]`, "2 of the events are invalid, so none is published; event 1: specversion is missing"},
	}
	for _, tt := range tests {
		in, err := readIncoming(tt.headers, []byte(tt.body))
		if err == nil {
			t.Errorf("%v %.60s: was read as %+v, want %q", tt.headers, tt.body, in.messages[0], tt.want)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v %.60s: got %q, want %q", tt.headers, tt.body, err, tt.want)
		}
	}
}

func TestCountEntries(t *testing.T) {
	for text, want := range map[string][2]int{
		"": {}, "1": {}, ",,": {}, "[1]": {1}, "[1,2 , 3]": {3}, `{"a":1,"b":[1,2],"c":{"d":1,"e":2}}`: {3, 4},
		`["a,b","\",\"",",\\",1]`: {4}, "[[1,2],3": {2, 2}, `["a,`: {1}, "]],[1,2": {}, `"\`: {}, `[{"a":[1,2]},{}]`: {2, 2},
	} {
		for deep, want := range want {
			if got := countEntries([]byte(text), deep+1); got != want {
				t.Errorf("%s, %d deep: got %d, want %d", text, deep+1, got, want)
			}
		}
	}
}

// FuzzIncoming reads arbitrary requests, and checks the events against what an
// event must have, and against what is written for them.
func FuzzIncoming(f *testing.F) {
	f.Add("application/json", "", "", []byte(`{"a":1}`))
	f.Add(structuredType, "", "", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","x":1,"data":{"a":[1,"<b>"]}}`))
	f.Add(batchType, "", "", []byte(`[{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"eA=="}]`))
	f.Add("text/plain", "1", "a%20b", []byte("x"))
	f.Fuzz(func(t *testing.T, contentType, id, subject string, body []byte) {
		h := http.Header{"Content-Type": {contentType}}
		if id != "" {
			h["Ce-Id"], h["Ce-Subject"] = []string{id}, []string{subject}
			h["Ce-Specversion"], h["Ce-Source"], h["Ce-Type"] = []string{"1.0"}, []string{"/s"}, []string{"t"}
		}
		in, err := readIncoming(h, body)
		var invalid invalidBatch
		if errors.As(err, &invalid) && len(invalid) == 0 || err != nil && err.Error() == "" {
			t.Fatalf("an error that says nothing: %#v", err)
		}
		if err != nil {
			return
		}
		for _, m := range in.messages {
			if in.events && (m.ID == "" || m.Headers["ce-source"] == "" || m.Headers["ce-type"] == "") {
				t.Fatalf("an event that is none: %+v", m)
			}
			line, err := (&Event{&driver.Received{Message: *m, Topic: "a.b", Seq: 7}}).appendCloudEvent(nil, "/hark", func() string { return "made" })
			if err != nil {
				t.Fatalf("%+v cannot be written: %v", m, err)
			}
			if strings.ContainsAny(string(line), "\n\r") || !json.Valid(line) {
				t.Fatalf("not one line of JSON: %q", line)
			}
			if !in.events {
				continue
			}
			back, err := readStructuredOutput(line)
			if err != nil || back.ID != strings.ToValidUTF8(m.ID, "\ufffd") {
				t.Fatalf("%s is no event: %v", line, err)
			}
		}
	})
}

// readStructuredOutput reads the output of appendCloudEvent as any reader of the
// JSON format does.
func readStructuredOutput(line []byte) (*driver.Message, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return nil, err
	}
	delete(members, "headers") // an object is no valid attribute
	text, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return readStructured(text)
}
