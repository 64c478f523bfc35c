package broker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harkbus/hark/driver"
)

// Event is a message of an engine as filters and templates see it, and as JSON:
// the names are those of the JSON format of CloudEvents, extensions included, with
// topic, key, headers and seq beside them. Where a message has no header type, source or subject,
// these are the attributes of its CloudEvent.
type Event struct{ Message *driver.Received }

// ID implements filter.Envelope.
func (e *Event) ID() string { return e.Message.ID }

// Topic implements filter.Envelope.
func (e *Event) Topic() string { return e.Message.Topic }

// Key implements filter.Envelope.
func (e *Event) Key() string { return e.Message.Key }

// Time implements filter.Envelope.
func (e *Event) Time() time.Time { return e.Message.Time }

// Data implements filter.Envelope.
func (e *Event) Data() any { return e.Message.Data }

// Source implements filter.Envelope.
func (e *Event) Source() string { return e.attribute("source") }

// Type implements filter.Envelope.
func (e *Event) Type() string { return e.attribute("type") }

// Subject implements filter.Envelope.
func (e *Event) Subject() string { return e.attribute("subject") }

func (e *Event) attribute(name string) string {
	if s, ok := e.Message.Headers[name]; ok {
		return s
	}
	return e.Message.Headers[cePrefix+name]
}

// cePrefix begins the headers that are attributes of an event.
const cePrefix = "ce-"

// Header implements filter.Envelope.
func (e *Event) Header(name string) (string, bool) {
	s, ok := e.Message.Headers[name]
	return s, ok
}

// eventJSON is an Event as it is written.
type eventJSON struct {
	Topic       string            `json:"topic"`
	Seq         uint64            `json:"seq,omitempty"`
	ID          string            `json:"id,omitempty"`
	Source      string            `json:"source,omitempty"`
	Type        string            `json:"type,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Time        *time.Time        `json:"time,omitempty"`
	Key         *string           `json:"key,omitempty"`
	Partition   *string           `json:"partitionkey,omitempty"` // what CloudEvents calls the key; only read
	Headers     map[string]string `json:"headers,omitempty"`
	ContentType string            `json:"datacontenttype,omitempty"`
	Data        json.RawMessage   `json:"data,omitempty"`
	Base64      []byte            `json:"data_base64,omitempty"`
}

// MarshalJSON implements json.Marshaler. Data that is no JSON is a string, or in
// base64.
func (e *Event) MarshalJSON() ([]byte, error) {
	out, err := e.written()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(out)
	return e.withExtensions(text), err
}

// appendCloudEvent appends an event as one line of JSON that is a CloudEvent, with
// what its publisher has left out: the ID made of its place or by made, and the
// source. It is MarshalJSON otherwise.
func (e *Event) appendCloudEvent(dst []byte, source string, made func() string) ([]byte, error) {
	out, err := e.written()
	if err != nil {
		return nil, err
	}
	whole := struct {
		Version string `json:"specversion"`
		eventJSON
		Deliveries int `json:"deliveries,omitempty"`
	}{"1.0", *out, 0}
	if e.Message.Deliveries > 1 {
		whole.Deliveries = e.Message.Deliveries
	}
	if whole.ID == "" {
		whole.ID = made()
	}
	whole.Source, whole.Type = cmp.Or(whole.Source, source), cmp.Or(whole.Type, whole.Topic)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(whole); err != nil {
		return nil, err
	}
	return append(dst, e.withExtensions(bytes.TrimSuffix(b.Bytes(), []byte("\n")))...), nil
}

// ownMembers are the members of an event as JSON that are no extensions.
var ownMembers = map[string]bool{
	"specversion": true, "topic": true, "seq": true, "id": true, "source": true, "type": true, "subject": true, "time": true,
	"key": true, "partitionkey": true, "headers": true, "datacontenttype": true, "data": true, "deliveries": true,
}

// withExtensions adds the extensions of an event to its JSON.
func (e *Event) withExtensions(text []byte) []byte {
	var names []string
	for header := range e.Message.Headers {
		if name, ok := strings.CutPrefix(header, cePrefix); ok && isAttributeName(name) && !ownMembers[name] {
			names = append(names, name)
		}
	}
	if names == nil || len(text) == 0 {
		return text
	}
	slices.Sort(names)
	text = text[:len(text)-1]
	for _, name := range names {
		name, value := jsonText(name), jsonText(e.Message.Headers[cePrefix+name])
		text = append(append(append(append(text, ','), name...), ':'), value...)
	}
	return append(text, '}')
}

// jsonText returns a string as JSON.
func jsonText(s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can be written
	}
	return text
}

// written returns an event as it is written, without extensions.
func (e *Event) written() (*eventJSON, error) {
	m := e.Message
	out := &eventJSON{Topic: m.Topic, Seq: m.Seq, ID: m.ID, Source: e.Source(), Type: e.Type(), Subject: e.Subject()}
	if m.HasKey {
		out.Key = &m.Key
	}
	if !m.Time.IsZero() {
		out.Time = &m.Time
	}
	for name, value := range m.Headers {
		if strings.HasPrefix(name, cePrefix) || name == "type" || name == "source" || name == "subject" {
			continue
		}
		if out.Headers == nil {
			out.Headers = map[string]string{}
		}
		out.Headers[name] = value
	}
	if !isJSON(m.ContentType) {
		out.ContentType = m.ContentType
	}
	switch {
	case len(m.Data) == 0:
	case isJSON(m.ContentType) && json.Valid(m.Data):
		out.Data = m.Data
	case utf8.Valid(m.Data):
		text, err := json.Marshal(string(m.Data))
		if err != nil {
			return nil, err
		}
		if out.Data = text; out.ContentType == "" {
			out.ContentType = "text/plain" // so that it is read as it was
		}
	default:
		out.Base64 = m.Data
	}
	return out, nil
}

// isJSON reports whether a media type is JSON. Without one, data is taken to be.
func isJSON(contentType string) bool {
	media, err := mediaType(contentType)
	return contentType == "" || err == nil && (strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"))
}

// mediaType returns a media type without its parameters, in small letters; that of
// nothing is empty.
func mediaType(contentType string) (string, error) {
	switch contentType {
	case "", jsonType, structuredType, batchType: // what nearly all say; parsing makes a map
		return contentType, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	return media, err
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Event) UnmarshalJSON(text []byte) error {
	var in eventJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	m := &driver.Received{Topic: in.Topic, Seq: in.Seq}
	m.ID, m.Headers, m.ContentType = in.ID, in.Headers, in.ContentType
	if err := readExtensions(&m.Message, text); err != nil {
		return err
	}
	if in.Time != nil {
		m.Time = *in.Time
	}
	for _, key := range []*string{in.Partition, in.Key} {
		if key != nil {
			m.Key, m.HasKey = *key, true
		}
	}
	for name, value := range map[string]string{"source": in.Source, "type": in.Type, "subject": in.Subject} {
		if value != "" {
			setHeader(&m.Message, cePrefix+name, value)
		}
	}
	switch {
	case in.Data != nil && in.Base64 != nil:
		return errors.New("data and data_base64: want one of them")
	case in.Base64 != nil:
		m.Data = in.Base64
	case isJSON(in.ContentType):
		m.Data = in.Data
	default:
		var s string
		if err := json.Unmarshal(in.Data, &s); err != nil {
			return fmt.Errorf("data of type %s: want a string", in.ContentType)
		}
		m.Data = []byte(s)
	}
	e.Message = m
	return nil
}

// readExtensions takes the members of an event as JSON that are extensions.
func readExtensions(m *driver.Message, text []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	for name, raw := range members {
		if ownMembers[name] || !isAttributeName(name) {
			continue
		}
		value, ok, err := attributeText(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if ok {
			setHeader(m, cePrefix+name, value)
		}
	}
	return nil
}
