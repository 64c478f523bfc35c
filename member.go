package hark

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// member is one subscription, either alone on its consumer or one of a group.
type member[T any] struct {
	worker   worker[T] // the first
	state    atomic.Uint32
	plain    bool // handling is just a call of handle
	as       role
	consumer *consumer[T]
	handle   Handler[T]

	// Guarded by consumer.mu, except that those who have called context may read
	// ctx.
	ctx    context.Context // of the handlers; created when first needed
	cancel context.CancelCauseFunc

	Subscription
	cfg   *subscribeConfig
	batch BatchHandler[T] // used instead of handle; nil otherwise
	at    uintptr         // who subscribed
	peer  *member[T]      // the next one of the consumer; guarded by consumer.mu
}

// role says what a member does with its topic.
type role uint8

const (
	subscribes role = iota
	replies
)

// role returns the Role of the member's End.
func (m *member[T]) role() string {
	if m.as == replies {
		return "reply"
	}
	return "subscribe"
}

// workers yields the workers.
func (m *member[T]) workers(yield func(*worker[T]) bool) {
	for w := &m.worker; w != nil && yield(w); w = w.next {
	}
}

// The bits of member.state. Workers work if none is set.
const (
	memberPaused uint32 = 1 << iota
	memberClosed
	memberLeaving // the member works but cannot be paused any more

	memberHalts = memberPaused | memberClosed
)

// handlerKey is the key of the consumer in its handlers' context.
type handlerKey struct{}

type handlerContext struct {
	context.Context
	core *core
}

func (c handlerContext) Value(key any) any {
	if key == (handlerKey{}) {
		return c.core
	}
	return c.Context.Value(key)
}

// handlerOf returns the consumer whose handler was given ctx, or nil.
func handlerOf(ctx context.Context) *core {
	c, _ := ctx.Value(handlerKey{}).(*core)
	return c
}

// context returns the context of the member's handlers.
func (m *member[T]) context() context.Context {
	m.consumer.mu.Lock()
	defer m.consumer.mu.Unlock()
	if m.ctx == nil {
		m.ctx, m.cancel = context.WithCancelCause(handlerContext{context.Background(), &m.consumer.core})
	}
	return m.ctx
}

// halted is called by a worker that has seen that its member is paused or
// closed. It reports whether that is still so.
func (w *worker[T]) halted() bool {
	if w.holds() {
		w.handBack()
	}
	m := w.member
	m.consumer.mu.Lock()
	defer m.consumer.mu.Unlock()
	state := m.state.Load()
	if state&memberClosed != 0 && !w.stopped {
		w.stopped = true
		close(w.quiet)
	}
	return state&memberHalts != 0
}

// call runs the handler with everything else that the options demand.
func (m *member[T]) call(ctx context.Context, msg *Message[T]) error {
	if m.cfg.timeout == 0 && len(m.consumer.bus.hooks.slow) == 0 {
		return m.handle(ctx, msg)
	}
	return m.guard(ctx, func(ctx context.Context) error { return m.handle(ctx, msg) })
}

// guard runs a handler with a Timeout and a watch for slow handlers.
func (m *member[T]) guard(ctx context.Context, handle func(context.Context) error) error {
	if len(m.consumer.bus.hooks.slow) > 0 {
		defer m.consumer.watch().Stop()
	}
	if m.cfg.timeout == 0 {
		return handle(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.timeout, ErrTimeout)
	defer cancel()
	err := handle(ctx)
	if err != nil && context.Cause(ctx) == ErrTimeout && !errors.Is(err, ErrTimeout) {
		err = fmt.Errorf("%w after %v: %w", ErrTimeout, m.cfg.timeout, err)
	}
	return err
}

// watch reports the handler that starts here to the hooks if it is slow.
func (c *core) watch() *time.Timer {
	return time.AfterFunc(c.bus.slow, func() {
		c.bus.hooks.onSlow(SlowEvent{Source: c.source(), For: c.bus.slow})
	})
}

// halt makes the workers stop after their current message. It returns a channel
// for each, which is closed when the worker has stopped.
func (m *member[T]) halt() []chan struct{} {
	c := m.consumer
	c.mu.Lock()
	var quiet []chan struct{}
	for w := range m.workers {
		if w.quiet == nil {
			w.quiet = make(chan struct{})
		}
		quiet = append(quiet, w.quiet)
	}
	m.state.Or(memberClosed)
	c.mu.Unlock()
	m.rouse()
	return quiet
}

// abort cancels the contexts of the handlers.
func (m *member[T]) abort(cause error) {
	m.context()
	m.cancel(cause)
}

// await waits until all channels are closed or ctx ends, and reports whether
// all are closed.
func await(ctx context.Context, all []chan struct{}) bool {
	for _, ch := range all {
		select {
		case <-ch:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// setPaused pauses or resumes the workers. A member that is leaving is not
// paused.
func (m *member[T]) setPaused(paused bool) {
	for paused {
		state := m.state.Load()
		if state&memberLeaving != 0 || m.state.CompareAndSwap(state, state|memberPaused) {
			return
		}
	}
	m.state.And(^memberPaused)
	m.rouse()
}

// rouse makes the workers look for work.
func (m *member[T]) rouse() {
	for w := range m.workers {
		w.Notify()
	}
}
