package hark

import (
	"context"
	"fmt"
	"slices"
)

// MessageHandler handles a message of any type.
type MessageHandler func(ctx context.Context, m AnyMessage) error

// Middleware wraps handlers. What the wrapped handler returns decides what
// happens to the message, so middleware may change that too.
type Middleware func(next MessageHandler) MessageHandler

// Use wraps the handlers of subscriptions made from now on; the first Middleware
// is the outermost. It does not affect batch handlers and iterators, which have
// no handler of single messages, nor listeners of a Notifier and observers of a
// Value, which get no message. The subscription decides how failures are
// retried, whatever the order of middleware. Use panics on a nil Middleware.
func (b *Bus) Use(mw ...Middleware) {
	for i, m := range mw {
		if m == nil {
			panic(fmt.Sprintf("hark: Use: middleware %d of %d is nil", i+1, len(mw)))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrap = append(b.wrap, mw...)
}

// wrapped returns h wrapped in the middleware of the bus.
func wrapped[T any](b *Bus, h Handler[T]) Handler[T] {
	b.mu.Lock()
	wrap := slices.Clone(b.wrap)
	b.mu.Unlock()
	if len(wrap) == 0 || h == nil {
		return h
	}
	next := MessageHandler(func(ctx context.Context, m AnyMessage) error { return h(ctx, m.(*Message[T])) })
	for _, mw := range slices.Backward(wrap) {
		next = mw(next)
	}
	return func(ctx context.Context, m *Message[T]) error { return next(ctx, m) }
}
