package hark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// failureHeader is the header with the failure record, for which CloudEvents
// has no attribute.
const failureHeader = "hark-failure"

// message fills msg, which is new or was filled here before, with the encoded
// value and its meta.
func (r *remoteTopic) message(msg *driver.Message, data any, m *meta, due time.Time) error {
	encoded, err := encodeWith(r.codec, data)
	if err != nil {
		return err
	}
	if err := r.fits(encoded); err != nil {
		return err
	}
	// Assign each field, which is faster when msg is reused.
	msg.ContentType, msg.Data, msg.Bare, msg.Headers = r.codec.ContentType(), encoded, r.bare, m.headers
	msg.ID, msg.Key, msg.HasKey = m.id, m.key, m.hasKey
	msg.Time, msg.Due, msg.Expires = m.time, due, m.expires
	if _, raw := r.codec.(rawCodec); raw && m.arrival != nil && m.arrival.ContentType != "" {
		msg.ContentType = m.arrival.ContentType // a dead letter, whose bytes are unchanged
	}
	if !msg.HasKey && r.core.keyOf != nil {
		if msg.Key, err = r.core.keyFor(data); err != nil {
			return err
		}
		msg.HasKey = true
	}
	if m.failure != nil {
		msg.Headers = withFailure(msg.Headers, m.failure)
	}
	return nil
}

// fits returns an error if a message is larger than the engine accepts.
func (r *remoteTopic) fits(encoded []byte) error {
	if most := r.engine.info.MaxPayload; most > 0 && len(encoded) > most {
		return kindError{errOutsized, fmt.Errorf("%w: the message has %d bytes, and engine %s accepts at most %d", ErrInvalidOption, len(encoded), r.engine.info.Engine, most)}
	}
	return nil
}

// batchBuffer is reusable memory for the messages of a call.
type batchBuffer struct {
	messages []driver.Message
	pointers []*driver.Message
}

// maxBatchBuffer is the largest number of messages for which memory is kept.
const maxBatchBuffer = 1024

var batchBuffers = sync.Pool{New: func() any { return new(batchBuffer) }}

func newBatchBuffer(n int) *batchBuffer {
	s := batchBuffers.Get().(*batchBuffer)
	if cap(s.messages) < n {
		s.make(n)
	}
	s.messages, s.pointers = s.messages[:n], s.pointers[:n]
	return s
}

func (s *batchBuffer) make(n int) {
	s.messages, s.pointers = make([]driver.Message, n), make([]*driver.Message, n)
	for i := range s.pointers {
		s.pointers[i] = &s.messages[i]
	}
}

func (s *batchBuffer) free() {
	if cap(s.messages) <= maxBatchBuffer {
		clear(s.messages)
		batchBuffers.Put(s)
	}
}

// keyFor returns the result of KeyBy for a value, or its panic as an error.
func (t *topicCore) keyFor(data any) (key string, err error) {
	made := false
	defer func() {
		if !made {
			err = fmt.Errorf("KeyBy: %w", caught(recover()))
		}
	}()
	key, made = t.keyOf(data), true
	return key, nil
}

// withFailure returns headers that also carry the failure record.
func withFailure(headers map[string]string, f *Failure) map[string]string {
	record, err := json.Marshal(f)
	if err != nil { // it consists of strings, numbers and times of our own
		panic(err)
	}
	headers = maps.Clone(headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[failureHeader] = string(record)
	return headers
}

// publish sends n messages. The i-th carries the value that data(i) points to.
// The error says which of them were not accepted.
func (r *remoteTopic) publish(ctx context.Context, n int, data func(i int) any, m *meta, due time.Time) error {
	topic, err := r.open(ctx)
	if err != nil {
		return err
	}
	s := newBatchBuffer(n)
	defer s.free()
	if err := r.fill(s, data, m, due); err != nil {
		return err
	}
	return r.send(ctx, topic, s)
}

// fill encodes the messages of publish.
func (r *remoteTopic) fill(s *batchBuffer, data func(i int) any, m *meta, due time.Time) error {
	for i := range s.messages {
		if err := r.message(&s.messages[i], data(i), m, due); err != nil {
			return err
		}
	}
	return nil
}

func (r *remoteTopic) send(ctx context.Context, topic driver.Topic, s *batchBuffer) error {
	err := topic.Publish(ctx, s.pointers)
	if err == nil {
		r.accepted(len(s.pointers))
		return nil
	}
	return r.rejected(len(s.pointers), err)
}

// accepted accounts for messages that the engine has accepted.
func (r *remoteTopic) accepted(n int) {
	r.published.Add(uint64(n))
	if !r.engine.dirty.Load() {
		r.engine.dirty.Store(true)
	}
	if n > 0 {
		r.core.bus.hooks.onPublish(PublishEvent{Topic: r.core.name, Count: n})
	}
}

// rejected accounts for n messages that the engine has not all accepted, and
// returns the reason.
func (r *remoteTopic) rejected(n int, err error) error {
	var some driver.PartialError
	if !errors.As(err, &some) {
		return engineError(err)
	}
	for _, err := range some {
		if err != nil {
			n--
		}
	}
	r.accepted(n)
	batch := &BatchError{}
	for i, err := range some {
		if err != nil {
			batch.Items = append(batch.Items, ItemError{i, engineError(err)})
		}
	}
	return batch
}

// refuses returns the reason why a topic whose bus is closing accepts nothing
// from ctx, or nil.
func (r *remoteTopic) refuses(ctx context.Context) error {
	if r.sealed.Load() && handlerOf(ctx) == nil && !inHandler() {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	return nil
}

// publishOneRemote is Publish over an engine, without options.
func (t *Topic[T]) publishOneRemote(ctx context.Context, v T) error {
	r := t.remote
	if err := r.refuses(ctx); err != nil {
		return err
	}
	topic, err := r.open(ctx)
	if err != nil {
		return err
	}
	l, ok := r.buffers.Get().(*publishBuffer[T])
	if !ok {
		l = &publishBuffer[T]{message: driver.Message{ContentType: r.codec.ContentType(), Bare: r.bare}}
		l.messages[0] = &l.message
	}
	if err = l.fill(r, v); err == nil {
		if err = topic.Publish(ctx, l.messages[:]); err == nil {
			r.accepted(1)
		} else {
			err = r.rejected(1, err)
		}
	}
	l.message.Data = nil
	r.buffers.Put(l)
	return err
}

// publishBuffer is reusable memory for a message with one value.
type publishBuffer[T any] struct {
	value    T
	message  driver.Message // what is the same for all of them stays in it
	messages [1]*driver.Message
}

// fill makes the message that carries v and nothing else.
func (l *publishBuffer[T]) fill(r *remoteTopic, v T) (err error) {
	var at time.Time
	if !r.bare || r.config.Stored != nil {
		at = time.Now()
	}
	_, raw := r.codec.(rawCodec)
	if data, ok := any(v).([]byte); ok && raw && r.core.keyOf == nil {
		l.message.Data, l.message.Time = data, at
		return r.fits(data)
	}
	l.value = v
	err = r.message(&l.message, &l.value, &meta{time: at}, time.Time{})
	l.value = *new(T)
	return err
}

// publishRemote is Publish and PublishAll over an engine.
func (t *Topic[T]) publishRemote(ctx context.Context, vs []T, opts []PublishOption) error {
	r := t.remote
	if err := r.refuses(ctx); err != nil {
		return err
	}
	m, due := meta{}, time.Time{}
	if len(opts) > 0 {
		made, at, err := t.core.newMeta(opts)
		if err != nil {
			return err
		}
		m, due = *made, at
	} else if !r.bare || r.config.Stored != nil {
		m.time = time.Now()
	}
	if due.IsZero() || time.Until(due) <= 0 {
		return r.publish(ctx, len(vs), func(i int) any { return &vs[i] }, &m, time.Time{})
	}
	need := driver.Delay
	if r.config.Stored == nil {
		need = driver.EphemeralDelay
	}
	if r.engine.info.Has(need) {
		return r.publish(ctx, len(vs), func(i int) any { return &vs[i] }, &m, due)
	}
	if r.config.Stored != nil {
		return r.engine.needs(need)
	}
	return t.publishLater(vs, &m, due)
}

// publishLater publishes on an ephemeral topic when it is due. Until then, a message lives
// as long as its publisher, just as in process; what is wrong with it shows at once.
func (t *Topic[T]) publishLater(vs []T, m *meta, due time.Time) error {
	r, s, n := t.remote, new(batchBuffer), len(vs)
	s.make(n) // one to be used again would be too large to be kept
	if err := r.fill(s, func(i int) any { return &vs[i] }, m, time.Time{}); err != nil {
		return err
	}
	for i := range s.messages { // what is published as bytes is still the caller's
		s.messages[i].Data = bytes.Clone(s.messages[i].Data)
	}
	return t.core.delayed.add(due, func() {
		ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
		defer cancel()
		topic, err := r.open(ctx)
		if err == nil {
			err = r.send(ctx, topic, s)
		}
		if err != nil {
			t.core.bus.hooks.onDrop(DropEvent{Source: Source{Kind: t.core.kind, Name: t.core.name}, Count: missed(err, n), Reason: DropUnreachable})
		}
	})
}

// missed returns how many of n messages were not accepted.
func missed(err error, n int) int {
	if batch, ok := err.(*BatchError); ok {
		return len(batch.Items)
	}
	return n
}

// publishAllRemote is publishRemote with the error of a batch.
func (t *Topic[T]) publishAllRemote(ctx context.Context, vs []T, opts []PublishOption) error {
	if len(vs) == 0 {
		return nil
	}
	err := t.publishRemote(ctx, vs, opts)
	if err == nil {
		return nil
	}
	if _, ok := err.(*BatchError); ok {
		return t.failed(err)
	}
	return t.failedFrom(0, len(vs), err)
}

// soleError returns the error of the only item of a batch.
func soleError(err error) error {
	if batch, ok := err.(*BatchError); ok && len(batch.Items) > 0 {
		return batch.Items[0].Err
	}
	return err
}

// depositRemote is deposit over an engine.
func (t *Topic[T]) depositRemote(e entry[T]) error {
	if t.remote.config.Stored == nil {
		return errNobodyListens // or perhaps someone does, but that cannot be known
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	send := func(m *meta) error {
		return t.remote.publish(ctx, 1, func(int) any { return &e.value }, m, time.Time{})
	}
	if e.meta.failure == nil {
		return send(e.meta)
	}
	return e.meta.failure.fitted(func(f *Failure) error {
		m := *e.meta
		m.failure = f
		return send(&m)
	})
}

// fromEngine sets m from a received message.
func (m *meta) fromEngine(r *driver.Received, a *arrival) {
	*m = meta{
		id: r.ID, key: r.Key, hasKey: r.HasKey, headers: r.Headers, time: r.Time, expires: r.Expires, arrival: a,
	}
	if record, ok := r.Headers[failureHeader]; ok {
		f := &Failure{}
		if json.Unmarshal([]byte(record), f) == nil {
			m.failure = f
			delete(m.headers, failureHeader)
		}
	}
}
