package hark

import (
	"fmt"
	"reflect"
	"runtime"

	"github.com/harkbus/hark/internal/feed"
)

// Subscribe calls h for each message published from now on, one at a time and in
// order unless an option says otherwise. It costs no goroutine while there is
// nothing to deliver. Over an engine it waits for the engine, at most ten seconds,
// and an option that the engine cannot honour is ErrUnsupported.
func (t *Topic[T]) Subscribe(h Handler[T], opts ...SubscribeOption) (*Subscription, error) {
	if h == nil {
		return nil, fail("subscribe", t.core.name, errNoHandler)
	}
	m, err := t.subscribe(pushed, h, nil, opts, subscribes, caller())
	if err != nil {
		return nil, fail("subscribe", t.core.name, err)
	}
	return &m.Subscription, nil
}

var errNoHandler = fmt.Errorf("%w: the handler is nil", ErrInvalidOption)

// subscribe makes a member of a group's consumer, or of a consumer of its own.
func (t *Topic[T]) subscribe(how mode, h Handler[T], batch BatchHandler[T], opts []SubscribeOption, as role, at uintptr) (*member[T], error) {
	on := onEphemeral
	if t.core.retention != nil {
		on = onStored
	}
	cfg, err := parse(opts, on, how)
	if err != nil {
		return nil, err
	}
	if cfg.deadLetter == t.core.name {
		return nil, fmt.Errorf("%w: DeadLetter(%s) names the topic itself, so failed messages would be delivered for ever; name another topic", ErrInvalidOption, cfg.deadLetter)
	}
	if cfg.deadLetter != "" {
		dead, err := deadTopic[T](t.core.bus, cfg.deadLetter)
		if err == nil {
			err = dead.remote.forDeadLetters()
		}
		if err != nil {
			return nil, fmt.Errorf("DeadLetter %s: %w", cfg.deadLetter, err)
		}
	}
	if t.remote != nil {
		return t.subscribeRemote(cfg, how, h, batch, as, at)
	}
	return t.subscribeTo(cfg, how, h, batch, as, at)
}

// subscribeTo makes a member that reads the topic's log.
func (t *Topic[T]) subscribeTo(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], as role, at uintptr) (*member[T], error) {
	for {
		c, fresh, err := t.consumerFor(cfg)
		if err != nil {
			return nil, err
		}
		m := newMember(c, fresh, cfg, how, h, batch, as, at)
		if !c.join(m) {
			runtime.Gosched() // its last member is about to remove it
			continue
		}
		if !fresh {
			m.rouse()
			return m, nil
		}
		if done, err := t.tap(c, cfg.start); done || err != nil {
			return m, err
		}
	}
}

// consumerFor returns the consumer of cfg's group, or a new one, which the
// caller must still tap.
func (t *Topic[T]) consumerFor(cfg *subscribeConfig) (c *consumer[T], fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed {
		return nil, false, fmt.Errorf("bus %w", ErrClosed)
	}
	if c := t.groups[cfg.group]; c != nil {
		return c, false, c.agrees(cfg)
	}
	c = newConsumer[T](&t.core.scope, cfg, t.core.retention != nil || t.core.lasting)
	return c, true, nil
}

func newConsumer[T any](s *scope, cfg *subscribeConfig, stored bool) *consumer[T] {
	c := &consumer[T]{core: core{scope: s, cfg: cfg, stored: stored, grouped: cfg.group != ""}}
	c.clears = refers(reflect.TypeFor[T]())
	lossy := cfg.queue.policy != Block && cfg.queue.policy != Fail
	c.yields = stored || lossy && cfg.queue.buffer != Unbounded
	c.lone = cfg.group == "" && cfg.workers == 1
	c.sole = c.lone && !c.yields && cfg.queue.policy != Fail
	c.serial = s.bus.serial.Add(1)
	if !c.lone {
		c.wakers.Store(&[]*waker{})
	}
	return c
}

// agrees returns an error if the options of a later member differ from those of
// the group. A stored topic has no options to differ in.
func (c *core) agrees(cfg *subscribeConfig) error {
	if q := c.cfg.queue; q != cfg.queue && !c.stored {
		return fmt.Errorf("%w: group %s has Buffer(%d) and Overflow(%v), not Buffer(%d) and Overflow(%v)",
			ErrInvalidOption, cfg.group, q.buffer, q.policy, cfg.queue.buffer, cfg.queue.policy)
	}
	return nil
}

// tap is a consumer as seen by the topics that it reads.
type tap[X any] interface {
	addLane(t *Topic[X], log *feed.Log[entry[X]], start uint64)
	endLane(log any)
}

// tap lets a consumer of the topic's own read its logs, and at the same moment
// makes it the consumer of its group, so that those who join miss nothing. It
// returns false if the group has got another consumer meanwhile.
func (t *Topic[T]) tap(c *consumer[T], s start) (done bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.sealed:
		return false, fmt.Errorf("bus %w", ErrClosed)
	case c.grouped && t.groups[c.cfg.group] != nil:
		return false, nil
	case c.grouped:
		if t.groups == nil {
			t.groups = map[string]*consumer[T]{}
		}
		t.groups[c.cfg.group] = c
	}
	t.consumers = append(t.consumers, c)
	c.place = len(t.consumers)
	t.addLanesLocked(c, s)
	return true, nil
}

// tapPattern lets the consumer of a pattern read the topic's logs.
func (t *Topic[T]) tapPattern(c tap[T], s start) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLanesLocked(c, s)
	if t.patternTaps == nil {
		t.patternTaps = map[tap[T]]struct{}{}
	}
	t.patternTaps[c] = struct{}{}
}

func (t *Topic[T]) addLanesLocked(c tap[T], s start) {
	c.addLane(t, &t.log, t.ordinal(s))
	for _, p := range t.lanes {
		c.addLane(t, &p.own, feed.FromNow)
	}
	t.listening++
	t.setModeLocked()
}

// tapsLocked returns everyone who reads the logs.
func (t *Topic[T]) tapsLocked() []tap[T] {
	taps := make([]tap[T], 0, t.listening)
	for _, c := range t.consumers {
		taps = append(taps, c)
	}
	for c := range t.patternTaps {
		taps = append(taps, c)
	}
	return taps
}

// untap removes what tapPattern added.
func (t *Topic[T]) untap(c tap[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.patternTaps[c]; ok {
		delete(t.patternTaps, c)
		t.listening--
		t.setModeLocked()
	}
}

// forget removes a consumer of the topic's own. Its cost does not depend on the
// number of consumers.
func (t *Topic[T]) forget(c *consumer[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.place == 0 {
		return
	}
	last := len(t.consumers) - 1
	if c.place-1 != last {
		t.consumers[c.place-1] = t.consumers[last]
		t.consumers[c.place-1].place = c.place
		t.mixed = true
	}
	t.consumers[last] = nil
	t.consumers = t.consumers[:last]
	c.place = 0
	if c.grouped {
		delete(t.groups, c.cfg.group)
	}
	t.listening--
	t.setModeLocked()
}

// ordinal returns the place of s in the log. Only stored topics have a past.
func (t *Topic[T]) ordinal(s start) uint64 {
	if t.core.retention == nil {
		return feed.FromNow
	}
	switch s.from {
	case fromStart:
		return 0
	case fromSeq:
		return max(s.seq, 1) - 1
	case fromTime:
		return t.log.Find(func(e *entry[T]) bool { return !e.meta.entered().Before(s.time) })
	case fromLast:
		return t.log.Tail() - min(t.log.Tail(), s.seq)
	}
	return feed.FromNow
}

// newMember makes a member. The first one is part of its consumer.
func newMember[T any](c *consumer[T], first bool, cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], as role, at uintptr) *member[T] {
	m := &c.member
	if !first || c.grouped {
		m = &member[T]{}
	}
	m.consumer, m.cfg, m.batch, m.as, m.at = c, cfg, batch, as, at
	m.Subscription.impl = m
	m.handle = wrapped(c.bus, h)
	hooks := &c.bus.hooks
	m.plain = how == pushed && len(cfg.where) == 0 && cfg.timeout == 0 && len(hooks.slow) == 0 && len(hooks.deliver) == 0
	w := &m.worker
	w.init(m, how)
	for range cfg.workers - 1 {
		w.next = &worker[T]{}
		w = w.next
		w.init(m, how)
	}
	if c.lone {
		c.only = &w.waker
	}
	return m
}

// join adds a member. It returns false if the consumer has ended.
func (c *consumer[T]) join(m *member[T]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() || c.closing {
		return false
	}
	at := &c.joined
	for *at != nil {
		at = &(*at).peer
	}
	*at = m
	c.setWakersLocked()
	return true
}
