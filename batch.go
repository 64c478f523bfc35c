package hark

import (
	"context"
	"fmt"
	"time"
)

// SubscribeBatch calls h for several messages at once: as many as there are, up
// to the limit that Batch sets. A *BatchError, returned unwrapped, fails the
// items that it names, which are retried like single messages and may come again
// in another batch; any other error, or a panic, fails all of them. The messages
// may be kept.
func (t *Topic[T]) SubscribeBatch(h BatchHandler[T], opts ...SubscribeOption) (*Subscription, error) {
	if h == nil {
		return nil, fail("subscribe", t.core.name, errNoHandler)
	}
	m, err := t.subscribe(batched, nil, h, opts, subscribes, caller())
	if err != nil {
		return nil, fail("subscribe", t.core.name, err)
	}
	return &m.Subscription, nil
}

// pendingBatch is the batch that a worker is gathering.
type pendingBatch[T any] struct {
	items []*held[T]
	until time.Time // when it must be handled at the latest
	timer *time.Timer
}

// gather moves the messages in the buffer to the batch, and has the batch handled
// when it is full.
func (w *worker[T]) gather() {
	for w.at < w.n {
		m := &w.buf[w.at]
		w.at++
		if !w.admits(m) {
			continue
		}
		h := w.held
		if w.held = nil; h == nil {
			h = hold(m)
		}
		p := w.batch
		if len(p.items) == 0 {
			p.until = time.Now().Add(w.member.cfg.batchWait)
		}
		if p.items = append(p.items, h); len(p.items) == w.member.cfg.batch {
			w.handleBatch()
		}
	}
	if len(w.batch.items) > 0 && !time.Now().Before(w.batch.until) {
		w.handleBatch()
	}
}

// admits reports whether m is for the handler. If not, it settles m.
func (w *worker[T]) admits(m *Message[T]) bool {
	f := handled
	var err error
	returned := false
	defer func() {
		if !returned {
			err = caught(recover()) // a panic of a Predicate
		}
		if f != handled || err != nil {
			w.settle(m, f, err)
		}
	}()
	if f = w.sift(m); f == handled && w.held != nil {
		err = w.held.fault
	}
	returned = true
	return f == handled && err == nil
}

// batchCanWait reports whether there is nothing to do for the batch but wait, and
// if so makes sure that the worker wakes in time. Otherwise it has handled the
// batch.
func (w *worker[T]) batchCanWait() bool {
	p := w.batch
	if len(p.items) == 0 {
		return true
	}
	wait := time.Until(p.until)
	switch {
	case wait <= 0 || w.member.state.Load()&memberLeaving != 0:
		w.handleBatch()
		return false
	case p.timer == nil:
		p.timer = time.AfterFunc(wait, func() { w.Notify() })
	default:
		p.timer.Reset(wait)
	}
	return true
}

// handleBatch calls the handler with the gathered batch.
func (w *worker[T]) handleBatch() {
	items := w.batch.items
	w.batch.items = nil
	batch := make([]*Message[T], len(items))
	for i, h := range items {
		batch[i] = &h.Message
	}
	errs := make([]error, len(items))
	returned := false
	defer func() {
		if !returned {
			failAll(errs, caught(recover()))
		}
		for i, h := range items {
			if errs[i] != nil { // the handler may have kept the message
				copied := *h
				h = &copied
			}
			w.held = h
			w.settle(&h.Message, handled, errs[i])
		}
	}()
	failItems(errs, w.member.guard(w.member.ctx, func(ctx context.Context) error { return w.member.batch(ctx, batch) }))
	returned = true
}

// failItems distributes the error of a batch handler over the items. Only a
// *BatchError that is returned as it is refers to them: a wrapped one, such as
// that of a PublishAll, has the indices of another batch.
func failItems(errs []error, err error) {
	some, ok := err.(*BatchError)
	if !ok {
		failAll(errs, err)
		return
	}
	for _, item := range some.Items {
		if item.Index < 0 || item.Index >= len(errs) {
			failAll(errs, fmt.Errorf("the batch has %d items, and none at %d: %w", len(errs), item.Index, err))
			return
		}
		errs[item.Index] = item.Err
	}
}

func failAll(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}
