package hark

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/harkbus/hark/internal/feed"
)

// PublishOption sets metadata of a message.
type PublishOption interface{ applyPublish(*publishConfig) error }

type publishConfig struct {
	meta meta
	due  time.Time
	ttl  time.Duration
}

type publishOption func(*publishConfig) error

func (f publishOption) applyPublish(c *publishConfig) error { return f(c) }

// Key gives the message its ordering key, instead of the topic's KeyBy. An
// empty key is none.
func Key(key string) PublishOption {
	return publishOption(func(c *publishConfig) error {
		c.meta.key, c.meta.hasKey = key, true
		return nil
	})
}

// Header sets a header of the message. The name must not be empty; a later
// Header of the same name replaces the value.
func Header(name, value string) PublishOption {
	return publishOption(func(c *publishConfig) error {
		if name == "" {
			return fmt.Errorf("%w: Header with an empty name", ErrInvalidOption)
		}
		if c.meta.headers == nil {
			c.meta.headers = map[string]string{}
		}
		c.meta.headers[name] = value
		return nil
	})
}

// ID identifies the message. A topic with a DedupWindow accepts a message with
// the same ID only once within it. In a PublishAll it is an error, because the
// items would share one ID.
func ID(id string) PublishOption {
	return publishOption(func(c *publishConfig) error {
		if id == "" {
			return fmt.Errorf("%w: ID is empty", ErrInvalidOption)
		}
		c.meta.id = id
		return nil
	})
}

// Delay delivers the message d later, measured from the call of Publish.
func Delay(d time.Duration) PublishOption {
	return publishOption(func(c *publishConfig) error {
		if d < 0 {
			return fmt.Errorf("%w: Delay(%v): negative", ErrInvalidOption, d)
		}
		c.due = time.Now().Add(d)
		return nil
	})
}

// At delivers the message at time t, or at once if t has passed.
func At(t time.Time) PublishOption {
	return publishOption(func(c *publishConfig) error {
		c.due = t
		return nil
	})
}

// TTL makes the message expire d after it is published, or after it is due if it
// is delayed: a subscription that gets to it later drops it, counted as
// DropExpired.
func TTL(d time.Duration) PublishOption {
	return publishOption(func(c *publishConfig) error {
		if d <= 0 {
			return fmt.Errorf("%w: TTL(%v): want more than 0", ErrInvalidOption, d)
		}
		c.ttl = d
		return nil
	})
}

// Publish gives v to every subscription and group of the topic. It returns
// when the message is in the topic's log, before any handler has run.
//
// A subscription whose buffer is full under the policy Block makes Publish wait
// for room until ctx ends; Publish then returns the cause and has published
// nothing. If ctx has already ended it publishes nothing. Under the policy Fail
// it returns ErrFull. If a handler's subscription would have to wait for itself,
// directly or through other handlers, the message that the handler publishes is
// let in beyond the buffer; past 65,536 such messages Publish returns
// ErrWouldDeadlock.
//
// Over an engine Publish returns when the engine has accepted the message: a stored
// one is then as safe as the Durability of its topic says. It waits for the answer,
// and for a lost connection, until ctx ends. The message may have been stored then
// all the same; publishing it again with the same ID does no harm. A message that
// is larger than the engine accepts is ErrInvalidOption.
func (t *Topic[T]) Publish(ctx context.Context, v T, opts ...PublishOption) error {
	if err := ctx.Err(); err != nil {
		return t.failed(context.Cause(ctx))
	}
	if len(opts) == 0 {
		switch t.mode.Load() {
		case silent:
			return nil
		case plain:
			if t.log.Append(entry[T]{value: v}) {
				return nil
			}
		}
	}
	return t.publish(ctx, &t.log, v, opts)
}

func (t *Topic[T]) failed(err error) error { return fail("publish", t.core.name, err) }

// publish does everything that publishing takes besides appending a bare value.
func (t *Topic[T]) publish(ctx context.Context, log *feed.Log[entry[T]], v T, opts []PublishOption) error {
	if t.remote != nil {
		var err error
		if len(opts) == 0 {
			err = t.publishOneRemote(ctx, v)
		} else {
			err = t.publishRemote(ctx, []T{v}, opts)
		}
		if err != nil {
			return t.failed(soleError(err))
		}
		return nil
	}
	e := entry[T]{value: v}
	var due time.Time
	if len(opts) > 0 || t.core.retention != nil {
		var err error
		if e.meta, due, err = t.core.newMeta(opts); err != nil {
			return t.failed(err)
		}
	}
	if err := t.admit(ctx, e, due, log); err != nil {
		return t.failed(err)
	}
	t.core.bus.hooks.onPublish(PublishEvent{Topic: t.core.name, Count: 1})
	return nil
}

// admit puts an entry into the log, now or when it is due.
func (t *Topic[T]) admit(ctx context.Context, e entry[T], due time.Time, log *feed.Log[entry[T]]) error {
	if err := t.refuses(ctx); err != nil {
		return err
	}
	seen := t.core.dedup
	if seen == nil || e.meta == nil || e.meta.id == "" {
		return t.enter(ctx, e, due, log)
	}
	fresh, err := seen.claim(ctx, e.meta.id)
	if err != nil {
		return err
	}
	if !fresh {
		t.core.repeats.Add(1)
		return nil
	}
	if err = t.enter(ctx, e, due, log); err != nil {
		seen.forget(e.meta.id)
	} else {
		seen.keep(e.meta.id)
	}
	return err
}

// enter is admit for an entry that is not a repeat.
func (t *Topic[T]) enter(ctx context.Context, e entry[T], due time.Time, log *feed.Log[entry[T]]) error {
	if e.meta != nil {
		log.NotePointers()
	}
	if !due.IsZero() && time.Until(due) > 0 {
		t.log.NotePointers()
		return t.core.delayed.add(due, func() { t.log.Force(e) })
	}
	if t.mode.Load() == silent {
		return nil
	}
	return t.appendOrWait(ctx, log, e)
}

// refuses returns the reason why a topic whose bus is closing accepts nothing
// from ctx, or nil. Until the handlers are done, only what they publish is
// accepted.
func (t *Topic[T]) refuses(ctx context.Context) error {
	if t.mode.Load() != full {
		return nil
	}
	t.mu.Lock()
	sealed := t.sealed
	t.mu.Unlock()
	if sealed && handlerOf(ctx) == nil && !inHandler() {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	return nil
}

func (t *topicCore) newMeta(opts []PublishOption) (m *meta, due time.Time, err error) {
	c := &publishConfig{}
	for opt := range given(opts) {
		if err := opt.applyPublish(c); err != nil {
			return nil, due, err
		}
	}
	c.meta.time = time.Now()
	c.meta.delay = max(c.due.Sub(c.meta.time), 0)
	if c.ttl > 0 {
		c.meta.expires = c.meta.entered().Add(c.ttl)
	}
	m = new(meta)
	*m = c.meta
	return m, c.due, nil
}

// appendOrWait appends e, waiting for room if the subscriptions demand it.
func (t *Topic[T]) appendOrWait(ctx context.Context, log *feed.Log[entry[T]], e entry[T]) error {
	for !log.TryAppend(e) {
		if err := t.refuses(ctx); err != nil {
			return err
		}
		room, by := log.Grow()
		if room == feed.Sealed {
			if room, by = log.Enter(e); room == feed.Open {
				return nil
			}
		}
		switch room {
		case feed.Closed:
			return ErrClosed
		case feed.Full:
			done, err := t.waitForRoom(ctx, log, by, &e)
			if done || err != nil {
				return err
			}
		}
	}
	return nil
}

// waitForRoom waits until the log may have room again. If waiting might never
// end, it appends e beyond the buffer instead; done is then true.
func (t *Topic[T]) waitForRoom(ctx context.Context, log *feed.Log[entry[T]], by *feed.Cursor[entry[T]], e *entry[T]) (done bool, err error) {
	blocker := by.Reader().(blocker).coreOf()
	if blocker.limits().policy == Fail {
		return false, ErrFull
	}
	if linger(by) {
		return false, nil
	}
	waits := &t.core.bus.waits
	from := handlerOf(ctx)
	if from == nil && inHandler() || from != nil && !waits.enter(from, blocker) {
		if !blocker.overgrow(by.Lag()) {
			return false, ErrWouldDeadlock
		}
		if !log.Force(*e) {
			return false, ErrClosed
		}
		return true, nil
	}
	if from != nil {
		defer waits.leave(from, blocker)
	}
	opened := log.WaitRoom()
	if opened == nil {
		return false, nil
	}
	select {
	case <-opened:
		return false, nil
	case <-ctx.Done():
		log.Forget(opened)
		return false, context.Cause(ctx)
	}
}

// linger lets other goroutines run for a moment, and reports whether the cursor
// has made room by then. Under a steady load this is cheaper than going to
// sleep.
func linger[E any](by *feed.Cursor[E]) bool {
	for range 32 {
		runtime.Gosched()
		if by.Roomy() {
			return true
		}
	}
	return false
}

// PublishAll publishes the values in order, contiguously where there is room. If
// some could not be published, because ctx ended or a subscription's buffer was
// full, it returns a *BatchError that says which. The options apply to each.
func (t *Topic[T]) PublishAll(ctx context.Context, vs []T, opts ...PublishOption) error {
	return t.publishAll(ctx, &t.log, vs, opts)
}

func (t *Topic[T]) publishAll(ctx context.Context, log *feed.Log[entry[T]], vs []T, opts []PublishOption) error {
	if err := ctx.Err(); err != nil {
		return t.failedFrom(0, len(vs), context.Cause(ctx))
	}
	if len(opts) == 0 {
		switch t.mode.Load() {
		case silent:
			return nil
		case plain:
			return t.publishRun(ctx, log, vs)
		}
	}
	for opt := range given(opts) {
		var c publishConfig
		if err := opt.applyPublish(&c); err != nil {
			return t.failedFrom(0, len(vs), err)
		}
		if c.meta.id != "" {
			return t.failedFrom(0, len(vs), fmt.Errorf("%w: ID for a batch of messages", ErrInvalidOption))
		}
	}
	if t.remote != nil {
		return t.publishAllRemote(ctx, vs, opts)
	}
	for i, v := range vs {
		if err := t.publish(ctx, log, v, opts); err != nil {
			return t.failedFrom(i, len(vs), err)
		}
	}
	return nil
}

func (t *Topic[T]) publishRun(ctx context.Context, log *feed.Log[entry[T]], vs []T) error {
	for done := 0; done < len(vs); {
		rest := vs[done:]
		n := log.AppendRun(len(rest), func(slots []entry[T]) int {
			for i := range slots {
				slots[i].value, slots[i].meta = rest[i], nil
			}
			return len(slots)
		})
		if done += n; n > 0 {
			continue
		}
		if err := t.appendOrWait(ctx, log, entry[T]{value: rest[0]}); err != nil {
			return t.failedFrom(done, len(vs), err)
		}
		done++
	}
	return nil
}

// failedFrom returns the error for a batch of n values, of which those from
// index first on were not published.
func (t *Topic[T]) failedFrom(first, n int, err error) error {
	batch := &BatchError{Items: make([]ItemError, 0, n-first)}
	for i := first; i < n; i++ {
		batch.Items = append(batch.Items, ItemError{Index: i, Err: err})
	}
	return t.failed(batch)
}
