package hark

import (
	"errors"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// maxChunk is the most messages that a worker takes at a time.
	maxChunk = 32
	// turn is how many chunks a worker handles before other tasks get their
	// turn.
	turn = 64
	// A worker takes more messages at a time while handlers take less than
	// fastRun on average, and one at a time when they take more than slowRun,
	// because no other worker can take what it has taken.
	fastRun = 2 * time.Microsecond
	slowRun = 50 * time.Microsecond
	// sample is the interval, in full chunks, at which one is timed.
	sample = 16
)

// worker runs the handler of one member, one message at a time.
type worker[T any] struct {
	waker
	*hand[T] // nil if it has none
	member   *member[T]
	chunk    int32         // how many messages to take at a time
	full     uint16        // number of consecutive chunks that had as many messages as allowed
	begun    bool          // it has run, so member.ctx has been made
	stopped  bool          // it has permanently stopped; guarded by consumer.mu
	quiet    chan struct{} // closed when it stops permanently; nil before halt; guarded by consumer.mu
	next     *worker[T]    // of its member
}

// hand is what a worker needs to run. With very many workers each gives it to the
// next when it goes to sleep, so that the few hands in use stay in the caches.
type hand[T any] struct {
	buf   []Message[T] // messages taken
	held  *held[T]     // the message, if it was pending
	at, n int          // buf[at:n] still has to be handled
	used  int          // buf[used:] has not been written to
	one   [1]Message[T]
	batch *pendingBatch[T] // the batch being gathered; nil without a batch handler
}

// handsOf returns the bus's pool of hands for messages of T.
func handsOf[T any](b *Bus) *sync.Pool {
	typ := reflect.TypeFor[T]()
	if p, ok := b.hands.Load(typ); ok {
		return p.(*sync.Pool)
	}
	p, _ := b.hands.LoadOrStore(typ, &sync.Pool{New: func() any {
		h := &hand[T]{}
		h.buf = h.one[:]
		return h
	}})
	return p.(*sync.Pool)
}

func (w *worker[T]) init(m *member[T], how mode) {
	w.member, w.chunk = m, 1
	if how == pulled {
		w.tokens = make(chan struct{}, 1)
	}
	w.Init(m.consumer.bus.pool, w)
}

// most returns the upper limit of chunk.
func (c *core) most() int {
	buffer := c.limits().buffer
	if buffer == Unbounded {
		return maxChunk
	}
	return max(1, min(maxChunk, buffer/4))
}

// Run implements exec.Runner.
func (w *worker[T]) Run() (more bool) {
	worked, last := false, false
	for range turn {
		if w.member.state.Load()&memberHalts != 0 && w.halted() {
			return false
		}
		if w.hand == nil {
			w.begin()
		}
		switch {
		case w.step(last):
			// If others wait, this look at the sources is the last one.
			worked, last = true, w.Crowded()
		case last:
			if w.batch != nil && !w.batchCanWait() {
				continue
			}
			w.rest()
			return false
		default:
			if last = true; worked && w.Alone() {
				// Let publishers run before the last look. What they publish
				// meanwhile arrives without waking anyone.
				runtime.Gosched()
			}
		}
	}
	return true
}

// begin prepares a worker that has slept.
func (w *worker[T]) begin() {
	if !w.begun {
		w.member.context() // makes member.ctx
		w.begun = true
	}
	w.hand = w.member.consumer.hands.Get().(*hand[T])
	if w.member.batch != nil {
		w.batch = &pendingBatch[T]{}
	}
}

// rest is called when there is nothing to do.
func (w *worker[T]) rest() {
	w.full = 0
	c := w.member.consumer
	passOn := w.batch == nil && w.Crowded()
	if passOn || c.clears {
		clear(w.buf[:max(w.used, 1)])
		w.used = 0
	}
	if h := w.hand; passOn {
		w.hand = nil
		c.hands.Put(h)
	}
	c.tellIdle()
}

// step handles the next messages and reports whether there were any. If last is
// true, it puts sources without messages to sleep.
func (w *worker[T]) step(last bool) bool {
	c := w.member.consumer
	if c.sole && w.member.plain && !c.busy.Load() && w.at == w.n {
		if streamed, worked := w.stream(last); streamed {
			return worked
		}
	}
	if w.at == w.n { // otherwise a handler has ended the previous goroutine
		w.at, w.n = 0, c.take(w, last)
	}
	if w.n == 0 {
		return false
	}
	if w.batch != nil {
		w.gather()
		return true
	}
	clock := w.startClock(w.n)
	n := w.n
	for w.at < w.n {
		if w.member.state.Load()&memberHalts != 0 {
			w.handBack()
			return true
		}
		w.handleOne()
	}
	w.stopClock(clock, n)
	return true
}

// stream is step for the only worker of a subscription without special options. It
// handles messages in place in the log, unless the next is more than a value: then it
// has done nothing and returns false.
func (w *worker[T]) stream(last bool) (streamed, worked bool) {
	c := w.member.consumer
	first := c.ready.first()
	for node := first; node != nil; node = c.ready.first() {
		l := node.source.(*typedLane[T])
		if es := l.peek(int(w.chunk)); len(es) > 0 {
			if es[0].meta != nil {
				return false, false
			}
			clock := w.startClock(len(es))
			w.handleInPlace(l, es)
			w.stopClock(clock, len(es))
			c.ready.rotate()
			return true, true
		}
		if !last {
			if c.ready.rotate(); c.ready.head == first {
				return true, false
			}
			continue
		}
		c.ready.drop() // first: once asleep, it may join the list again at once
		if !l.arm() {
			c.ready.push(node)
			continue
		}
		c.tidy(l)
	}
	return true, false
}

// pass passes entries of l, at whose times others may be looking if it is the log of
// an inbox.
func (w *worker[T]) pass(l *typedLane[T], n int) {
	if l.topic.core.inbox {
		c := w.member.consumer
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	l.pass(n)
}

// handleInPlace handles and passes entries, up to the first that fails or needs
// more than a call of the handler.
func (w *worker[T]) handleInPlace(l *typedLane[T], es []entry[T]) {
	m := &w.buf[0]
	m.from(&l.topic.core, nil, 0)
	if len(es) == 1 { // so that it counts as in flight and its room is free
		m.Value = es[0].value
		w.pass(l, 1)
		l.opened()
		w.at, w.n = 0, 1
		w.handleOne()
		return
	}
	c := w.member.consumer
	n := 0
	var err error
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		if c.over.Load() {
			// A handler has closed the subscription, and everything that had
			// not been passed was counted as dropped.
			c.delivered.Add(uint64(n))
			c.need().tally.dropped.Add(-uint64(n))
			return
		}
		// Pass before counting as done, so that never more is done than passed.
		passed := n
		if err != nil {
			passed++
		}
		w.pass(l, passed)
		l.opened()
		c.delivered.Add(uint64(n))
		if err != nil {
			w.failed(m, err)
		}
	}()
	handle, ctx, state := w.member.handle, w.member.ctx, &w.member.state
	for i := range es {
		// Once the subscription has ended, the entries are no longer its own.
		if state.Load()&memberHalts != 0 || es[i].meta != nil {
			break
		}
		m.Value = es[i].value
		if err = handle(ctx, m); err != nil {
			break
		}
		n++
	}
	returned = true
}

// startClock starts measuring the cost of n messages if that is useful: when,
// for the second time in a row, there are as many as may be taken at a time.
func (w *worker[T]) startClock(n int) (start time.Time) {
	if n < int(w.chunk) {
		w.full = 0
		return start
	}
	w.full++
	if w.full > 1 && (n < w.member.consumer.most() || w.full%sample == 0) {
		start = time.Now()
	}
	return start
}

// stopClock adjusts how many messages are taken at a time to the measured cost
// of n messages.
func (w *worker[T]) stopClock(start time.Time, n int) {
	if start.IsZero() {
		return
	}
	switch cost := time.Since(start) / time.Duration(n); {
	case cost > slowRun:
		w.chunk = 1
	case cost < fastRun:
		w.chunk = min(2*w.chunk, int32(w.member.consumer.most()))
	}
}

// handleOne handles one message with every option.
func (w *worker[T]) handleOne() {
	m := &w.buf[w.at]
	w.at++ // the messages after it are not begun
	f := handled
	var err error
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		w.settle(m, f, err)
	}()
	if f = w.sift(m); f == handled {
		if w.held != nil && w.held.fault != nil {
			err = w.held.fault
		} else {
			err = w.member.call(w.member.ctx, m)
		}
	}
	returned = true
}

// disposition is the outcome of a message that does not fail.
type disposition uint8

const (
	handled disposition = iota
	filtered
	expired
)

// sift reports whether m is to be handled.
func (w *worker[T]) sift(m *Message[T]) disposition {
	if m.meta != nil && !m.meta.expires.IsZero() && !time.Now().Before(m.meta.expires) {
		return expired
	}
	if a := m.arrival(); a != nil && a.sifted {
		return handled
	}
	for _, p := range w.member.cfg.where {
		if e, ok := p.(Evaluator); ok {
			matched, err := e.Eval(m)
			if err != nil {
				w.member.consumer.need().tally.filterErrors.Add(1)
			}
			if err != nil || !matched {
				return filtered
			}
		} else if !p.Match(m) {
			return filtered
		}
	}
	return handled
}

// settle accounts for a message and gives the next message with its key its
// turn.
func (w *worker[T]) settle(m *Message[T], f disposition, err error) {
	c := w.member.consumer
	if m.attempt > 0 && f == handled {
		c.need().tally.redelivered.Add(1)
	}
	done := true
	switch {
	case err != nil:
		done = w.failed(m, err)
	case f == filtered:
		c.need().tally.filtered.Add(1)
	case f == expired:
		c.giveUp(DropExpired)
	default:
		c.delivered.Add(1)
		if len(c.bus.hooks.deliver) > 0 {
			c.bus.hooks.onDeliver(DeliverEvent{Source: c.source(), Attempt: m.Attempt()})
		}
	}
	if a := m.arrival(); a != nil && done {
		a.settled()
	}
	if w.held != nil {
		c.release(w.held)
		w.held = nil
	}
}

var errGoexit = errors.New("the handler ended its goroutine with runtime.Goexit")

// caught returns the error for a handler that did not return normally.
func caught(value any) error {
	if value == nil {
		return errGoexit
	}
	return &PanicError{Value: value, Stack: debug.Stack()}
}

// failed decides the outcome of a message whose handler failed, and reports
// whether the message is done.
func (w *worker[T]) failed(m *Message[T], err error) (done bool) {
	c, cfg := w.member.consumer, w.member.cfg
	c.need().tally.failed.Add(1)
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
		w.retryLater(m, now, now.Add(e.After))
		if c.over.Load() {
			c.report()
		}
		return false
	case verdict == drop:
		c.giveUp(DropByHandler)
		return true
	}
	return w.bury(m, e, now)
}

// giveUp counts a message that a worker holds as dropped.
func (c *core) giveUp(why DropReason) {
	c.mu.Lock()
	c.lost(why, 1)
	c.mu.Unlock()
	c.report()
}

// bury makes a dead letter of a message, and reports whether the message is
// done. It is not if the engine has lost its connection and still holds the
// message.
func (w *worker[T]) bury(m *Message[T], e FailEvent, now time.Time) (done bool) {
	c, cfg := w.member.consumer, w.member.cfg
	f := newFailure(m.Topic(), m.Seq(), c.subscription(), e, now, m.Failure())
	if w.held != nil && !w.held.first.IsZero() {
		f.First = w.held.first
	}
	to := cfg.deadTopicFor(f)
	var err error
	if to != "" {
		err = m.topic.bury(to, m.Data(), m.deadMeta(f))
	}
	switch {
	case err != nil && c.lasting() && m.arrival() != nil && !neverBuried(err):
		w.retryLater(m, now, now.Add(cfg.backoff.Max))
		return false
	case to == "" || err != nil:
		c.giveUp(DropGivenUp)
		return true
	}
	c.need().tally.dead.Add(1)
	c.bus.hooks.onDeadLetter(e)
	return true
}
