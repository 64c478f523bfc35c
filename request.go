package hark

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
)

// call is a request on its way to a responder.
type call[Q, R any] struct {
	query    Q
	ctx      context.Context // of the requester
	deadline time.Time       // of the requester too, where ctx does not know it
	answer   func(answer[R]) // called once
}

// signature returns the type that users know: that of what is called.
func (call[Q, R]) signature() reflect.Type { return reflect.TypeFor[func(Q) R]() }

type answer[R any] struct {
	value R
	err   error
}

// replyGroup is the group of all responders to a name.
const replyGroup = "responders"

// Request sends q to one of the responders registered under name and returns its
// reply, or its error, wrapped. If there is no responder, or the last one leaves
// before it has replied, Request returns ErrNoResponders at once. It waits until
// ctx ends; the responder's context ends with it. An error that comes over an
// engine has the text of the responder's, and its kind if that is one of hark's.
func Request[Q, R any](ctx context.Context, b *Bus, name string, q Q) (R, error) {
	if b == nil {
		var none R
		return none, fail("request", name, errNoBus)
	}
	r, err := request[Q, R](ctx, b, name, q)
	if err != nil {
		return r, fail("request", name, err)
	}
	return r, nil
}

func request[Q, R any](ctx context.Context, b *Bus, name string, q Q) (r R, err error) {
	if b.engine != nil {
		return requestRemote[Q, R](ctx, b, name, q)
	}
	t, err := attached[*Topic[call[Q, R]]](b, KindRequest, name)
	if err != nil {
		return r, err
	}
	if t == nil || t.mode.Load() == silent {
		return r, ErrNoResponders
	}
	to := t.group(replyGroup)
	if to == nil {
		return r, ErrNoResponders
	}
	answers := make(chan answer[R], 1)
	if err := t.admit(ctx, entry[call[Q, R]]{value: call[Q, R]{query: q, ctx: ctx, answer: func(a answer[R]) { answers <- a }}}, time.Time{}, &t.log); err != nil {
		return r, err
	}
	if from := handlerOf(ctx); from != nil {
		if !b.waits.enter(from, &to.core) {
			return r, ErrWouldDeadlock
		}
		defer b.waits.leave(from, &to.core)
	}
	gone := to.ended()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return r, context.Cause(ctx)
	case <-gone:
	}
	select {
	case a := <-answers: // given just before the last responder left
		return a.value, a.err
	default:
		return r, fmt.Errorf("%w: the last responder has left", ErrNoResponders)
	}
}

// Reply answers requests of that name with h, one at a time unless Workers says
// otherwise; Buffer, Overflow(Block or Fail) and Timeout apply as well.
// Responders of one name share the requests. An error or a panic of h goes to
// the requester, and to the FailHooks; it is not retried. The context of h ends
// when the requester's does. When its last responder ends, the name leaves the
// bus.
func Reply[Q, R any](b *Bus, name string, h func(ctx context.Context, q Q) (R, error), opts ...SubscribeOption) (*Subscription, error) {
	if b == nil {
		return nil, fail("reply", name, errNoBus)
	}
	s, err := reply(b, name, h, opts, caller())
	if err != nil {
		return nil, fail("reply", name, err)
	}
	return s, nil
}

func reply[Q, R any](b *Bus, name string, h func(ctx context.Context, q Q) (R, error), opts []SubscribeOption, at uintptr) (*Subscription, error) {
	if h == nil {
		return nil, errNoHandler
	}
	if err := checkReply(opts); err != nil {
		return nil, err
	}
	opts = append(slices.Clone(opts), Group(replyGroup), MaxAttempts(1), NoDeadLetter())
	t, err := holdRequests[Q, R](b, name)
	if err != nil {
		return nil, err
	}
	_ = t.declare(true, at, nil, topicConfig{}) // without options there is nothing to refuse
	m, err := t.subscribe(pushed, respond(h), nil, opts, replies, at)
	if err != nil {
		t.letGo()
		return nil, err
	}
	r := &responder[Q, R]{member: m, topic: t}
	m.Subscription.impl = r
	if b.engine != nil {
		if err := replyRemote(b, name, r); err != nil {
			_ = r.shut() // no one could have sent a request
			return nil, err
		}
	}
	return &m.Subscription, nil
}

// A name with a responder is a topic of requests. Its responders are a group,
// whose one consumer holds the requests that wait. Both the topic and the
// consumer are counted, so that neither ends under a responder that has just
// come:
//
//   - The topic is on the bus as long as somebody holds it. Reply takes hold of it
//     before it joins the group, and lets go when its member is out again; both under
//     the lock of the bus, with the look-up. Whoever comes after the last has let go
//     makes another one, perhaps of another type.
//   - The consumer takes members until the last of them leaves (consumer.closing, under
//     its lock): from there it ends, and whoever comes makes another one on the same
//     topic. What waits in it ends with it, and its requesters get an error: in process
//     they see it end, over an engine who took them answers (respondent.leave).
//
// So if each responder comes before another leaves, the consumer stays the
// same.

// holdRequests returns the topic of the requests with a name, making it if
// needed, and counts one more responder.
func holdRequests[Q, R any](b *Bus, name string) (*Topic[call[Q, R]], error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return nil, fmt.Errorf("bus %w", ErrClosed)
	}
	t, exists, err := componentLocked[*Topic[call[Q, R]]](b, KindRequest, name)
	if err != nil {
		return nil, err
	}
	if !exists {
		t = makeTopic[call[Q, R]](b, KindRequest, name, topicConfig{dedup: -1}, nil)
		b.components[componentKey{KindRequest, name}] = t
	}
	t.holders++
	return t, nil
}

// letGo is called when a responder has left. With the last one, the topic
// leaves the bus.
func (t *Topic[T]) letGo() {
	b := t.core.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.holders--; t.holders == 0 {
		delete(b.components, componentKey{t.core.kind, t.core.name})
	}
}

// responder is a member of the group of those who reply to a name.
type responder[Q, R any] struct {
	*member[call[Q, R]]
	topic *Topic[call[Q, R]]
	left  sync.Once
}

func (r *responder[Q, R]) drain(ctx context.Context) error {
	defer r.left.Do(r.topic.letGo)
	return r.member.drain(ctx)
}

func (r *responder[Q, R]) shut() error {
	defer r.left.Do(r.topic.letGo)
	return r.member.shut()
}

// checkReply refuses options that have no meaning for responders: these are one
// group, retry nothing, and owe each request an answer.
func checkReply(opts []SubscribeOption) error {
	c, err := parse(opts, onEphemeral, pushed)
	if err != nil {
		return err
	}
	rest := *c
	rest.workers, rest.timeout = 1, 0
	if !rest.handlesPlainly() || c.group != "" || c.where != nil || c.queue.policy != Block && c.queue.policy != Fail {
		return fmt.Errorf("%w: Reply accepts only the options Workers, Buffer, Overflow(Block or Fail) and Timeout", ErrInvalidOption)
	}
	return nil
}

func respond[Q, R any](h func(context.Context, Q) (R, error)) Handler[call[Q, R]] {
	return func(ctx context.Context, m *Message[call[Q, R]]) (err error) {
		c := &m.Value
		if err := c.cause(); err != nil {
			return Drop(err) // no one waits for the answer
		}
		own := c.context(ctx)
		returned := false
		defer func() {
			if !returned {
				value := recover()
				err = caught(value)
				own.end()
				c.answer(answer[R]{err: err})
			}
		}()
		r, err := h(own, c.query)
		returned = true
		own.end()
		c.answer(answer[R]{value: r, err: err})
		return err
	}
}

// cause returns why the requester no longer waits, or nil if it does.
func (c *call[Q, R]) cause() error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// context returns the context of a responder, which ends when ctx does, that of the
// handlers, or when the requester no longer waits.
func (c *call[Q, R]) context(ctx context.Context) *lazyContext {
	requester, deadline := c.ctx, c.deadline // the call is another one after the handler has returned
	return &lazyContext{handler: ctx, make: func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		if why := context.Cause(requester); why != nil {
			cancel(why)
		}
		stop := context.AfterFunc(requester, func() { cancel(context.Cause(requester)) })
		timed, end := ctx, context.CancelFunc(func() {})
		if !deadline.IsZero() {
			timed, end = context.WithDeadline(ctx, deadline)
		}
		return timed, func() {
			stop()
			end()
			cancel(nil)
		}
	}}
}

// group returns the consumer of a group, or nil.
func (t *Topic[T]) group(name string) *consumer[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.groups[name]
}
