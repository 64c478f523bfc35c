package hark

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// call is a request on its way to a responder.
type call[Q, R any] struct {
	query  Q
	ctx    context.Context // of the requester
	answer func(answer[R]) // called once
}

type answer[R any] struct {
	value R
	err   error
}

// replyGroup is the group of all responders to a name.
const replyGroup = "responders"

// Request sends q to one of the responders of that name and returns its reply,
// or its error, wrapped. Without a responder it returns ErrNoResponders at
// once, and when the last one leaves before it has replied. It waits until ctx
// ends; the responder's context ends with it.
func Request[Q, R any](ctx context.Context, b *Bus, name string, q Q) (R, error) {
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
	if err := t.admit(ctx, entry[call[Q, R]]{value: call[Q, R]{q, ctx, func(a answer[R]) { answers <- a }}}, time.Time{}, &t.log); err != nil {
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
	case a := <-answers: // given just before
		return a.value, a.err
	default:
		return r, fmt.Errorf("%w: the last one left", ErrNoResponders)
	}
}

// Reply answers requests of that name with h, one at a time unless Workers
// says otherwise; Buffer, Overflow(Block or Fail) and Timeout apply as well.
// Responders of one name share the requests. An error or a
// panic of h goes to the requester, and to the FailHooks; it is not retried.
// h's context ends when the requester's does.
func Reply[Q, R any](b *Bus, name string, h func(ctx context.Context, q Q) (R, error), opts ...SubscribeOption) (*Subscription, error) {
	at := caller()
	t, err := newTopic[call[Q, R]](b, KindRequest, name, at, nil)
	if err != nil {
		return nil, fail("reply", name, err)
	}
	if h == nil {
		return nil, fail("reply", name, errNoHandler)
	}
	if err := checkReply(opts); err != nil {
		return nil, fail("reply", name, err)
	}
	opts = append(slices.Clone(opts), Group(replyGroup), MaxAttempts(1), NoDeadLetter())
	m, err := t.subscribe(pushed, respond(h), nil, opts, "reply", at)
	if err != nil {
		return nil, fail("reply", name, err)
	}
	if b.engine != nil {
		if err := replyRemote(b, name, t, m); err != nil {
			_ = m.shut() // nobody has been able to ask
			return nil, fail("reply", name, err)
		}
	}
	return &m.Subscription, nil
}

// checkReply refuses the options that have no meaning for responders: they are
// one group, retry nothing, and owe each request an answer.
func checkReply(opts []SubscribeOption) error {
	c, err := parse(opts, onEphemeral, pushed)
	if err != nil {
		return err
	}
	rest := *c
	rest.workers, rest.timeout = 1, 0
	if !rest.handlesPlainly() || c.group != "" || c.where != nil || c.queue.policy != Block && c.queue.policy != Fail {
		return fmt.Errorf("%w: responders take Workers, Buffer, Overflow(Block or Fail) and Timeout", ErrInvalidOption)
	}
	return nil
}

func respond[Q, R any](h func(context.Context, Q) (R, error)) Handler[call[Q, R]] {
	return func(ctx context.Context, m *Message[call[Q, R]]) (err error) {
		c := m.Value
		if err := context.Cause(c.ctx); err != nil {
			return Drop(err) // nobody waits for the answer
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })()
		returned := false
		defer func() {
			if !returned {
				value := recover()
				err = caught(value)
				c.answer(answer[R]{err: err})
			}
		}()
		r, err := h(ctx, c.query)
		returned = true
		c.answer(answer[R]{value: r, err: err})
		return err
	}
}

// group returns the consumer of a group, nil if there is none.
func (t *Topic[T]) group(name string) *consumer[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.groups[name]
}
