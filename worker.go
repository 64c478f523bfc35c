package hark

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/harkbus/hark/internal/exec"
)

const (
	// maxChunk is how many messages a worker takes at a time at most.
	maxChunk = 32
	// turn is how many chunks it handles before other tasks get theirs.
	turn = 64
	// A worker takes more at a time while handlers average less than fastRun,
	// and one at a time once they average more than slowRun: what it has taken
	// nobody else can take.
	fastRun = 2 * time.Microsecond
	slowRun = 50 * time.Microsecond
	// sample says that one in so many full chunks is timed.
	sample = 16
)

// worker runs the handler of one member, one message at a time.
type worker[T any] struct {
	exec.Task
	member *member[T]
	ctx    context.Context // of the handler; made when first needed
	buf    []Message[T]    // messages taken
	held   *held[T]        // where the message was, if it was taken from aside
	at, n  int             // buf[at:n] are still to be handled
	chunk  int             // how many to take at a time
	most   int             // limit of chunk
	chunks uint            // taken so far
	tokens chan struct{}   // wakes an iterator, which is no task; otherwise nil
	pile   *pile[T]        // the batch it gathers; nil without a batch handler
	quiet  bool            // it has stopped for good; guarded by consumer.mu
}

func (w *worker[T]) init(m *member[T]) {
	w.member, w.chunk, w.most = m, 1, maxChunk
	if q := m.consumer.queue; q.buffer != Unbounded {
		w.most = max(1, min(maxChunk, q.buffer/4))
	}
	if m.batch != nil {
		w.pile = &pile[T]{}
	}
	w.Init(m.consumer.bus.pool, w)
}

// Notify implements waker.
func (w *worker[T]) Notify() bool {
	if w.tokens == nil {
		return w.Task.Notify()
	}
	select {
	case w.tokens <- struct{}{}:
	default:
	}
	return false // it may be busy: somebody else should be told too
}

// Run implements exec.Runner.
func (w *worker[T]) Run(alone bool) (more bool) {
	worked, last := false, false
	for range turn {
		if w.member.state.Load() != 0 && w.halted() {
			return false
		}
		if w.buf == nil {
			w.ctx = w.member.context()
			w.buf = make([]Message[T], w.chunk)
		}
		if w.at < w.n { // a handler has ended the goroutine that was here
			w.deliver()
		}
		w.n = w.member.consumer.take(w, last)
		switch {
		case w.n > 0:
			w.at = 0
			if w.member.batch == nil {
				w.deliver()
			} else {
				w.gather()
			}
			worked, last = true, false
		case last:
			if w.pile != nil && !w.pileRests() {
				continue
			}
			w.rest()
			return false
		default:
			if last = true; worked && alone {
				// Let publishers go on before the last look: what they
				// publish meanwhile comes without waking anybody.
				runtime.Gosched()
			}
		}
	}
	return true
}

// rest is called when there is nothing to do.
func (w *worker[T]) rest() {
	if c := w.member.consumer; w.chunks > 0 {
		if c.clears {
			clear(w.buf)
		}
		c.tellIdle()
	}
}

// deliver gives the messages in the buffer to the handler.
func (w *worker[T]) deliver() {
	n := w.n
	timed := n == w.chunk && (n < w.most || w.chunks%sample == 0)
	w.chunks++
	var start time.Time
	if timed {
		start = time.Now()
	}
	for w.at < w.n {
		if w.member.state.Load() != 0 {
			w.handBack()
			return
		}
		if w.member.careful || w.held != nil || w.buf[w.at].meta != nil {
			w.handleOne()
		} else {
			w.handleRun()
		}
	}
	if timed {
		w.adapt(time.Since(start) / time.Duration(n))
	}
}

// adapt sets how many messages are taken at a time from what one costs.
func (w *worker[T]) adapt(cost time.Duration) {
	switch {
	case cost > slowRun:
		w.chunk = 1
	case cost < fastRun && w.chunk < w.most:
		w.chunk = min(2*w.chunk, w.most)
		if w.chunk > len(w.buf) {
			w.buf = make([]Message[T], w.chunk)
		}
	}
}

// handleRun handles messages for as long as nothing special comes.
func (w *worker[T]) handleRun() {
	first := w.at
	var err error
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		w.member.consumer.tally.delivered.Add(uint64(w.at - first))
		if err != nil {
			w.failed(&w.buf[w.at], err)
			w.at++
		}
	}()
	handle, ctx, state := w.member.handle, w.ctx, &w.member.state
	for w.at < w.n {
		m := &w.buf[w.at]
		if m.meta != nil || state.Load() != 0 {
			break
		}
		if err = handle(ctx, m); err != nil {
			break
		}
		w.at++
	}
	returned = true
}

// handleOne handles one message with everything that can be asked for.
func (w *worker[T]) handleOne() {
	m := &w.buf[w.at]
	f := handled
	var err error
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		w.settle(m, f, err)
		w.at++
	}()
	if f = w.sift(m); f == handled {
		err = w.member.call(w.ctx, m)
	}
	returned = true
}

// fate is what becomes of a message that does not fail.
type fate uint8

const (
	handled fate = iota
	filtered
	expired
)

// sift reports whether m is to be handled.
func (w *worker[T]) sift(m *Message[T]) fate {
	if m.meta != nil && !m.meta.expires.IsZero() && !time.Now().Before(m.meta.expires) {
		return expired
	}
	for _, p := range w.member.cfg.where {
		if !p.Match(m) {
			return filtered
		}
	}
	return handled
}

// settle accounts for a message and lets the next of its key have its turn.
func (w *worker[T]) settle(m *Message[T], f fate, err error) {
	c := w.member.consumer
	if m.attempt > 0 && f == handled {
		c.tally.redelivered.Add(1)
	}
	switch {
	case err != nil:
		w.failed(m, err)
	case f == filtered:
		c.tally.filtered.Add(1)
	case f == expired:
		c.giveUp(DropExpired)
	default:
		c.tally.delivered.Add(1)
		c.bus.hooks.onDeliver(DeliverEvent{Source: c.source(), Attempt: m.Attempt()})
	}
	if w.held != nil {
		c.release(w.held)
		w.held = nil
	}
}

var errGoexit = errors.New("the handler ended its goroutine with runtime.Goexit")

// caught returns the error of a handler that did not return.
func caught(value any) error {
	if value == nil {
		return errGoexit
	}
	return &PanicError{Value: value, Stack: debug.Stack()}
}

// failed decides what becomes of a message whose handler failed.
func (w *worker[T]) failed(m *Message[T], err error) {
	c, cfg := w.member.consumer, w.member.cfg
	c.tally.failed.Add(1)
	now := time.Now()
	e := FailEvent{Source: c.source(), Message: m, Attempt: m.Attempt(), Err: err}
	verdict, after := verdictOf(err)
	e.Retry = (verdict == retry || verdict == retryAfter) && e.Attempt < cfg.maxAttempts
	if e.Retry {
		if e.After = after; verdict == retry {
			e.After = cfg.backoff.wait(e.Attempt)
		}
	}
	c.bus.hooks.onFail(e)
	switch {
	case e.Retry:
		w.putAside(m, now, now.Add(e.After))
	case verdict == drop:
		c.giveUp(DropByHandler)
	default:
		w.bury(m, e, now)
	}
}

// giveUp counts a message that a worker holds as dropped.
func (c *core) giveUp(why DropReason) {
	c.mu.Lock()
	c.lost(why, 1)
	c.mu.Unlock()
	c.report()
}

// bury makes a dead letter of a message.
func (w *worker[T]) bury(m *Message[T], e FailEvent, now time.Time) {
	c, cfg := w.member.consumer, w.member.cfg
	f := &Failure{
		Topic:        m.Topic(),
		Subscription: c.name,
		Reason:       e.Err.Error(),
		Attempts:     e.Attempt,
		First:        now,
		Last:         now,
		Seq:          m.Seq(),
	}
	if w.held != nil && !w.held.first.IsZero() {
		f.First = w.held.first
	}
	var panicked *PanicError
	if errors.As(e.Err, &panicked) {
		f.Stack = string(panicked.Stack)
	}
	to := cfg.deadLetter
	if to == "" && !cfg.noDeadLetter && m.Failure() == nil {
		to = m.Topic() + deadSuffix
	}
	if to == "" || m.topic.bury(to, m.Data(), m.deadMeta(f)) != nil {
		c.giveUp(DropGivenUp)
		return
	}
	c.tally.dead.Add(1)
	c.bus.hooks.onDeadLetter(e)
}
