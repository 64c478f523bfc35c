package hark

import (
	"mime"
	"time"

	"github.com/harkbus/hark/driver"
)

// Predicates that match messages of an engine before these are decoded.

// matchEncoded reports whether all predicates can match encoded messages.
func matchEncoded(where []Predicate) bool {
	for _, p := range where {
		if e, ok := p.(EncodedPredicate); !ok || !e.MatchesEncoded() {
			return false
		}
	}
	return len(where) > 0
}

// wants reports whether the predicates let a message through. A message that
// they reject is accounted for. If they cannot be asked yet, the message is let
// through, and they are asked after it has been decoded.
func (in *inbox[T]) wants(a *arrival) bool {
	if kind, _, err := mime.ParseMediaType(a.ContentType); err != nil || kind != jsonType {
		return true
	}
	if !a.Expires.IsZero() && !time.Now().Before(a.Expires) {
		return true
	}
	c := in.member.consumer
	matched, failed, asked := siftEncoded(in.member.cfg.where, encodedEnvelope{a.Received})
	if a.sifted = asked && matched; matched || !asked {
		return true
	}
	c.mu.Lock()
	c.passed++
	c.mu.Unlock()
	if failed {
		c.need().tally.filterErrors.Add(1)
	}
	c.need().tally.filtered.Add(1)
	a.settled()
	c.tellIdle()
	return false
}

// siftEncoded asks the predicates about a message. If one panics, asked is
// false.
func siftEncoded(where []Predicate, e Envelope) (matched, failed, asked bool) {
	defer func() {
		if !asked {
			_ = recover() // it will panic again where the panics of handlers are caught
		}
	}()
	for _, p := range where {
		if q, ok := p.(Evaluator); ok {
			ok, err := q.Eval(e)
			if err != nil || !ok {
				return false, err != nil, true
			}
		} else if !p.Match(e) {
			return false, false, true
		}
	}
	return true, false, true
}

// encodedEnvelope is a message as an engine delivered it.
type encodedEnvelope struct{ m *driver.Received }

func (e encodedEnvelope) Topic() string   { return e.m.Topic }
func (e encodedEnvelope) ID() string      { return e.m.ID }
func (e encodedEnvelope) Source() string  { return e.m.Headers["source"] }
func (e encodedEnvelope) Type() string    { return e.m.Headers["type"] }
func (e encodedEnvelope) Subject() string { return e.m.Headers["subject"] }
func (e encodedEnvelope) Key() string     { return e.m.Key }
func (e encodedEnvelope) Time() time.Time { return e.m.Time }
func (e encodedEnvelope) Data() any       { return e.m.Data }

func (e encodedEnvelope) Header(name string) (string, bool) {
	value, ok := e.m.Headers[name]
	return value, ok
}
