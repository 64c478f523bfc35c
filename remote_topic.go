package hark

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
)

// remoteTopic is the engine's side of a topic. Publishing goes to the engine
// instead of the log, and each subscription has an inbox.
type remoteTopic struct {
	engine *engine
	core   *topicCore
	codec  Codec
	bare   bool
	config driver.TopicConfig

	published atomic.Uint64
	sealed    atomic.Bool // set with mu locked
	buffers   sync.Pool   // of *publishBuffer[T]

	opening sync.Mutex // guards the opening of topic
	topic   atomic.Pointer[driver.Topic]

	mu      sync.Mutex // guards the fields below
	inboxes []anyInbox
}

// newRemoteTopic returns the engine's side of a topic, not yet opened. The
// caller must still set its core.
func newRemoteTopic(b *Bus, name string, typ reflect.Type, c topicConfig) (*remoteTopic, error) {
	r := &remoteTopic{engine: b.engine, codec: c.codec, bare: c.bare, config: driver.TopicConfig{Name: name}}
	if r.codec == nil {
		r.codec = b.codecFor(typ)
	}
	if c.retention == nil {
		if c.dedup > 0 {
			return nil, b.engine.refuse("DedupWindow on an ephemeral topic (duplicates from other processes cannot be seen; use the option Stored)")
		}
		return r, nil
	}
	if err := b.engine.needs(driver.Stored); err != nil {
		return nil, err
	}
	durability, err := b.engine.durability(c.retention.Durability)
	if err != nil {
		return nil, err
	}
	if c.retention.MaxBytes > 0 {
		if err := b.engine.needs(driver.MaxBytes); err != nil {
			return nil, err
		}
	}
	window := c.dedup
	if window < 0 {
		if window = storedDedupWindow; !b.engine.info.Has(driver.Dedup) {
			window = 0 // no one asked for it
		}
	}
	if window > 0 {
		if err := b.engine.needs(driver.Dedup); err != nil {
			return nil, err
		}
	}
	r.config.Stored = &driver.StoredConfig{
		MaxMessages: c.retention.MaxMessages,
		MaxAge:      c.retention.MaxAge,
		MaxBytes:    c.retention.MaxBytes,
		Dedup:       window,
		Durability:  durability,
		AnyClass:    c.retention.Durability == 0 || c.existing,
		Existing:    c.existing,
		DeadLetters: c.dead,
	}
	return r, nil
}

// durability returns the durability to ask the engine for.
func (e *engine) durability(d Durability) (driver.Durability, error) {
	classes := []struct {
		ours   Durability
		theirs driver.Durability
		needs  driver.Capability
	}{
		{Strict, driver.DurableStrict, driver.Strict},
		{Relaxed, driver.DurableRelaxed, driver.Relaxed},
		{Memory, driver.DurableMemory, driver.Memory},
	}
	for _, c := range classes {
		if d == c.ours || d == 0 && e.info.Has(c.needs) {
			return c.theirs, e.needs(c.needs)
		}
	}
	return 0, e.refuse("a durability that it declares")
}

// open returns the engine's topic. The first caller opens it.
func (r *remoteTopic) open(ctx context.Context) (driver.Topic, error) {
	if t := r.topic.Load(); t != nil {
		return *t, nil
	}
	r.opening.Lock()
	defer r.opening.Unlock()
	if t := r.topic.Load(); t != nil {
		return *t, nil
	}
	t, err := r.engine.conn.OpenTopic(ctx, r.config)
	if err != nil {
		return nil, engineError(err)
	}
	r.topic.Store(&t)
	return t, nil
}

// The topic over an engine as a component of its bus.

func (r *remoteTopic) snapshot() []anyInbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.inboxes)
}

func (r *remoteTopic) add(in anyInbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed.Load() {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	r.inboxes = append(r.inboxes, in)
	return nil
}

func (r *remoteTopic) remove(in anyInbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.inboxes, in); i >= 0 {
		r.inboxes = slices.Delete(r.inboxes, i, i+1)
	}
}

func (r *remoteTopic) seal() {
	r.mu.Lock()
	r.sealed.Store(true)
	r.mu.Unlock()
	for _, in := range r.snapshot() {
		in.seal()
	}
}

// drain waits until everything that the engine had for this process at the time
// of the call is done.
func (r *remoteTopic) drain(ctx context.Context) {
	inboxes := r.snapshot()
	if len(inboxes) == 0 {
		return
	}
	if r.engine.conn.Flush(ctx) != nil {
		return
	}
	for _, in := range inboxes {
		in.catchUp(ctx)
	}
}

func (r *remoteTopic) work() (accepted uint64, done bool) {
	accepted, done = r.published.Load(), true
	inboxes := r.snapshot()
	for _, in := range inboxes {
		received, idle := in.work()
		accepted += received
		done = done && idle
	}
	return accepted, done && (len(inboxes) == 0 || !r.engine.dirty.Load())
}

func (r *remoteTopic) stop(ctx context.Context, cause error) []Left {
	var left []Left
	for _, in := range r.snapshot() {
		if l := in.stop(ctx, cause); l.any() {
			left = append(left, l)
		}
	}
	if n := r.core.delayed.stop(ctx); n > 0 {
		left = append(left, Left{Kind: r.core.kind, Name: r.core.name, Delayed: n})
	}
	return left
}

func (r *remoteTopic) cancel(cause error) {
	for _, in := range r.snapshot() {
		in.cancel(cause)
	}
}

func (r *remoteTopic) addStats(ts *TopicStats) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	ts.Published = r.published.Load()
	if t := r.topic.Load(); t != nil && r.config.Stored != nil {
		if s, err := (*t).Stats(ctx); err == nil {
			ts.Stored, ts.Deduplicated = s.Stored, s.Deduplicated
			ts.Delayed += s.Delayed
		}
	}
	for _, in := range r.snapshot() {
		ts.Subscriptions = append(ts.Subscriptions, in.stats())
	}
}

// statsTimeout is how long Stats waits for an engine. What is unknown by then
// is 0.
const statsTimeout = time.Second

// openRemoteTopic is newTopicUntil over an engine.
func openRemoteTopic[T any](b *Bus, over func() bool, kind Kind, name string, at uintptr, opts []TopicOption, c topicConfig, key func(T) string) (*Topic[T], error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := b.patterns.accepted(name, reflect.TypeFor[T]()); err != nil {
		return nil, err
	}
	r, err := newRemoteTopic(b, name, reflect.TypeFor[T](), c)
	if err != nil {
		return nil, err
	}
	t, existed, err := attachUntil(b, over, kind, name, func() *Topic[T] {
		t := makeTopic(b, kind, name, c, key)
		t.remote, r.core = r, &t.core
		t.setModeLocked()
		return t
	})
	if err != nil {
		return nil, err
	}
	if err := t.declare(existed, at, opts, c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if _, err := t.remote.open(ctx); err != nil {
		if !existed {
			b.detach(kind, name, t)
		}
		return nil, err
	}
	return t, nil
}
