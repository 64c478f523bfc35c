package natsdriver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/percent"
)

// decode reads a message of a topic, from any publisher. Headers that it cannot
// interpret stay as they came. Of a repeated header, the first counts. The type and
// source of an event are among the headers when the type is not the topic, which it
// is in hark's own messages, or with the option Attributes.
func (c *Conn) decode(msg *nats.Msg, topic string) *driver.Received {
	r := &driver.Received{}
	c.decodeInto(r, msg, topic)
	return r
}

// decodeInto is decode into an existing Received.
func (c *Conn) decodeInto(r *driver.Received, msg *nats.Msg, topic string) {
	if r.Topic != topic { // it is the same where r is used again
		r.Topic = topic
	}
	r.Deliveries = 1
	m := &r.Message
	m.Data, m.Bare = msg.Data, true
	if len(msg.Header) > 0 {
		c.readHeaders(m, msg.Header, topic)
	}
}

// readHeaders reads the headers of a message.
func (c *Conn) readHeaders(m *driver.Message, header nats.Header, topic string) {
	var typ, source string
	for name, values := range header {
		switch {
		case len(values) == 0:
		case name == ceType:
			typ = values[0]
		case name == ceSource:
			source = values[0]
		case !readOwn(m, name, values[0]):
			setHeader(m, name, values[0])
		}
	}
	if typ != "" && (c.opts.attributes || typ != topic && typ != percent.Encode(topic)) {
		setHeader(m, ceType, typ)
		setHeader(m, ceSource, source)
	}
	if m.Headers != nil {
		settle(m)
	}
}

func setHeader(m *driver.Message, name, value string) {
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	m.Headers[name] = value
}

// readOwn reads a header that has its own field in a message, and reports whether
// name is one.
func readOwn(m *driver.Message, name, value string) bool {
	switch name { // nearly all messages spell them like this
	case ceVersion, ceID, ceTime, ceData, ceKey, harkKey, harkExpires:
	case natsExpectedStream: // requests have it
		return true
	default:
		if name = strings.ToLower(name); !strings.HasPrefix(name, cePrefix) && !strings.HasPrefix(name, "hark-") {
			return strings.HasPrefix(name, "nats-")
		}
	}
	switch name {
	case harkExpires:
		at, err := parseTime(value)
		m.Expires = at
		return err == nil
	case ceVersion:
		m.Bare = false
		return true
	case ceID, ceTime, ceData, ceKey, harkKey:
	default:
		return false
	}
	text, err := percent.Decode(value)
	if err != nil {
		return false
	}
	switch name {
	case ceID:
		m.ID = text
	case ceTime:
		m.Time, err = parseTime(text)
	case ceData:
		m.ContentType = text
	case ceKey, harkKey:
		m.Key, m.HasKey = text, true
	}
	return err == nil
}

// parseTime reads a time. It refuses offsets of a day or more, which time.Parse accepts:
// such a time cannot be written as JSON.
func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if _, offset := at.Zone(); err == nil && (offset <= -24*60*60 || offset >= 24*60*60) {
		return time.Time{}, fmt.Errorf("%s is a day or more away from UTC", text)
	}
	return at, err
}

// settle interprets headers that depend on others: those that hark encoded, the
// attributes of an event that have no field of their own, and an event in
// structured mode.
func settle(m *driver.Message) {
	if names, ok := m.Headers[harkEncoded]; ok {
		delete(m.Headers, harkEncoded)
		last := ""
		for name := range strings.FieldsSeq(names) {
			value, ok := m.Headers[name]
			if !ok || name <= last { // they are sorted, and each is decoded once
				continue
			}
			last = name
			if text, err := percent.Bytes(value); err == nil {
				m.Headers[name] = string(text)
			}
		}
	}
	for name, value := range m.Headers {
		switch {
		case strings.EqualFold(name, contentType):
			if isStructured(value) && structured(m) == nil {
				delete(m.Headers, name)
			} else if m.ContentType == "" {
				m.ContentType = value
			}
		case !m.Bare && hasPrefixFold(name, cePrefix):
			if text, err := percent.Decode(value); err == nil {
				m.Headers[name] = text
			}
		}
	}
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
}

func isStructured(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/cloudevents" || media == "application/cloudevents+json")
}

// structured reads an event in the JSON format from m.Data. If it fails it leaves m
// unchanged.
func structured(m *driver.Message) error {
	var event map[string]json.RawMessage
	if err := json.Unmarshal(m.Data, &event); err != nil {
		return err
	}
	if event["specversion"] == nil {
		return fmt.Errorf("specversion is missing")
	}
	into := driver.Message{Headers: map[string]string{}, Expires: m.Expires}
	for name, raw := range event {
		if name == "data" {
			into.Data = raw
			continue
		}
		text := string(raw) // numbers and booleans stay as written
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &text); err != nil {
				return err
			}
		}
		var err error
		switch name {
		case "specversion":
		case "data_base64":
			into.Data, err = base64.StdEncoding.DecodeString(text)
		case "id":
			into.ID = text
		case "time":
			into.Time, err = parseTime(text)
		case "datacontenttype":
			into.ContentType = text
		case "partitionkey":
			into.Key, into.HasKey = text, true
		default:
			into.Headers[cePrefix+name] = text
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if into.ContentType == "" {
		into.ContentType = "application/json"
	}
	if data := into.Data; !isJSON(into.ContentType) && len(data) > 0 && data[0] == '"' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		into.Data = []byte(text)
	}
	maps.Copy(into.Headers, m.Headers)
	*m = into
	return nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"))
}
