package hark

import (
	"time"
)

// Envelope is what is known about a message without its type. Every *Message[T]
// is one. It is an alias of an interface literal, so that packages that evaluate
// messages, such as filter, need not import this one.
type Envelope = interface {
	// Topic is the name of the topic it was published to.
	Topic() string
	// ID identifies the message; empty if it was published without one.
	ID() string
	// Source, Type and Subject are the CloudEvents attributes of these names:
	// the headers "source", "type" and "subject".
	Source() string
	Type() string
	Subject() string
	// Key is the key that orders it; empty without one.
	Key() string
	// Time is when it was published; zero if nothing recorded it.
	Time() time.Time
	// Header returns a header and whether it is set.
	Header(name string) (value string, ok bool)
	// Data points to the value, or is its encoding as a []byte where the
	// message has not been decoded. It must not be changed or kept.
	Data() any
}

// Message is a value on its way from a publisher to a handler.
//
// A message is valid until its handler returns, and is reused afterwards: a
// handler that keeps one, or hands it to a goroutine that outlives it, must keep
// a Clone. Messages of an iterator may be kept. Its methods may be called
// concurrently while it is valid.
type Message[T any] struct {
	// Value is the value as it was published: in process the very same, not a
	// copy of what it points to.
	Value T

	Delivery
}

// Delivery is the part of a message that does not depend on its type: the
// metadata that the publisher set, and how often the message has been tried.
type Delivery struct {
	meta    *meta // nil if the publisher set nothing
	topic   *topicCore
	seq     uint64 // ordinal in its log
	attempt int32  // failed attempts so far
}

// meta is what a publisher set for a message besides its value. It does not
// change after the message is published.
type meta struct {
	id      string
	key     string
	hasKey  bool
	headers map[string]string
	time    time.Time
	delay   time.Duration // from time until it was due
	expires time.Time     // zero: never
	failure *Failure
	arrival *arrival // how it arrived from an engine; nil in process
}

// entered returns when the message was ready for delivery.
func (m *meta) entered() time.Time { return m.time.Add(m.delay) }

// Failure is the record that comes with a dead letter. Over an engine, Reason
// and Stack are truncated if the message would otherwise be larger than the
// engine accepts.
type Failure struct {
	Topic        string    // where the message was published
	Subscription string    // whose handler failed
	Reason       string    // the text of the last error
	Stack        string    // of the panic, if the last attempt panicked
	Attempts     int       // how often the handler was given the message
	First, Last  time.Time // when the first and the last attempt failed
	Seq          uint64    // of the message on its topic, 0 if that is not stored
	// Before names the topics on which the message had failed before, the first
	// one first: it was a dead letter already. It is not made one there again.
	Before []string `json:",omitempty"`
}

// Topic returns the name of the topic that the message was published to.
func (d *Delivery) Topic() string {
	if a := d.arrival(); a != nil {
		return a.Topic
	}
	return d.topic.name
}

// arrival returns how the message arrived from an engine, nil in process.
func (d *Delivery) arrival() *arrival {
	if d.meta == nil {
		return nil
	}
	return d.meta.arrival
}

// ID returns the ID that the publisher passed, or that a stored topic generated;
// otherwise it is empty.
func (d *Delivery) ID() string {
	if d.meta == nil {
		return ""
	}
	return d.meta.id
}

// Seq returns the sequence of the message on its stored topic, from 1; 0 on an
// ephemeral topic.
func (d *Delivery) Seq() uint64 {
	if a := d.arrival(); a != nil {
		return a.Seq
	}
	if d.topic.retention == nil {
		return 0
	}
	return d.seq + 1
}

// Attempt returns how often the message has been given to a handler of the
// subscription, this time included: 1 at first.
func (d *Delivery) Attempt() int { return int(d.attempt) + 1 }

// Time returns when the message was published. Only stored topics, and messages
// published with a header, ID, key, delay or TTL, record it. Otherwise it is
// zero, because reading the clock costs more than publishing.
func (d *Delivery) Time() time.Time {
	if d.meta == nil {
		return time.Time{}
	}
	return d.meta.time
}

// Header returns a header set by the publisher, and reports whether it is set.
func (d *Delivery) Header(name string) (value string, ok bool) {
	if d.meta == nil {
		return "", false
	}
	value, ok = d.meta.headers[name]
	return value, ok
}

// Headers returns the headers set by the publisher, nil if there are none. The
// map must not be changed.
func (d *Delivery) Headers() map[string]string {
	if d.meta == nil {
		return nil
	}
	return d.meta.headers
}

// ContentType returns the media type of the encoding in which the message came
// from an engine, as its publisher set it. It is empty in process, where values
// are not encoded.
func (d *Delivery) ContentType() string {
	if a := d.arrival(); a != nil {
		return a.ContentType
	}
	return ""
}

// Source returns the header "source".
func (d *Delivery) Source() string { s, _ := d.Header("source"); return s }

// Type returns the header "type".
func (d *Delivery) Type() string { s, _ := d.Header("type"); return s }

// Subject returns the header "subject".
func (d *Delivery) Subject() string { s, _ := d.Header("subject"); return s }

// Failure returns the failure record of a dead letter, nil for others.
func (d *Delivery) Failure() *Failure {
	if d.meta == nil {
		return nil
	}
	return d.meta.failure
}

// Key returns the key that the publisher passed to Key, or else what the topic's
// KeyBy returns for the value; empty without either.
func (m *Message[T]) Key() string {
	if m.meta != nil && m.meta.hasKey {
		return m.meta.key
	}
	if m.topic.keyOf == nil {
		return ""
	}
	return m.topic.keyOf(m.Data())
}

// Data returns a pointer to the value, as *T. For a subscription to values of
// any type, where T is any, it is a pointer to the any.
func (m *Message[T]) Data() any { return &m.Value }

// Clone returns a copy that may be kept.
func (m *Message[T]) Clone() *Message[T] {
	c := *m
	return &c
}

// AnyMessage is a message as middleware sees it: every *Message[T] is one.
type AnyMessage interface {
	Envelope
	Seq() uint64
	Attempt() int
	Headers() map[string]string
	Failure() *Failure
}
