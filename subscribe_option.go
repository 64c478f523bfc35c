package hark

import (
	"fmt"
	"reflect"
	"time"
)

// defaultBuffer is how many messages may wait for a subscription before
// publishers wait for it, unless an option says otherwise.
const defaultBuffer = 1024

// SubscribeOption configures a subscription.
type SubscribeOption interface{ applySubscribe(*subscribeConfig) error }

type subscribeConfig struct {
	queue        queue
	group        string
	workers      int
	where        []Predicate
	start        start
	durable      bool
	batch        int // 0 if not set
	batchWait    time.Duration
	maxAttempts  int
	backoff      BackoffPolicy
	timeout      time.Duration
	deadLetter   string
	noDeadLetter bool
	holdsUp      bool // an option asked for blocking or failing publishers
	untilNow     bool
}

// start is where on a stored topic a subscription begins.
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

// Group makes the subscription a member of the group of that name on its topic:
// each message goes to one member. The first member sets the group's buffer and
// start. On a stored topic the group keeps its place while it has no members.
func Group(name string) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%w: Group: %w", ErrInvalidOption, err)
		}
		c.group = name
		return nil
	})
}

// Workers lets the subscription run n handlers concurrently, from 1, which is the
// default, to 10,000. With more than one, messages may be handled out of order,
// except that those with the same key (KeyBy, Key) are handled in order, one at a
// time.
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

// Predicate decides which messages a subscription wants. Match is called by the
// subscription's workers, concurrently if it has several.
type Predicate interface{ Match(Envelope) bool }

// EncodedPredicate is a Predicate that gives the same answer for a message whose
// Data is its JSON text as for one with the value. Over an engine it is then
// asked before the message is decoded, so a message that does not match costs no
// decoding.
type EncodedPredicate interface {
	Predicate
	// MatchesEncoded reports whether that is so.
	MatchesEncoded() bool
}

// Evaluator is a Predicate that may be unable to decide, as an expression is if
// a message lacks a field that it names. Where then calls Eval instead of Match:
// an error filters out the message, which is counted as FilterErrors.
type Evaluator interface {
	Predicate
	Eval(Envelope) (bool, error)
}

// Where lets through only messages that p matches; the others are counted as
// filtered. If there are several, all must match. In a group each member applies
// its own predicates to the messages it happens to get, so all members should
// have the same.
func Where(p Predicate) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		switch v := reflect.ValueOf(p); {
		case p == nil:
			return fmt.Errorf("%w: Where(nil)", ErrInvalidOption)
		case (v.Kind() == reflect.Func || v.Kind() == reflect.Pointer) && v.IsNil():
			return fmt.Errorf("%w: Where: the predicate, a %T, is nil", ErrInvalidOption, p)
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

// FromStart starts a subscription to a stored topic at the oldest message kept.
// A group that already has a place continues from there.
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
			return fmt.Errorf("%w: Last(%d): want at least 0", ErrInvalidOption, n)
		})
	}
	return startOption(start{from: fromLast, seq: uint64(n)})
}

// UntilNow ends a loop over Messages, without an error, after the messages that the
// topic holds when the loop begins. It needs a start in the past, such as FromStart.
// With Group, whose messages also go to other members, and on other subscriptions it is
// ErrInvalidOption: Drain ends these after what has been published.
func UntilNow() SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		c.untilNow = true
		return nil
	})
}

// Durable makes a subscription to a pattern read the stored topics that match
// it, and no others. It misses nothing that they keep, and its group keeps its
// place while it has no members, like a group on a stored topic. Over an engine
// one store must keep all topics that match, and messages that are not done when
// a process ends are delivered again; a pattern that no store keeps is
// ErrUnsupported. On a topic, where Stored does all of this, Durable is
// ErrInvalidOption.
func Durable() SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		c.durable = true
		return nil
	})
}

func startOption(s start) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if c.start.from != fromDefault {
			return fmt.Errorf("%w: two options set the start position; use one of them", ErrInvalidOption)
		}
		c.start = s
		return nil
	})
}

// Batch sets the maximum number of messages in a batch, and how long the first
// of them waits for the others. The defaults are 100 and 10 ms.
func Batch(n int, maxWait time.Duration) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if n < 1 || maxWait < 0 {
			return fmt.Errorf("%w: Batch(%d, %v): want at least 1 message and a wait of at least 0", ErrInvalidOption, n, maxWait)
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

// Backoff sets how long to wait between attempts. A field that is 0 has its default,
// see BackoffPolicy; RetryAfter(0, err) is for an attempt without a wait.
func Backoff(p BackoffPolicy) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if p.Min == 0 {
			p.Min = min(defaultBackoff.Min, cmpOr(p.Max, defaultBackoff.Max))
		}
		p.Max = cmpOr(p.Max, max(p.Min, defaultBackoff.Max))
		if p.Min < 0 || p.Max < p.Min {
			return fmt.Errorf("%w: Backoff: Min is %v and Max is %v; want neither below 0 (0 is the default), and Max not below Min", ErrInvalidOption, p.Min, p.Max)
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

// Timeout cancels the context of a handler that has been running for d, with the
// cause ErrTimeout. The handler must heed it: what it returns still decides what
// happens to the message.
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
// default. It has the type of the topic; each message has a Failure. If it does
// not exist it is created as a stored topic that keeps the last 10,000 messages.
func DeadLetter(topic string) SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		if err := checkName(topic); err != nil {
			return fmt.Errorf("%w: DeadLetter: %w", ErrInvalidOption, err)
		}
		c.deadLetter, c.noDeadLetter = topic, false
		return nil
	})
}

// NoDeadLetter drops messages that are given up, and counts them as DropGivenUp.
func NoDeadLetter() SubscribeOption {
	return subscribeOption(func(c *subscribeConfig) error {
		c.deadLetter, c.noDeadLetter = "", true
		return nil
	})
}

// target is what a subscription subscribes to. mode is how it receives
// messages.
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

// handlesPlainly reports whether the options leave the handling of messages
// unchanged.
func (c *subscribeConfig) handlesPlainly() bool {
	return c.workers == 1 && c.maxAttempts == defaultMaxAttempts && c.backoff == defaultBackoff &&
		c.timeout == 0 && c.deadLetter == "" && !c.noDeadLetter
}

// plainConfig is the configuration of all handlers that are subscribed without
// options.
var plainConfig, _ = parseAll(nil, onEphemeral, pushed)

// parse returns the configuration that results from the options. Subscriptions
// may share it, so it must not be changed.
func parse(opts []SubscribeOption, on target, how mode) (*subscribeConfig, error) {
	if len(opts) == 0 && how == pushed {
		return plainConfig, nil
	}
	return parseAll(opts, on, how)
}

func parseAll(opts []SubscribeOption, on target, how mode) (*subscribeConfig, error) {
	c := &subscribeConfig{workers: 1, maxAttempts: defaultMaxAttempts, backoff: defaultBackoff}
	for opt := range given(opts) {
		if err := opt.applySubscribe(c); err != nil {
			return nil, err
		}
	}
	switch {
	case c.batch > 0 && how != batched:
		return nil, fmt.Errorf("%w: Batch applies only to SubscribeBatch", ErrInvalidOption)
	case how == pulled && !c.handlesPlainly():
		return nil, fmt.Errorf("%w: Messages has one worker and no retries, so Workers, MaxAttempts, Backoff, Timeout and dead letters do not apply", ErrInvalidOption)
	case c.untilNow && how != pulled:
		return nil, fmt.Errorf("%w: UntilNow applies only to Messages; Drain ends a subscription after what has been published", ErrInvalidOption)
	case c.untilNow && c.group != "":
		return nil, fmt.Errorf("%w: UntilNow with Group, whose messages also go to other members; use one of them", ErrInvalidOption)
	case c.untilNow && c.start.from <= fromNow:
		return nil, fmt.Errorf("%w: UntilNow without a start in the past; add FromStart, FromSeq, FromTime or Last", ErrInvalidOption)
	case c.durable && on != onPattern:
		return nil, fmt.Errorf("%w: Durable applies only to SubscribePattern; subscriptions to a topic that is Stored are durable without it", ErrInvalidOption)
	case (on == onStored || c.durable) && c.queue != (queue{}):
		return nil, fmt.Errorf("%w: Buffer and Overflow do not apply to a stored topic, which keeps waiting messages and never makes publishers wait", ErrInvalidOption)
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
