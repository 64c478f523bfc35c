package hark

import (
	"errors"
	"maps"
)

const (
	deadSuffix = ".dead"
	// deadKept is how many dead letters a topic made for them keeps.
	deadKept = 10000
)

// deadTopic returns the topic for dead letters of that name, as it is if there
// is one, otherwise stored.
func deadTopic[T any](b *Bus, name string) (*Topic[T], error) {
	over := func() bool { return b.stopped } // what fails while the bus drains is kept too
	if b.has(KindTopic, name) {
		return newTopicUntil[T](b, over, KindTopic, name, 0, nil)
	}
	kept := Stored(Retention{MaxMessages: deadKept})
	asItIs := topicOption(func(c *topicConfig) error { c.existing, c.dead = true, true; return nil })
	t, err := newTopicUntil[T](b, over, KindTopic, name, 0, []TopicOption{kept, DedupWindow(0), asItIs})
	if errors.Is(err, ErrInvalidOption) { // made meanwhile, another way
		return newTopicUntil[T](b, over, KindTopic, name, 0, nil)
	}
	return t, err
}

// burial returns what puts dead letters of T on a topic.
func burial[T any](b *Bus) func(to string, data any, m *meta) error {
	return func(to string, data any, m *meta) error {
		dead, err := deadTopic[T](b, to)
		if err != nil {
			return err
		}
		return dead.deposit(entry[T]{value: valueAt[T](data), meta: m})
	}
}

// deadMeta returns what goes with the dead letter of a message.
func (d *Delivery) deadMeta(f *Failure) *meta {
	m := &meta{failure: f, time: f.Last}
	if d.meta != nil {
		m.id, m.key, m.hasKey = d.meta.id, d.meta.key, d.meta.hasKey
		m.headers = maps.Clone(d.meta.headers)
		m.arrival = d.meta.arrival // for its media type
	}
	return m
}

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
