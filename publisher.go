package hark

import (
	"context"
	"fmt"
	"slices"

	"github.com/harkbus/hark/internal/feed"
)

// Publisher is a separate lane into a topic, for one goroutine that publishes a
// lot: it shares nothing with other publishers, so it never waits for their
// turn. Subscriptions see the messages of one Publisher in order, but in any
// order relative to messages of other publishers and of Topic.Publish. On a
// stored topic, which has one order, a Publisher publishes as Topic.Publish
// does.
//
// A Publisher must be used by one goroutine at a time. Make one with
// Topic.Publisher and close it when done: each costs its subscriptions some
// memory.
type Publisher[T any] struct {
	topic *Topic[T]
	log   *feed.Log[entry[T]] // its own log, or that of the topic
	own   feed.Log[entry[T]]
	at    uintptr
	over  bool // closed
}

// Publisher returns a new lane into the topic.
func (t *Topic[T]) Publisher() *Publisher[T] {
	p := &Publisher[T]{topic: t, at: caller()}
	if t.core.retention != nil {
		p.log = &t.log
		return p
	}
	p.log = &p.own
	p.own.Init(t.logConfig(true))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lanes = append(t.lanes, p)
	if t.sealed {
		p.own.Seal()
	}
	for _, tap := range t.tapsLocked() {
		tap.addLane(t, &p.own, feed.FromNow)
	}
	return p
}

// Publish is Topic.Publish through this lane.
func (p *Publisher[T]) Publish(ctx context.Context, v T, opts ...PublishOption) error {
	t := p.topic
	if err := ctx.Err(); err != nil {
		return t.failed(context.Cause(ctx))
	}
	if p.over {
		return t.failed(errPublisherClosed)
	}
	if len(opts) == 0 {
		switch t.mode.Load() {
		case silent:
			return nil
		case plain:
			if p.own.AppendSole(entry[T]{value: v}) {
				return nil
			}
		}
	}
	return t.publish(ctx, p.log, v, opts)
}

// PublishAll is Topic.PublishAll through this lane.
func (p *Publisher[T]) PublishAll(ctx context.Context, vs []T, opts ...PublishOption) error {
	if p.over {
		return p.topic.failedFrom(0, len(vs), errPublisherClosed)
	}
	return p.topic.publishAll(ctx, p.log, vs, opts)
}

var errPublisherClosed = fmt.Errorf("publisher %w", ErrClosed)

// Close gives up the lane. What it published is still delivered. Publishing
// through it afterwards returns ErrClosed. It is idempotent.
func (p *Publisher[T]) Close() error {
	p.over = true
	t := p.topic
	t.mu.Lock()
	i := slices.Index(t.lanes, p)
	if i >= 0 {
		t.lanes = slices.Delete(t.lanes, i, i+1)
		t.core.published.Add(p.own.Tail())
	}
	taps := t.tapsLocked()
	t.mu.Unlock()
	if i < 0 {
		return nil
	}
	p.own.Close()
	for _, tap := range taps {
		tap.endLane(&p.own)
	}
	return nil
}
