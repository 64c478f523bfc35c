package hark

import "time"

// Envelope is what can be said about a message without knowing its type. Every
// *Message[T] is one. It is an alias of an interface literal, so that packages
// that evaluate messages, such as filter, need not import this one.
type Envelope = interface {
	// Topic is the name of the topic it was published to.
	Topic() string
	// ID identifies the message; empty if the publisher set none and nothing
	// asked for one.
	ID() string
	// Source, Type and Subject are the CloudEvents attributes of the same
	// names; in process they are what the publisher set with Header, and
	// empty otherwise.
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
