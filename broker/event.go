package broker

import (
	"time"

	"github.com/harkbus/hark/driver"
)

// event is a message as filters and templates see it. Where a message has no
// header type, source or subject, these are the attributes of its CloudEvent.
type event struct{ m *driver.Received }

// ID implements filter.Envelope, as do the following.
func (e *event) ID() string      { return e.m.ID }
func (e *event) Topic() string   { return e.m.Topic }
func (e *event) Key() string     { return e.m.Key }
func (e *event) Time() time.Time { return e.m.Time }
func (e *event) Data() any       { return e.m.Data }
func (e *event) Source() string  { return e.attribute("source") }
func (e *event) Type() string    { return e.attribute("type") }
func (e *event) Subject() string { return e.attribute("subject") }

func (e *event) attribute(name string) string {
	if s, ok := e.m.Headers[name]; ok {
		return s
	}
	return e.m.Headers["ce-"+name]
}

// Header implements filter.Envelope.
func (e *event) Header(name string) (string, bool) {
	s, ok := e.m.Headers[name]
	return s, ok
}
