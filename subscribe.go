package hark

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/harkbus/hark/internal/feed"
)

// defaultBuffer is how many messages wait for a subscription at most before
// publishers wait for it, unless it says otherwise.
const defaultBuffer = 1024

// SubscribeOption configures a subscription.
type SubscribeOption interface{ applySubscribe(*subscribeConfig) error }

type subscribeConfig struct {
	queue        queue
	group        string
	workers      int
	where        []Predicate
	start        start
	batch        int // 0 if not set
	batchWait    time.Duration
	maxAttempts  int
	backoff      BackoffPolicy
	timeout      time.Duration
	deadLetter   string
	noDeadLetter bool
	holdsUp      bool // it was asked to hold up or fail publishers
}

// start says where on a stored topic a subscription begins.
type start struct {
	from startKind
	seq  uint64
	time time.Time
}

type startKind uint8

const (
	fromDefault startKind = iota
	fromNow
	fromStart
	fromSeq
	fromTime
	fromLast
)

type subscribeOption func(*subscribeConfig) error

func (f subscribeOption) applySubscribe(c *subscribeConfig) error { return f(c) }

// Group makes the subscription a member of the group of that name on its
// topic: each message goes to one member. The first member sets the group's
// buffer and start. On a stored topic the group keeps its place while it has
// no members.
func Group(name string) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%w: Group: %w", ErrInvalidOption, err)
		}
		c.group = name
		return nil
	})
}

// Workers lets n handlers of the subscription run at a time, 1 by default.
// With more than one, messages may be handled out of order, except those with
// the same key (KeyBy, Key), which are handled in order, one at a time.
func Workers(n int) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if n < 1 || n > maxWorkers {
			return fmt.Errorf("%w: Workers(%d): want 1 to %d", ErrInvalidOption, n, maxWorkers)
		}
		c.workers = n
		return nil
	})
}

const maxWorkers = 10000

// Predicate decides which messages a subscription wants. Match is called by
// the subscription's workers, so by several at a time if it has several.
type Predicate interface{ Match(Envelope) bool }

// EncodedPredicate is a Predicate that gives the same answer about a message
// whose Data is its JSON text as about one with the value. Over an engine it is
// then asked before the message is decoded, so that what does not match costs
// no more than that.
type EncodedPredicate interface {
	Predicate
	// MatchesEncoded reports whether that is so.
	MatchesEncoded() bool
}

// Evaluator is a Predicate that may be unable to decide, as an expression is
// about a message that lacks a field it names. Where then calls Eval instead of
// Match: an error filters the message, and is counted as Undecided.
type Evaluator interface {
	Predicate
	Eval(Envelope) (bool, error)
}

// Where lets only messages through that p matches; the others are counted as
// filtered. Several must all match. In a group each member applies its own to
// the messages it happens to get, so all members should have the same.
func Where(p Predicate) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		switch v := reflect.ValueOf(p); {
		case p == nil:
			return fmt.Errorf("%w: Where(nil)", ErrInvalidOption)
		case (v.Kind() == reflect.Func || v.Kind() == reflect.Pointer) && v.IsNil():
			return fmt.Errorf("%w: Where of a %T that is nil", ErrInvalidOption, p)
		}
		c.where = append(c.where, p)
		return nil
	})
}

// MatchFunc is a Predicate made of a function of the message's value. A value
// of another type does not match.
type MatchFunc[T any] func(T) bool

// Match implements Predicate.
func (f MatchFunc[T]) Match(e Envelope) bool {
	switch data := e.Data().(type) {
	case *T:
		return f(*data)
	case *any: // a subscription to values of any type
		v, ok := (*data).(T)
		return ok && f(v)
	}
	return false
}

// FromStart starts a subscription to a stored topic at the oldest message that
// is kept. A group that has a place already goes on from there.
func FromStart() SubscribeOption { return startOption(start{from: fromStart}) }

// FromNow starts with the next message published; it is the default.
func FromNow() SubscribeOption { return startOption(start{from: fromNow}) }

// FromSeq starts a subscription to a stored topic at the message with that
// sequence, or the oldest after it.
func FromSeq(seq uint64) SubscribeOption { return startOption(start{from: fromSeq, seq: seq}) }

// FromTime starts a subscription to a stored topic at the first message
// published at t or later. A delayed one counts as published when it is due.
func FromTime(t time.Time) SubscribeOption { return startOption(start{from: fromTime, time: t}) }

// Last starts a subscription to a stored topic with the n messages published
// last.
func Last(n int) SubscribeOption {
	if n < 0 {
		return subscribeOption(func(*subscribeConfig) error {
			return fmt.Errorf("%w: Last(%d): negative", ErrInvalidOption, n)
		})
	}
	return startOption(start{from: fromLast, seq: uint64(n)})
}

func startOption(s start) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if c.start.from != fromDefault {
			return fmt.Errorf("%w: two options say where to start", ErrInvalidOption)
		}
		c.start = s
		return nil
	})
}

// Batch sets how many messages a batch handler gets at most, and how long the
// first of them waits for the others. The default is 100 and 10 ms.
func Batch(n int, maxWait time.Duration) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if n < 1 || maxWait < 0 {
			return fmt.Errorf("%w: Batch(%d, %v): want at least 1, and no negative wait", ErrInvalidOption, n, maxWait)
		}
		c.batch, c.batchWait = n, maxWait
		return nil
	})
}

// MaxAttempts sets how often a message is given to the handler before it is
// dead-lettered, 10 by default.
func MaxAttempts(n int) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if n < 1 {
			return fmt.Errorf("%w: MaxAttempts(%d): want at least 1", ErrInvalidOption, n)
		}
		c.maxAttempts = n
		return nil
	})
}

// Backoff sets how long to wait between attempts. Zero fields have the default
// of BackoffPolicy.
func Backoff(p BackoffPolicy) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if p.Min == 0 {
			p.Min = min(defaultBackoff.Min, cmpOr(p.Max, defaultBackoff.Max))
		}
		p.Max = cmpOr(p.Max, max(p.Min, defaultBackoff.Max))
		if p.Min < 0 || p.Max < p.Min {
			return fmt.Errorf("%w: Backoff(%v to %v)", ErrInvalidOption, p.Min, p.Max)
		}
		c.backoff = p
		return nil
	})
}

func cmpOr(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Timeout cancels the context of a handler that has been running for d, with
// the cause ErrTimeout. The handler must heed it: what counts is what it
// returns.
func Timeout(d time.Duration) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if d <= 0 {
			return fmt.Errorf("%w: Timeout(%v): want more than 0", ErrInvalidOption, d)
		}
		c.timeout = d
		return nil
	})
}

// DeadLetter sets the topic for messages that are given up, "<topic>.dead" by
// default. It carries the type of the topic; each message has a Failure. If it
// does not exist it is made, stored, with the last 10,000 messages kept.
func DeadLetter(topic string) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if err := checkName(topic); err != nil {
			return fmt.Errorf("%w: DeadLetter: %w", ErrInvalidOption, err)
		}
		c.deadLetter, c.noDeadLetter = topic, false
		return nil
	})
}

// NoDeadLetter drops messages that are given up, counted as DropGivenUp.
func NoDeadLetter() SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		c.deadLetter, c.noDeadLetter = "", true
		return nil
	})
}

// target says what a subscription is to, and mode how it takes messages.
type (
	target uint8
	mode   uint8
)

const (
	onEphemeral target = iota
	onStored
	onPattern // topics of both kinds

	pushed  mode = iota // to a handler
	batched             // to a batch handler
	pulled              // by an iterator
)

// handlesPlainly reports whether the options leave handling as it is.
func (c *subscribeConfig) handlesPlainly() bool {
	return c.workers == 1 && c.maxAttempts == defaultMaxAttempts && c.backoff == defaultBackoff &&
		c.timeout == 0 && c.deadLetter == "" && !c.noDeadLetter
}

// parse returns the configuration that the options make.
func parse(opts []SubscribeOption, on target, how mode) (*subscribeConfig, error) {
	c := &subscribeConfig{workers: 1, maxAttempts: defaultMaxAttempts, backoff: defaultBackoff}
	for _, opt := range opts {
		if err := opt.applySubscribe(c); err != nil {
			return nil, err
		}
	}
	switch {
	case c.batch > 0 && how != batched:
		return nil, fmt.Errorf("%w: Batch is for SubscribeBatch", ErrInvalidOption)
	case how == pulled && !c.handlesPlainly():
		return nil, fmt.Errorf("%w: Messages has one worker and retries nothing: Workers, MaxAttempts, Backoff, Timeout and dead letters have no meaning", ErrInvalidOption)
	case on == onStored && c.queue != (queue{}):
		return nil, fmt.Errorf("%w: Buffer and Overflow: a stored topic keeps what waits, and publishers never wait for it", ErrInvalidOption)
	case on == onEphemeral && c.start.from > fromNow:
		return nil, fmt.Errorf("%w: a start in the past needs a stored topic (option Stored)", ErrInvalidOption)
	}
	if how == pulled {
		c.maxAttempts = 1
	}
	if how == batched && c.batch == 0 {
		c.batch, c.batchWait = 100, 10*time.Millisecond
	}
	c.holdsUp = c.queue.policy == Block || c.queue.policy == Fail
	var err error
	c.queue, err = c.queue.or(defaultBuffer, Block)
	return c, err
}

// Subscribe calls h for each message published from now on, one at a time and
// in order unless an option says otherwise. It costs no goroutine while nothing
// is to be delivered.
func (t *Topic[T]) Subscribe(h Handler[T], opts ...SubscribeOption) (*Subscription, error) {
	if h == nil {
		return nil, fail("subscribe", t.core.name, errNoHandler)
	}
	m, err := t.subscribe(pushed, h, nil, opts, "subscribe", caller())
	if err != nil {
		return nil, fail("subscribe", t.core.name, err)
	}
	return &m.Subscription, nil
}

var errNoHandler = fmt.Errorf("%w: the handler is nil", ErrInvalidOption)

// subscribe makes a member of a group's consumer, or one of its own.
func (t *Topic[T]) subscribe(how mode, h Handler[T], batch BatchHandler[T], opts []SubscribeOption, role string, at uintptr) (*member[T], error) {
	on := onEphemeral
	if t.core.retention != nil {
		on = onStored
	}
	cfg, err := parse(opts, on, how)
	if err != nil {
		return nil, err
	}
	if cfg.deadLetter == t.core.name {
		return nil, fmt.Errorf("%w: DeadLetter(%s) is the topic itself: what fails would come again for ever", ErrInvalidOption, cfg.deadLetter)
	}
	if cfg.deadLetter != "" {
		if _, err := deadTopic[T](t.core.bus, cfg.deadLetter); err != nil {
			return nil, fmt.Errorf("DeadLetter %s: %w", cfg.deadLetter, err)
		}
	}
	if t.remote != nil {
		return t.subscribeRemote(cfg, how, h, batch, role, at)
	}
	return t.subscribeTo(cfg, how, h, batch, role, at)
}

// subscribeTo makes a member that reads the topic's log.
func (t *Topic[T]) subscribeTo(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], role string, at uintptr) (*member[T], error) {
	for {
		c, fresh, err := t.consumerFor(cfg)
		if err != nil {
			return nil, err
		}
		m := newMember(c, cfg, how, h, batch, role, at)
		if !c.join(m) {
			continue // its last member has just left
		}
		if fresh {
			t.tap(c, cfg.start)
		} else {
			m.rouse()
		}
		return m, nil
	}
}

// consumerFor returns the consumer of cfg's group, or a new one.
func (t *Topic[T]) consumerFor(cfg *subscribeConfig) (c *consumer[T], fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed {
		return nil, false, fmt.Errorf("bus %w", ErrClosed)
	}
	if cfg.group != "" {
		if c := t.groups[cfg.group]; c != nil {
			return c, false, c.agrees(cfg)
		}
	}
	c = newConsumer[T](t.core.bus, t.core.kind, t.core.name, cfg, t.core.retention != nil || t.core.lasting)
	c.sole = c.sole && !t.core.inbox // whose messages have times that others look at
	c.untap = func() { t.forget(c) }
	if cfg.group != "" {
		if t.groups == nil {
			t.groups = map[string]*consumer[T]{}
		}
		t.groups[cfg.group] = c
	}
	t.consumers = append(t.consumers, c)
	c.place = len(t.consumers)
	return c, true, nil
}

func newConsumer[T any](b *Bus, kind Kind, topic string, cfg *subscribeConfig, stored bool) *consumer[T] {
	c := &consumer[T]{core: core{
		bus: b, kind: kind, topic: topic, name: cfg.group, queue: cfg.queue, asked: cfg.queue, stored: stored, grouped: cfg.group != "",
	}}
	if stored {
		c.queue.buffer = Unbounded
	}
	c.clears = refers(reflect.TypeFor[T]())
	lossy := cfg.queue.policy != Block && cfg.queue.policy != Fail
	c.yields = stored || lossy && cfg.queue.buffer != Unbounded
	c.lone = cfg.group == "" && cfg.workers == 1
	c.sole = c.lone && !c.yields && cfg.queue.policy != Fail
	c.serial = b.serial.Add(1)
	if c.name == "" {
		c.name = topic + "#" + strconv.FormatUint(c.serial, 10)
	}
	c.wakers.Store(&[]waker{})
	return c
}

// agrees reports how a later member's options differ from those of the group.
func (c *core) agrees(cfg *subscribeConfig) error {
	if c.asked != cfg.queue {
		return fmt.Errorf("%w: group %s has Buffer(%d) and Overflow(%v), not Buffer(%d) and Overflow(%v)",
			ErrInvalidOption, c.name, c.asked.buffer, c.asked.policy, cfg.queue.buffer, cfg.queue.policy)
	}
	return nil
}

// tap is a consumer as the topics that it reads see it.
type tap[X any] interface {
	addLane(t *Topic[X], log *feed.Log[entry[X]], start uint64)
	endLane(log any)
}

// tap lets a consumer of the topic's own read its logs.
func (t *Topic[T]) tap(c *consumer[T], s start) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLanesLocked(c, s)
	c.tapped = true
}

// tapGuest lets the consumer of a pattern read the topic's logs.
func (t *Topic[T]) tapGuest(c tap[T], s start) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLanesLocked(c, s)
	if t.guests == nil {
		t.guests = map[tap[T]]struct{}{}
	}
	t.guests[c] = struct{}{}
}

func (t *Topic[T]) addLanesLocked(c tap[T], s start) {
	c.addLane(t, &t.log, t.ordinal(s))
	for _, p := range t.lanes {
		c.addLane(t, &p.own, feed.FromNow)
	}
	t.listening++
	t.setModeLocked()
}

// tapsLocked returns all who read the logs.
func (t *Topic[T]) tapsLocked() []tap[T] {
	taps := make([]tap[T], 0, t.listening)
	for _, c := range t.consumers {
		if c.tapped {
			taps = append(taps, c)
		}
	}
	for c := range t.guests {
		taps = append(taps, c)
	}
	return taps
}

// untap takes out what tapGuest added.
func (t *Topic[T]) untap(c tap[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.guests[c]; ok {
		delete(t.guests, c)
		t.listening--
		t.setModeLocked()
	}
}

// forget takes a consumer of the topic's own out. What it costs does not
// depend on how many there are.
func (t *Topic[T]) forget(c *consumer[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.tapped {
		c.tapped = false
		t.listening--
		t.setModeLocked()
	}
	if c.place > 0 {
		last := len(t.consumers) - 1
		if c.place-1 != last {
			t.consumers[c.place-1] = t.consumers[last]
			t.consumers[c.place-1].place = c.place
			t.mixed = true
		}
		t.consumers[last] = nil
		t.consumers = t.consumers[:last]
		c.place = 0
	}
	if c.grouped && t.groups[c.name] == c {
		delete(t.groups, c.name)
	}
}

// ordinal returns where in the log s is; only stored topics have a past.
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

func newMember[T any](c *consumer[T], cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], role string, at uintptr) *member[T] {
	m := &member[T]{consumer: c, cfg: cfg, batch: batch, role: role, at: at}
	m.Subscription.impl = m
	m.handle = wrapped(c.bus, h)
	hooks := &c.bus.hooks
	m.plain = how == pushed && len(cfg.where) == 0 && cfg.timeout == 0 && len(hooks.slow) == 0 && len(hooks.deliver) == 0
	for range cfg.workers {
		w := &worker[T]{}
		w.init(m)
		if how == pulled {
			w.tokens = make(chan struct{}, 1)
		}
		m.workers = append(m.workers, w)
	}
	return m
}

// join adds a member. It reports false if the consumer has ended.
func (c *consumer[T]) join(m *member[T]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over.Load() || c.closing {
		return false
	}
	c.members = append(c.members, m)
	c.setWakersLocked()
	return true
}
