package filter

import "time"

// Envelope is the message that a filter evaluates. It has the method set of the
// messages of package hark, so that a *Filter is a predicate for hark.Where; the
// two packages do not import each other.
//
// Data is the payload: a pointer to a Go value, whose fields are read by their
// JSON names, or JSON text as []byte, json.RawMessage or a pointer to one of
// these. The text must not change while a filter evaluates it.
type Envelope = interface {
	ID() string
	Source() string
	Type() string
	Subject() string
	Topic() string
	Key() string
	Time() time.Time
	Header(name string) (value string, ok bool)
	Data() any
}

// attribute is a variable whose value the envelope itself holds.
type attribute uint8

const (
	attrID attribute = iota
	attrSource
	attrType
	attrSubject
	attrTopic
	attrKey
	attrTime
)

var attributes = map[string]attribute{
	"id":      attrID,
	"source":  attrSource,
	"type":    attrType,
	"subject": attrSubject,
	"topic":   attrTopic,
	"key":     attrKey,
	"time":    attrTime,
}

// text returns the value of an attribute that is a string.
func (a attribute) text(m Envelope) string {
	switch a {
	case attrID:
		return m.ID()
	case attrSource:
		return m.Source()
	case attrType:
		return m.Type()
	case attrSubject:
		return m.Subject()
	case attrTopic:
		return m.Topic()
	}
	return m.Key()
}
