package hark

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// member is one subscription: alone on its consumer, or one of a group.
type member[T any] struct {
	Subscription
	consumer *consumer[T]
	cfg      *subscribeConfig
	handle   Handler[T]
	batch    BatchHandler[T] // instead of handle; nil otherwise
	plain    bool            // handling is no more than calling handle
	state    atomic.Uint32
	workers  []*worker[T]

	// Guarded by consumer.mu.
	ctx    context.Context // of the handlers; made when first needed
	cancel context.CancelCauseFunc
	quiet  []chan struct{} // by worker: closed when it has stopped for good; nil before halt
	at     uintptr         // who subscribed
	role   string

	inbox interface{ close() } // where its messages come from; nil in process
}

// The bits of member.state; without any, workers work.
const (
	memberPaused uint32 = 1 << iota
	memberClosed
	memberLeaving // it may not be paused any more, but works

	memberHalts = memberPaused | memberClosed
)

// handlerKey finds the consumer in the context of its handlers.
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

// handlerOf returns the consumer whose handler was given ctx, nil if none.
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

// halted is called by a worker that sees that its member is paused or closed.
// It reports whether that still holds.
func (w *worker[T]) halted() bool {
	if w.holds() {
		w.handBack()
	}
	m := w.member
	m.consumer.mu.Lock()
	defer m.consumer.mu.Unlock()
	state := m.state.Load()
	if state&memberClosed != 0 && !w.quiet {
		w.quiet = true
		close(m.quiet[slices.Index(m.workers, w)])
	}
	return state&memberHalts != 0
}

// call runs the handler with what else the options ask for.
func (m *member[T]) call(ctx context.Context, msg *Message[T]) error {
	if m.cfg.timeout == 0 && len(m.consumer.bus.hooks.slow) == 0 {
		return m.handle(ctx, msg)
	}
	return m.guard(ctx, func(ctx context.Context) error { return m.handle(ctx, msg) })
}

// guard runs a handler with a Timeout and a watch for slowness.
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

// watch tells the hooks if the handler that starts now is slow.
func (c *core) watch() *time.Timer {
	return time.AfterFunc(c.bus.slow, func() {
		c.bus.hooks.onSlow(SlowEvent{Source: c.source(), For: c.bus.slow})
	})
}

// halt makes the workers stop after the message they are at, and returns what
// is closed by each when it has.
func (m *member[T]) halt() []chan struct{} {
	c := m.consumer
	c.mu.Lock()
	if m.quiet == nil {
		m.quiet = make([]chan struct{}, len(m.workers))
		for i := range m.quiet {
			m.quiet[i] = make(chan struct{})
		}
	}
	quiet := m.quiet
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
// they are.
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

// setPaused stops or continues the workers. One that leaves is not paused.
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

// rouse makes the workers look for something to do.
func (m *member[T]) rouse() {
	for _, w := range m.workers {
		w.Notify()
	}
}
