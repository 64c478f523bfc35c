package broker

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
)

// Event is a message of an engine as filters and templates see it, and as JSON. The
// names are those of the JSON format of CloudEvents, extensions included, together
// with topic, key, headers and seq. Where a message has no header type, source or
// subject, the attribute of its CloudEvent takes its place.
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

// cePrefix begins the headers that hold attributes of an event.
const cePrefix = "ce-"

// Header implements filter.Envelope.
func (e *Event) Header(name string) (string, bool) {
	s, ok := e.Message.Headers[name]
	return s, ok
}

// eventJSON is the form in which an Event is decoded, and its shape in the OpenAPI
// document.
type eventJSON struct {
	Topic       string            `json:"topic"`
	Seq         uint64            `json:"seq,omitempty"`
	ID          string            `json:"id,omitempty"`
	Source      string            `json:"source,omitempty"`
	Type        string            `json:"type,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Time        *time.Time        `json:"time,omitempty"`
	Key         *string           `json:"key,omitempty"`
	Partition   *string           `json:"partitionkey,omitempty"` // the CloudEvents name of the key
	Headers     map[string]string `json:"headers,omitempty"`
	ContentType string            `json:"datacontenttype,omitempty"`
	Data        json.RawMessage   `json:"data,omitempty"`
	Base64      []byte            `json:"data_base64,omitempty"`
}

// MarshalJSON implements json.Marshaler. Data that is not JSON becomes a string, or
// is encoded in base64.
func (e *Event) MarshalJSON() ([]byte, error) {
	m := e.Message
	text, err := e.appendMembers(append(make([]byte, 0, len(m.Data)+256), '{'), m.ID, e.Source(), e.Type())
	return append(text, '}'), err
}

// appendCloudEvent appends an event as one line of JSON that is a valid CloudEvent.
// It fills in what the publisher has left out: the ID, from the message's place or
// else by made, and the source. Otherwise it does what MarshalJSON does.
func (e *Event) appendCloudEvent(dst []byte, source string, made func() string) ([]byte, error) {
	m := e.Message
	id := m.ID
	if id == "" {
		id = made()
	}
	text, err := e.appendMembers(append(dst, `{"specversion":"1.0",`...), id, cmp.Or(e.Source(), source), cmp.Or(e.Type(), m.Topic))
	if err == nil && m.Deliveries > 1 {
		text = strconv.AppendInt(append(text, `,"deliveries":`...), int64(m.Deliveries), 10)
	}
	return append(text, '}'), err
}

// appendMembers appends the members of an event as JSON, without the braces. It is
// written by hand because messages followed over HTTP wait for it: encoding/json
// takes three times as long (BenchmarkFrame), as it scans the data twice more.
func (e *Event) appendMembers(dst []byte, id, source, typ string) ([]byte, error) {
	m := e.Message
	dst = appendText(append(dst, `"topic":`...), m.Topic)
	if m.Seq > 0 {
		dst = strconv.AppendUint(append(dst, `,"seq":`...), m.Seq, 10)
	}
	dst = appendMember(dst, `,"id":`, id)
	dst = appendMember(dst, `,"source":`, source)
	dst = appendMember(dst, `,"type":`, typ)
	dst = appendMember(dst, `,"subject":`, e.Subject())
	if !m.Time.IsZero() {
		var err error
		if dst, err = m.Time.AppendText(append(dst, `,"time":"`...)); err != nil {
			return dst, err
		}
		dst = append(dst, '"')
	}
	if m.HasKey {
		dst = appendText(append(dst, `,"key":`...), m.Key)
	}
	if len(m.Headers) == 0 {
		return appendData(dst, m), nil
	}
	var headers, extensions []string
	for name := range m.Headers {
		attribute, ok := strings.CutPrefix(name, cePrefix)
		switch {
		case ok && isAttributeName(attribute) && !ownMembers[attribute]:
			extensions = append(extensions, name)
		case ok, name == "type", name == "source", name == "subject":
		default:
			headers = append(headers, name)
		}
	}
	slices.Sort(headers)
	for i, name := range headers {
		before := ","
		if i == 0 {
			before = `,"headers":{`
		}
		dst = appendText(append(appendText(append(dst, before...), name), ':'), m.Headers[name])
	}
	if headers != nil {
		dst = append(dst, '}')
	}
	dst = appendData(dst, m)
	slices.Sort(extensions)
	for _, name := range extensions {
		dst = appendText(append(appendText(append(dst, ','), name[len(cePrefix):]), ':'), m.Headers[name])
	}
	return dst, nil
}

// appendData appends the data of a message, and its type unless that is JSON.
func appendData(dst []byte, m *driver.Received) []byte {
	typ := m.ContentType
	if isJSON(typ) {
		typ = ""
		if len(m.Data) == 0 {
			return dst
		}
		if line, ok := appendJSON(append(dst, `,"data":`...), m.Data); ok {
			return line
		}
	}
	asText := utf8.Valid(m.Data)
	if typ == "" && asText {
		typ = "text/plain" // so that it reads back as it was
	}
	dst = appendMember(dst, `,"datacontenttype":`, typ)
	switch {
	case len(m.Data) == 0:
	case asText:
		dst = appendText(append(dst, `,"data":`...), string(m.Data))
	default:
		dst = append(base64.StdEncoding.AppendEncode(append(dst, `,"data_base64":"`...), m.Data), '"')
	}
	return dst
}

// appendJSON appends text if it is valid JSON, without white space between its values,
// and so as one line.
func appendJSON(dst, text []byte) (line []byte, ok bool) {
	if filter.CompactJSON(text) {
		return append(dst, text...), true
	}
	b := bytes.NewBuffer(dst)
	err := json.Compact(b, text)
	return b.Bytes(), err == nil
}

// appendMember appends a member of an object, unless its value is empty. name is
// everything before the value.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(append(dst, name...), value)
}

// appendText appends a string as JSON.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendEscaped is appendText for any string.
func appendEscaped(dst []byte, s string) []byte {
	text, err := appendJSONLine(dst, s)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return bytes.TrimSuffix(text, []byte("\n"))
}

// ownMembers are the JSON members of an event that are not extensions.
var ownMembers = map[string]bool{
	"specversion": true, "topic": true, "seq": true, "id": true, "source": true, "type": true, "subject": true, "time": true,
	"key": true, "partitionkey": true, "headers": true, "datacontenttype": true, "data": true, "deliveries": true,
}

// isJSON reports whether a media type is JSON. Data without a type counts as JSON.
func isJSON(contentType string) bool {
	media, err := mediaType(contentType)
	return contentType == "" || err == nil && (strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"))
}

// mediaType returns a media type in lower case without its parameters, or "" for
// "".
func mediaType(contentType string) (string, error) {
	switch contentType {
	case "", jsonType, structuredType, batchType: // nearly all messages have one of these; parsing allocates a map
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
		return errors.New("data and data_base64: give one of them")
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

// readExtensions reads the JSON members of an event that are extensions.
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
