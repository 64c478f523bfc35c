package hark

import (
	"context"
	"errors"
	"iter"

	"github.com/harkbus/hark/driver"
)

// Messages subscribes when the loop over it begins, and yields each message; a
// message is done when the loop's body ends. The subscription ends with the
// loop: what it has not yielded is handed back to the group, or dropped. When
// ctx ends or the bus closes, the last pair has a nil message and the cause. With
// UntilNow the loop ends after what is stored when it begins.
//
// Messages may be kept. The loop is its only worker and retries nothing, so
// Workers and the options for failures are ErrInvalidOption; a message on which
// a predicate panics is dead-lettered at once.
func (t *Topic[T]) Messages(ctx context.Context, opts ...SubscribeOption) iter.Seq2[*Message[T], error] {
	at := caller()
	return func(yield func(*Message[T], error) bool) {
		m, err := t.subscribe(pulled, nil, nil, opts, subscribes, at)
		if err != nil {
			yield(nil, fail("subscribe", t.core.name, err))
			return
		}
		if in, ok := m.impl.(interface{ close() }); ok { // over an engine
			defer in.close()
		}
		m.worker.pull(ctx, yield)
	}
}

// untilNow makes what the topic holds now the last that the member gets, if an option
// asks for that. The channel is closed when nothing more will come.
func (m *member[T]) untilNow(ctx context.Context) (arrived <-chan struct{}, err error) {
	if !m.cfg.untilNow {
		return nil, nil
	}
	if in, ok := m.impl.(*inbox[T]); ok {
		return in.pumped, in.sub.Drain(ctx)
	}
	m.consumer.finishSources()
	ch := make(chan struct{})
	close(ch)
	return ch, nil
}

// ending returns why nothing more comes once arrived is closed: ErrEnded if everything
// has come, and nil if the bus is closing, so that the member will be closed too.
func (m *member[T]) ending() error {
	if in, ok := m.impl.(*inbox[T]); ok {
		return in.ended
	}
	return driver.ErrEnded
}

// pull yields messages until the loop or ctx ends, the member is closed, or it has
// yielded everything until now.
func (w *worker[T]) pull(ctx context.Context, yield func(*Message[T], error) bool) {
	m := w.member
	c := m.consumer
	defer func() {
		m.halt()
		w.halted()
		c.remove(m)
	}()
	arrived, err := m.untilNow(ctx)
	if err != nil {
		yield(nil, fail("subscribe", c.name, engineError(err)))
		return
	}
	w.hand = &hand[T]{buf: make([]Message[T], w.chunk)}
	for all := false; ; {
		if ctx.Err() != nil {
			yield(nil, fail("subscribe", c.name, context.Cause(ctx)))
			return
		}
		if m.state.Load()&memberHalts != 0 && w.halted() {
			if m.state.Load()&memberClosed != 0 {
				yield(nil, fail("subscribe", c.name, ErrClosed))
				return
			}
		} else if w.n = c.take(w, true); w.n > 0 {
			if w.at = 0; !w.yieldAll(ctx, yield) {
				return
			}
			continue
		} else if all && c.idle() {
			if err := m.ending(); !errors.Is(err, driver.ErrEnded) {
				yield(nil, fail("subscribe", c.name, engineError(err)))
			}
			return
		}
		c.tellIdle()
		select {
		case <-w.tokens:
		case <-arrived:
			arrived, all = nil, m.ending() != nil
		case <-ctx.Done():
		}
	}
}

// yieldAll yields the messages in the buffer and reports whether the loop
// continues. If the loop's body panics, its message goes back.
func (w *worker[T]) yieldAll(ctx context.Context, yield func(*Message[T], error) bool) bool {
	for w.at < w.n {
		if w.member.state.Load()&memberHalts != 0 || ctx.Err() != nil {
			w.handBack()
			return true
		}
		m := &w.buf[w.at]
		f, err := w.trySift(m)
		if err != nil {
			w.at++ // the messages after it are not begun
			w.settle(m, f, err)
			continue
		}
		more := f != handled || yield(m.Clone(), nil)
		w.settle(m, f, nil)
		w.at++
		if !more {
			return false
		}
	}
	return true
}

// trySift is sift where no one else would catch a predicate's panic.
func (w *worker[T]) trySift(m *Message[T]) (f disposition, err error) {
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
	}()
	f, returned = w.sift(m), true
	return f, nil
}
