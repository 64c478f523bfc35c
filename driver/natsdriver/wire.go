package natsdriver

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/percent"
)

// The headers of a message; see the package comment.
const (
	cePrefix    = "ce-"
	ceVersion   = "ce-specversion"
	ceID        = "ce-id"
	ceSource    = "ce-source"
	ceType      = "ce-type"
	ceTime      = "ce-time"
	ceData      = "ce-datacontenttype"
	ceKey       = "ce-partitionkey"
	contentType = "content-type"

	harkExpires = "hark-expires"
	harkKey     = "hark-key"
	harkEncoded = "hark-encoded"

	specVersion = "1.0"
)

// maxHeaders limits the headers of a message that are hark's own, or the server's.
const maxHeaders = 12

// msgBuilder builds messages for the client, which does not keep them. Most have the
// same headers as the one before; then only the values change, which the map refers
// to as slices of an array.
type msgBuilder struct {
	msg    nats.Msg
	header nats.Header // the value of msg.Header, if that is not nil
	names  [maxHeaders]string
	values [maxHeaders]string
	used   int  // how many of values
	kept   int  // how many names in header have their values in values
	others bool // header has other names, too
}

var msgBuilders = sync.Pool{New: func() any { return new(msgBuilder) }}

// write builds the NATS message that carries a message of a topic to subject. It is
// valid until the next write.
func (l *msgBuilder) write(c *Conn, subject, topic string, m *driver.Message) (*nats.Msg, error) {
	l.begin(subject, m.Data)
	err := l.fill(c, topic, m)
	return &l.msg, err
}

// writeFitting is write to the topic's own subject. It returns an error if the message
// is larger than the server accepts.
func (l *msgBuilder) writeFitting(c *Conn, topic string, m *driver.Message) (*nats.Msg, error) {
	msg, err := l.write(c, topic, topic, m)
	if err == nil {
		err = c.fits(msg)
	}
	return msg, err
}

// encode is write with a builder of its own.
func (c *Conn) encode(subject, topic string, m *driver.Message) (*nats.Msg, error) {
	return new(msgBuilder).write(c, subject, topic, m)
}

// begin starts a message without headers; set adds them.
func (l *msgBuilder) begin(subject string, data []byte) {
	l.msg, l.used = nats.Msg{Subject: subject, Data: data}, 0
	if l.others {
		clear(l.header)
		l.kept, l.others = 0, false
	}
}

// fill adds the headers.
func (l *msgBuilder) fill(c *Conn, topic string, m *driver.Message) error {
	if !m.Bare {
		l.envelope(c, topic, m)
	}
	if !m.Expires.IsZero() {
		l.set(harkExpires, m.Expires.UTC().Format(time.RFC3339Nano))
	}
	l.trim()
	if len(m.Headers) == 0 {
		return nil
	}
	l.others = true
	return addHeaders(l.headers(), m)
}

// headers returns the headers of the message, for adding to them.
func (l *msgBuilder) headers() nats.Header {
	if l.header == nil {
		l.header = make(nats.Header) // maps of up to eight entries are the fastest to read
	}
	l.msg.Header = l.header
	return l.header
}

// set sets a single-valued header that has not been set yet.
func (l *msgBuilder) set(name, value string) {
	i := l.used
	l.values[i] = value
	h := l.headers()
	if i == l.kept || l.names[i] != name {
		l.trim()
		l.names[i], l.kept = name, i+1
		h[name] = l.values[i : i+1 : i+1]
	}
	l.used++
}

// trim removes headers of the previous message that have not been set again.
func (l *msgBuilder) trim() {
	for l.kept > l.used {
		l.kept--
		delete(l.header, l.names[l.kept])
	}
}

// envelope adds the attributes of the event.
func (l *msgBuilder) envelope(c *Conn, topic string, m *driver.Message) {
	id, at := percent.Encode(m.ID), ""
	if id == "" {
		id, at = c.ids.nextAt(m.Time)
	} else if !m.Time.IsZero() {
		at = m.Time.UTC().Format(time.RFC3339Nano)
	}
	l.set(ceVersion, specVersion)
	l.set(ceID, id)
	l.set(ceSource, percent.Encode(c.opts.source))
	l.set(ceType, percent.Encode(topic))
	if at != "" {
		l.set(ceTime, at)
	}
	if m.ContentType != "" {
		l.set(ceData, percent.Encode(m.ContentType))
	}
	if m.HasKey {
		l.set(ceKey, percent.Encode(m.Key))
	}
}

// own are the headers that Headers of a message must not contain: a message has
// fields for them.
var own = []string{ceVersion, ceID, ceTime, ceData, ceKey, harkExpires, harkKey, harkEncoded}

// addHeaders adds the message's own headers.
func addHeaders(h nats.Header, m *driver.Message) error {
	var encoded []string
	for name, value := range m.Headers {
		switch reason := headerFault(name, m.Bare); {
		case reason != "":
			return fmt.Errorf("header %q: %s", name, reason)
		case !m.Bare && hasPrefixFold(name, cePrefix):
			h[strings.ToLower(name)] = []string{percent.Encode(value)}
		case plain(value):
			h[name] = []string{value}
		default:
			encoded = append(encoded, name)
			h[name] = []string{percent.Encode(value)}
		}
	}
	if len(encoded) > 0 {
		slices.Sort(encoded)
		h[harkEncoded] = []string{strings.Join(encoded, " ")}
	}
	return nil
}

// headerFault returns why a header cannot be sent, or "" if it can.
func headerFault(name string, bare bool) string {
	if name == "" {
		return "the name is empty"
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return "the NATS client allows letters, digits and !#$%&'*+-.^_`|~ in names"
		}
	}
	switch {
	case hasPrefixFold(name, "nats-"):
		return "names that begin with Nats- are reserved for the server"
	case !bare && slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, name) }):
		return "it is set by the engine"
	case strings.EqualFold(name, "status") || strings.EqualFold(name, "description"):
		return "NATS uses it itself"
	}
	return ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// plain reports whether NATS carries a value unchanged.
func plain(value string) bool {
	if value == "" {
		return true
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	return !blank(value[0]) && !blank(value[len(value)-1])
}
