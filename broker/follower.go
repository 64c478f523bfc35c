package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
)

const (
	// maxFrameBatch is how many frames a client is given at once, and maxFrameBatchBytes how
	// large they may be together, unless one alone is larger.
	maxFrameBatch      = 256
	maxFrameBatchBytes = 256 << 10
	// readWindow is how many messages are on their way from the store to a client
	// that catches up, and maxStoreReaders how many clients catch up at once.
	readWindow      = 32
	maxStoreReaders = 32
)

// frameBatch is what a client is given at once.
type frameBatch struct {
	frames []*frame
	// lost is how many messages the client has missed since the last batch, that
	// were or may have been for it.
	lost uint64
	// next is where on a stored topic the client goes on, with the mark of that; 0 on others.
	next uint64
	mark string
	// reset says that what comes is of a topic that was created again, from its beginning.
	reset bool
}

func (p *frameBatch) empty() bool { return len(p.frames) == 0 && p.lost == 0 && !p.reset }

// follower gives one client what comes: from a hub, and from the store what the hub
// does not have any more.
type follower struct {
	fans   *fanout
	key    hubKey
	topic  driver.Topic // nil for a pattern that is in no store
	filter *filter.Filter
	hub    *hub
	lane   *lane

	at    uint64 // the number of the next frame in the lane; 0 if it reads the store
	from  driver.SubscribeConfig
	most  int    // frames in a batch
	seq   uint64 // the next sequence, while it reads the store; 0 before the first
	reset bool   // it has resumed, and begins with a topic that was created again
	lost  uint64 // of hub.lost, those that it has been told of
	room  []*frame
}

// follow returns a follower that begins where from says, on a topic that was made then, if
// that is known.
func (f *fanout) follow(ctx context.Context, key hubKey, topic driver.Topic, where *filter.Filter, from driver.SubscribeConfig, made time.Time) (*follower, error) {
	h, err := f.enter(ctx, key, topic)
	if err == nil && !made.IsZero() && !h.made.Equal(made) {
		f.retire(key, h)
		f.leave(key, h)
		h, err = f.enter(ctx, key, topic)
	}
	if err != nil {
		return nil, err
	}
	text := ""
	if where != nil {
		text = where.String()
	}
	l, err := h.enter(text, where)
	if err != nil {
		f.leave(key, h)
		return nil, err
	}
	w := &follower{fans: f, key: key, topic: topic, filter: where, hub: h, lane: l, from: from, most: maxFrameBatch}
	h.mu.RLock()
	w.lost = h.lost
	switch {
	case !key.stored:
		w.at = l.next()
	case from.From == driver.FromNow:
		w.seq = h.taken + 1
	case from.From == driver.FromSeq:
		w.seq = max(from.Seq, 1)
	}
	h.mu.RUnlock()
	if from.From == driver.FromLast {
		if w.seq, err = firstOf(ctx, topic, from); err != nil {
			_ = w.close(ctx)
			return nil, err
		}
	}
	return w, nil
}

// firstOf returns the sequence of the first message that is stored from some place on, or
// of the next one to be stored.
func firstOf(ctx context.Context, topic driver.Topic, from driver.SubscribeConfig) (uint64, error) {
	stats, err := topic.Stats(ctx)
	if err != nil {
		return 0, err
	}
	from.Window = 1
	sub, done, err := subscribeToStored(ctx, topic, from)
	if err != nil {
		return 0, err
	}
	defer done()
	ms, err := sub.Receive(ctx, 1)
	switch {
	case errors.Is(err, driver.ErrEnded):
		return stats.Last + 1, nil
	case err != nil:
		return 0, err
	}
	return ms[0].Seq, nil
}

// subscribeToStored subscribes to the messages that are stored now, from some place on. The
// subscription ends after the last of them, so that the end is known even where messages
// have been deleted. The caller calls done.
func subscribeToStored(ctx context.Context, topic driver.Topic, from driver.SubscribeConfig) (sub driver.Subscription, done func(), err error) {
	if sub, err = topic.Subscribe(ctx, from); err != nil {
		return nil, nil, err
	}
	done = func() { _ = sub.Close(context.WithoutCancel(ctx)) } // nothing is acknowledged
	if err := sub.Drain(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return sub, done, nil
}

// close implements source.
func (w *follower) close(context.Context) error {
	w.hub.leave(w.lane)
	w.fans.leave(w.key, w.hub)
	return nil
}

// next implements source.
func (w *follower) next(ctx context.Context, beat <-chan time.Time) (frameBatch, error) {
	p, err := w.wait(ctx, beat)
	if err == nil {
		p.mark, p.reset, w.reset = w.hub.mark, w.reset, false
	}
	return p, err
}

// wait waits for a batch, at most until the next beat.
func (w *follower) wait(ctx context.Context, beat <-chan time.Time) (frameBatch, error) {
	for {
		if w.at == 0 && !w.join() {
			p, err := w.catchUp(ctx)
			if err != nil || !p.empty() {
				return p, err
			}
			select {
			case <-beat:
				return p, nil
			default:
				continue
			}
		}
		p, wake, err := w.take()
		if err != nil || !p.empty() {
			return p, err
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-beat:
			return p, nil
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

// take returns what the lane has. Without anything it returns what is closed when
// there is something; nil if the client is to read the store.
func (w *follower) take() (p frameBatch, wake <-chan struct{}, err error) {
	h, l := w.hub, w.lane
	h.mu.RLock()
	defer h.mu.RUnlock()
	if w.key.stored && w.at < l.first {
		w.at = 0
		return p, nil, nil
	}
	p.frames, w.at, p.lost = l.read(w.room[:0], w.at, w.most, maxFrameBatchBytes)
	w.room = p.frames
	p.lost += h.lost - w.lost
	w.lost = h.lost
	if w.key.stored {
		for len(p.frames) > 0 && p.frames[0].seq < w.seq { // the store was faster than the hub
			p.frames = p.frames[1:]
		}
		if n := len(p.frames); n > 0 {
			w.seq = p.frames[n-1].seq + 1
		} else if w.at == l.next() {
			w.seq = max(w.seq, h.passed+1) // what has not come does not match
		}
		p.next = w.seq
	}
	if !p.empty() {
		return p, nil, nil
	}
	if h.ended != nil {
		return p, nil, h.ended
	}
	l.waiting.Add(1)
	return p, l.wake, nil
}

// maxScan is how many messages a client reads from the store at once, whether or
// not they match.
const maxScan = 8192

// catchUp reads from the store what the lane does not have. The batch is empty if
// nothing matches of what it has read.
func (w *follower) catchUp(ctx context.Context) (p frameBatch, err error) {
	select {
	case w.fans.readers <- struct{}{}:
		defer func() { <-w.fans.readers }()
	case <-ctx.Done():
		return p, context.Cause(ctx)
	}
	stats, err := w.topic.Stats(ctx)
	if err != nil {
		return p, err
	}
	if !stats.Created.Equal(w.hub.made) {
		w.fans.retire(w.key, w.hub)
		return p, errTopicReplaced
	}
	from := w.from
	if w.seq > 0 {
		from = driver.SubscribeConfig{From: driver.FromSeq, Seq: w.seq}
	}
	from.Window = readWindow
	sub, done, err := subscribeToStored(ctx, w.topic, from)
	if err != nil {
		return p, err
	}
	defer done()
	for size, scanned := maxFrameBatchBytes, 0; len(p.frames) < w.most && size > 0 && scanned < maxScan; {
		ms, err := sub.Receive(ctx, min(readWindow, w.most-len(p.frames)))
		switch {
		case errors.Is(err, driver.ErrEnded):
			w.seq = max(w.seq, stats.Last+1)
			p.next = w.seq
			return p, nil
		case err != nil && len(p.frames) > 0: // what has been read is not lost
			p.next = w.seq
			return p, nil
		case err != nil:
			return p, err
		}
		scanned += len(ms)
		for _, m := range ms {
			w.seq = m.Seq + 1
			if w.filter != nil && !w.filter.Match(&Event{Message: m}) {
				continue
			}
			f, err := w.fans.maker.frame(m, w.hub.mark)
			if err != nil {
				return p, fmt.Errorf("message %d: %w", m.Seq, err)
			}
			size -= f.size()
			p.frames = append(p.frames, f)
		}
	}
	p.next = w.seq
	return p, nil
}

// join goes on in the lane, if that has all from there on.
func (w *follower) join() bool {
	if w.seq == 0 {
		return false
	}
	w.hub.mu.RLock()
	defer w.hub.mu.RUnlock()
	at, ok := w.lane.since(w.seq)
	if ok {
		w.at = at
	}
	return ok
}
