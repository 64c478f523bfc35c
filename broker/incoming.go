package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/percent"
)

// The media types of events, in those modes of the CloudEvents HTTP binding that
// have one.
const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json"
	formType       = "application/x-www-form-urlencoded"
	jsonType       = "application/json"
)

// headerPrefix begins the request headers that become headers of the message.
const headerPrefix = "Hark-Header-"

const (
	// maxBatchEvents is how many events a batch may have, maxMembers how many JSON
	// members each may have including attributes and data, and maxBatchMembers how
	// many they may have together: many small ones take ten times the memory of
	// their text.
	maxBatchEvents  = 10_000
	maxMembers      = 100
	maxBatchMembers = 200_000
)

// incoming is what a request asks to publish.
type incoming struct {
	messages []*driver.Message
	events   bool // they are CloudEvents, with their own IDs
	batch    bool
}

// invalidItem says what is wrong with one event of a batch.
type invalidItem struct {
	Index  int    `json:"index" doc:"of the event in the batch, from 0"`
	Detail string `json:"detail" doc:"what is wrong with it"`
}

// invalidBatch lists what is wrong with the events of a batch.
type invalidBatch []invalidItem

// Error implements error.
func (b invalidBatch) Error() string {
	return fmt.Sprintf("%d of the events are invalid, so none is published; event %d: %s", len(b), b[0].Index, b[0].Detail)
}

// unreadable is the error for a body of an unsupported type.
type unreadable string

// Error implements error.
func (u unreadable) Error() string { return string(u) }

// readIncoming reads the messages of a request: a CloudEvent in binary or
// structured mode, a batch of them, or any other body as it is.
func readIncoming(h http.Header, body []byte) (in incoming, err error) {
	headers, attributes, err := messageHeaders(h)
	if err != nil {
		return in, err
	}
	given := headerValue(h, "Content-Type")
	media, err := mediaType(given)
	if err != nil {
		return in, fmt.Errorf("Content-Type %q: %w", given, err)
	}
	in.events = true
	switch {
	case media == structuredType:
		m, err := readStructured(body)
		if err != nil {
			return in, err
		}
		in.messages = []*driver.Message{m}
	case media == batchType:
		in.batch = true
		if in.messages, err = readBatch(body); err != nil {
			return in, err
		}
	case media == "application/cloudevents" || strings.HasPrefix(media, "application/cloudevents+") || strings.HasPrefix(media, "application/cloudevents-batch"):
		return in, unreadable(fmt.Sprintf("events as %s are not read; want %s or %s", media, structuredType, batchType))
	case attributes:
		m, err := readBinary(h, given, body)
		if err != nil {
			return in, err
		}
		in.messages = []*driver.Message{m}
	default:
		in.events = false
		m, err := readPlain(media, given, body)
		if err != nil {
			return in, err
		}
		in.messages = []*driver.Message{m}
	}
	for _, m := range in.messages {
		for name, value := range headers {
			setHeader(m, name, value)
		}
	}
	return in, nil
}

func setHeader(m *driver.Message, name, value string) {
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	m.Headers[name] = value
}

// messageHeaders returns the headers for the message, with names in lower case
// because HTTP ignores case, and whether there are attributes of an event.
func messageHeaders(h http.Header) (out map[string]string, attributes bool, err error) {
	for key, values := range h {
		name, ok := strings.CutPrefix(key, headerPrefix)
		if !ok {
			attributes = attributes || isAttribute(key)
			continue
		}
		name = strings.ToLower(name)
		switch {
		case len(values) > 1:
			return nil, false, fmt.Errorf("the header %s is given %d times; give it once", key, len(values))
		case name == "" || strings.HasPrefix(name, cePrefix) || strings.HasPrefix(name, "hark-") || strings.HasPrefix(name, "nats-"):
			return nil, false, fmt.Errorf("the header %s: names that begin with ce-, hark- or nats- are reserved", key)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = values[0]
	}
	return out, attributes, nil
}

// isAttribute reports whether a header is an attribute of an event.
func isAttribute(key string) bool {
	return len(key) > len(cePrefix) && strings.EqualFold(key[:len(cePrefix)], cePrefix)
}

// readBinary reads an event with its attributes in headers.
func readBinary(h http.Header, contentType string, body []byte) (*driver.Message, error) {
	r := eventReader{m: &driver.Message{ContentType: contentType, Data: body}}
	for key, values := range h {
		if !isAttribute(key) {
			continue
		}
		name := strings.ToLower(key[len(cePrefix):])
		if len(values) > 1 {
			return nil, fmt.Errorf("the header %s%s is given %d times; give it once", cePrefix, name, len(values))
		}
		if name == "datacontenttype" {
			return nil, errors.New("the header ce-datacontenttype: in binary mode Content-Type is the type of the data")
		}
		value, err := headerText(values[0])
		if err == nil {
			err = r.attribute(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("the header %s%s: %w", cePrefix, name, err)
		}
	}
	return r.finish()
}

// headerText returns the value of a header. Some clients, the Go SDK among them, do
// not encode values as the binding asks, so a value that cannot have been encoded
// is used as it is.
func headerText(s string) (string, error) {
	if _, err := percent.Bytes(s); err != nil {
		return s, nil
	}
	return percent.Decode(s)
}

// readBatch reads events in the JSON format, all or none.
func readBatch(body []byte) ([]*driver.Message, error) {
	var items []json.RawMessage
	if n := countEntries(body, 1); n > maxBatchEvents {
		return nil, fmt.Errorf("the batch has %d events; want at most %d", n, maxBatchEvents)
	}
	if n := countEntries(body, 2); n > maxBatchMembers {
		return nil, fmt.Errorf("the events of the batch have %d members; want at most %d", n, maxBatchMembers)
	}
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, fmt.Errorf("the batch is not a JSON list: %w", err)
	}
	ms := make([]*driver.Message, len(items))
	var invalid invalidBatch
	for i, item := range items {
		m, err := readStructured(item)
		if err != nil {
			invalid = append(invalid, invalidItem{i, err.Error()})
		}
		ms[i] = m
	}
	if invalid != nil {
		return nil, invalid
	}
	return ms, nil
}

// countEntries returns how many elements the lists, or members the objects, at a
// given depth of a JSON text have; depth 1 is the outermost value. An empty one
// counts as having one. It runs before the text is parsed, which may not be JSON.
func countEntries(text []byte, deep int) int {
	n, depth, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth == deep {
				n++
			}
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == deep:
			n++
		}
	}
	return n
}

// readStructured reads an event in the JSON format.
func readStructured(text []byte) (*driver.Message, error) {
	var members map[string]json.RawMessage
	if n := countEntries(text, 1); n > maxMembers {
		return nil, fmt.Errorf("the event has %d members; want at most %d", n, maxMembers)
	}
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("the event is not a JSON object: %w", err)
	}
	r := eventReader{m: &driver.Message{}}
	data, encoded := members["data"], members["data_base64"]
	delete(members, "data")
	delete(members, "data_base64")
	for name, raw := range members {
		value, ok, err := attributeText(raw)
		if err == nil && ok {
			err = r.attribute(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%.60s: %w", name, err)
		}
	}
	m := r.m
	switch {
	case data != nil && encoded != nil:
		return nil, errors.New("data and data_base64: give one of them")
	case encoded != nil:
		var s string
		err := json.Unmarshal(encoded, &s)
		if err == nil {
			m.Data, err = base64.StdEncoding.DecodeString(s)
		}
		if err != nil {
			return nil, fmt.Errorf("data_base64: %w", err)
		}
	case data != nil && !isJSON(m.ContentType) && data[0] == '"':
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
		m.Data = []byte(s)
	case data != nil:
		if m.Data = data; m.ContentType == "" {
			m.ContentType = jsonType
		}
	}
	return r.finish()
}

// attributeText returns the value of an attribute in the JSON format as text. ok is
// false if it is null, which is the same as absent.
func attributeText(raw json.RawMessage) (text string, ok bool, err error) {
	switch raw[0] {
	case '"':
		err := json.Unmarshal(raw, &text)
		return text, true, err
	case 'n':
		return "", false, nil
	case 't', 'f':
		return string(raw), true, nil
	case '{', '[':
		return "", false, errors.New("an attribute must be text, a whole number or a boolean")
	}
	if bytes.ContainsAny(raw, ".eE") {
		return "", false, fmt.Errorf("got %.60s; a number in an attribute must be a whole number", raw)
	}
	return string(raw), true, nil
}

// eventReader collects the attributes of an event.
type eventReader struct {
	m       *driver.Message
	version string
}

// attribute adds an attribute.
func (r *eventReader) attribute(name, value string) error {
	m := r.m
	if !isAttributeName(name) {
		return errors.New("the name of an attribute may have only lower-case letters and digits")
	}
	if !utf8.ValidString(value) {
		return errors.New("the value is not UTF-8")
	}
	switch name {
	case "specversion":
		r.version = value
	case "id":
		m.ID = value
	case "time":
		at, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return fmt.Errorf("got %.60q, want a time such as 2026-01-02T15:04:05Z", value)
		}
		m.Time = at
	case "datacontenttype":
		if _, _, err := mime.ParseMediaType(value); err != nil {
			return fmt.Errorf("got %.60q, want a media type: %w", value, err)
		}
		m.ContentType = value
	case "partitionkey":
		m.Key, m.HasKey = value, value != "" // an empty key is no key
	default:
		setHeader(m, cePrefix+name, value)
	}
	return nil
}

func isAttributeName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// finish returns the event if it is complete.
func (r *eventReader) finish() (*driver.Message, error) {
	switch r.version {
	case "1.0":
	case "":
		return nil, errors.New("specversion is missing: want 1.0")
	default:
		return nil, fmt.Errorf("specversion: got %.60q, want 1.0", r.version)
	}
	m := r.m
	for _, must := range []struct{ name, value string }{
		{"id", m.ID}, {"source", m.Headers[cePrefix+"source"]}, {"type", m.Headers[cePrefix+"type"]},
	} {
		if must.value == "" {
			return nil, fmt.Errorf("%s is missing", must.name)
		}
	}
	return m, checkJSON(m)
}

// readPlain reads a body that is no event. Without a type, or with the type that
// curl -d sends, it counts as JSON if it parses as JSON.
func readPlain(media, contentType string, body []byte) (*driver.Message, error) {
	m := &driver.Message{ContentType: contentType, Data: body, Time: time.Now()}
	switch {
	case (media == "" || media == formType) && filter.ValidJSON(body):
		m.ContentType = jsonType
		return m, nil
	case media == "" && utf8.Valid(body):
		m.ContentType = "text/plain; charset=utf-8"
	case media == "":
		m.ContentType = "application/octet-stream"
	}
	return m, checkJSON(m)
}

// checkJSON refuses data that claims to be JSON and is not.
func checkJSON(m *driver.Message) error {
	if m.ContentType == "" || !isJSON(m.ContentType) || len(m.Data) == 0 || filter.ValidJSON(m.Data) {
		return nil
	}
	var v json.RawMessage
	err := json.Unmarshal(m.Data, &v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("the data has a JSON media type and is not JSON: %w, at byte %d", err, syntax.Offset)
	}
	return fmt.Errorf("the data has a JSON media type and is not JSON: %w", err)
}

// dedupID returns the ID by which repeats of an event are recognised: two events
// are the same if both ID and source are.
func dedupID(m *driver.Message) string { return m.Headers[cePrefix+"source"] + " " + m.ID }
