package hark

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
)

const (
	deadSuffix = ".dead"
	// deadKept is how many dead letters a topic created for them keeps.
	deadKept = 10000
)

// deadTopic returns the topic for dead letters with the given name. If it
// exists, it is used as it is; otherwise it is created as a stored topic.
func deadTopic[T any](b *Bus, name string) (*Topic[T], error) {
	over := func() bool { return b.stopped } // what fails while the bus drains is kept too
	if b.has(KindTopic, name) {
		return newTopicUntil[T](b, over, KindTopic, name, 0, nil)
	}
	kept := Stored(Retention{MaxMessages: deadKept})
	asItIs := topicOption(func(c *topicConfig) error { c.existing, c.dead = true, true; return nil })
	t, err := newTopicUntil[T](b, over, KindTopic, name, 0, []TopicOption{kept, DedupWindow(0), asItIs})
	if errors.Is(err, ErrInvalidOption) { // created meanwhile with other options
		return newTopicUntil[T](b, over, KindTopic, name, 0, nil)
	}
	return t, err
}

// forDeadLetters tells the engine that a stored topic which was opened for something else is
// for dead letters too, so that tools find it.
func (r *remoteTopic) forDeadLetters() error {
	if r == nil || r.config.Stored == nil || r.config.Stored.DeadLetters {
		return nil
	}
	cfg := *r.config.Stored
	cfg.Existing, cfg.DeadLetters = true, true
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	_, err := r.engine.conn.OpenTopic(ctx, driver.TopicConfig{Name: r.config.Name, Stored: &cfg})
	return engineError(err)
}

// burial returns a function that publishes dead letters of T to a topic.
func burial[T any](b *Bus) func(to string, data any, m *meta) error {
	return func(to string, data any, m *meta) error {
		dead, err := deadTopic[T](b, to)
		if err != nil {
			return err
		}
		return dead.deposit(entry[T]{value: valueAt[T](data), meta: m})
	}
}

// newFailure returns the record of a message that is given up with e. earlier
// is not nil if the message was itself a dead letter.
func newFailure(topic string, seq uint64, subscription string, e FailEvent, now time.Time, earlier *Failure) *Failure {
	f := &Failure{
		Topic: topic, Subscription: subscription, Reason: textOf(e.Err), Attempts: e.Attempt, First: now, Last: now, Seq: seq,
	}
	if panicked, ok := findIn[*PanicError](e.Err); ok {
		f.Stack = string(panicked.Stack)
	}
	if earlier != nil {
		f.Before = append(slices.Clone(earlier.Before), earlier.Topic)
	}
	return f
}

// fitted publishes a dead letter with the record. If the record is too large
// for the engine, it halves the record's texts until it fits, and in the end
// leaves them empty.
func (f *Failure) fitted(publish func(*Failure) error) error {
	err := publish(f)
	for most := max(len(f.Reason), len(f.Stack)); most > 0 && errors.Is(err, driver.ErrTooLarge); {
		most /= 2
		short := *f
		short.Reason, short.Stack = cut(f.Reason, most), cut(f.Stack, most)
		err = publish(&short)
	}
	return err
}

// cut returns the beginning of a text, at most the given number of bytes.
func cut(text string, most int) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "")
	}
	return text
}

// deadTopicFor returns the name of the topic for a dead letter with this
// record, or "" if there is none. It prevents messages from going round in
// circles.
func (c *subscribeConfig) deadTopicFor(f *Failure) string {
	to := c.deadLetter
	if to == "" && !c.noDeadLetter && f.Before == nil {
		to = f.Topic + deadSuffix
	}
	if to == f.Topic || slices.Contains(f.Before, to) {
		return ""
	}
	return to
}

// neverBuried reports whether a dead letter that could not be made for this
// reason cannot be made later either.
func neverBuried(err error) bool {
	for _, kind := range []error{ErrTypeMismatch, ErrInvalidName, ErrUnsupported, errNobodyListens, errOutsized, driver.ErrTooLarge} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// deadMeta returns the meta for the dead letter of a message.
func (d *Delivery) deadMeta(f *Failure) *meta {
	m := &meta{failure: f, time: f.Last}
	if d.meta != nil {
		m.id, m.key, m.hasKey = d.meta.id, d.meta.key, d.meta.hasKey
		m.headers = maps.Clone(d.meta.headers)
		m.arrival = d.meta.arrival // for its media type
	}
	return m
}

// errOutsized is the kind of the error for a value that alone is larger than
// the engine accepts.
var errOutsized = errors.New("outsized")

var errNobodyListens = errors.New("nobody listens and the topic is not stored")

// deposit appends an entry whether or not there is room.
func (t *Topic[T]) deposit(e entry[T]) error {
	if t.remote != nil {
		return t.depositRemote(e)
	}
	if t.mode.Load() == silent {
		return errNobodyListens
	}
	t.log.NotePointers()
	if !t.log.Force(e) {
		return ErrClosed
	}
	t.core.bus.hooks.onPublish(PublishEvent{Topic: t.core.name, Count: 1})
	return nil
}
