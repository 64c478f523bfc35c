package hark

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/harkbus/hark/internal/feed"
	"github.com/harkbus/hark/internal/names"
)

// SubscribePattern calls h for the messages of every topic whose name matches
// pattern, including topics made later: the token * matches one token, a final >
// one or more. Messages of one topic arrive in order. The options mean what they
// mean to Topic.Subscribe, with one buffer per topic, and a start in the past
// applies to the stored topics. Unless it is Durable, a group keeps no place
// without members.
//
// Over an engine it receives what is published while it exists, at most once.
// With Durable, or a start in the past, it reads the store that keeps all topics
// that match, in the order in which they were stored; FromSeq and Last then
// count through the store. If no one store keeps them all, that is
// ErrUnsupported.
//
// All matching topics must have type T: others are ErrTypeMismatch, here or when
// they are made. With T = any it receives topics of every type; values are then
// boxed, which costs one allocation each.
func SubscribePattern[T any](b *Bus, pattern string, h Handler[T], opts ...SubscribeOption) (*Subscription, error) {
	if b == nil {
		return nil, fail("subscribe", pattern, errNoBus)
	}
	if h == nil {
		return nil, fail("subscribe", pattern, errNoHandler)
	}
	m, err := subscribePattern(b, pattern, h, opts, caller())
	if err != nil {
		return nil, fail("subscribe", pattern, err)
	}
	return &m.Subscription, nil
}

func subscribePattern[T any](b *Bus, pattern string, h Handler[T], opts []SubscribeOption, at uintptr) (*member[T], error) {
	if err := nameError(names.CheckPattern(pattern)); err != nil {
		return nil, err
	}
	cfg, err := parse(opts, onPattern, pushed)
	if err != nil {
		return nil, err
	}
	if b.engine != nil {
		return subscribePatternRemote(b, pattern, h, cfg, at)
	}
	b.patterns.mu.Lock()
	defer b.patterns.mu.Unlock()
	p, fresh, err := patternFor[T](b, pattern, cfg)
	if err != nil {
		return nil, err
	}
	m := newMember(p.consumer, fresh, cfg, pushed, h, nil, subscribes, at)
	if !p.consumer.join(m) { // its last member is leaving
		p.consumer.finishSources()
		b.patterns.dropLocked(p)
		if p, fresh, err = patternFor[T](b, pattern, cfg); err != nil {
			return nil, err
		}
		m = newMember(p.consumer, fresh, cfg, pushed, h, nil, subscribes, at)
		p.consumer.join(m) // it is new, and no one else has seen it
	}
	if fresh {
		for _, f := range b.snapshot() {
			if t, ok := f.(namedTopic); ok && names.Match(pattern, t.Name()) && t.kind() == KindTopic {
				p.attach(t)
			}
		}
	}
	m.rouse()
	return m, nil
}

// patterns are the pattern subscriptions of a bus. mu is held while a topic is
// made, so each pattern sees each topic from the start.
type patterns struct {
	mu   sync.Mutex // guards the fields below
	trie names.Trie[patternTap]
	all  []patternTap

	remote []*remotePattern // used instead over an engine
}

func (ps *patterns) forgetLocked(p *remotePattern) {
	if i := slices.Index(ps.remote, p); i >= 0 {
		ps.remote = slices.Delete(ps.remote, i, i+1)
	}
}

// patternTap is the consumer of a pattern of any type.
type patternTap interface {
	component
	accepts(reflect.Type) bool
	pattern() string
	group() string
	attach(topic namedTopic)
}

// namedTopic is a *Topic of any type.
type namedTopic interface {
	component
	Name() string
	kind() Kind
	stored() bool
	tapAny(c *consumer[any], s start) (untap func())
	decodeAny(data []byte, to *any) error
}

// acceptLocked returns an error if there is a pattern that does not accept a
// topic with this name and type.
func (ps *patterns) acceptLocked(name string, typ reflect.Type) (err error) {
	ps.trie.Match(name, func(p patternTap) {
		if !p.accepts(typ) {
			err = fmt.Errorf("%w: the subscription to %s takes %v, not %v", ErrTypeMismatch, p.pattern(), p.valueType(), typ)
		}
	})
	return err
}

func (ps *patterns) joinLocked(name string, t namedTopic) {
	ps.trie.Match(name, func(p patternTap) { p.attach(t) })
}

// dropLocked removes a pattern, if it is there.
func (ps *patterns) dropLocked(p patternTap) {
	if i := slices.Index(ps.all, p); i >= 0 {
		ps.all = slices.Delete(ps.all, i, i+1)
		ps.trie.Remove(p.pattern(), p)
	}
}

// patternSub is the consumer of a pattern.
type patternSub[T any] struct {
	consumer *consumer[T]
	text     string
	start    start
	durable  bool // it takes only stored topics

	mu     sync.Mutex // guards the fields below
	untaps []func()
}

// patternFor returns the consumer of cfg's group for the pattern, or a new one.
func patternFor[T any](b *Bus, pattern string, cfg *subscribeConfig) (p *patternSub[T], fresh bool, err error) {
	b.mu.Lock()
	closing := b.closing
	b.mu.Unlock()
	if closing {
		return nil, false, fmt.Errorf("bus %w", ErrClosed)
	}
	for _, other := range b.patterns.all {
		if cfg.group == "" || other.group() != cfg.group || other.pattern() != pattern {
			continue
		}
		p, ok := other.(*patternSub[T])
		if !ok {
			return nil, false, fmt.Errorf("%w: group %s takes %v, not %v", ErrTypeMismatch, cfg.group, other.valueType(), reflect.TypeFor[T]())
		}
		if p.durable != cfg.durable {
			return nil, false, notAlike(cfg.group)
		}
		return p, false, p.consumer.agrees(cfg)
	}
	p = &patternSub[T]{text: pattern, start: cfg.start, durable: cfg.durable}
	for _, f := range b.snapshot() {
		if t, ok := f.(namedTopic); ok && names.Match(pattern, t.Name()) && t.kind() == KindTopic && !p.accepts(t.valueType()) {
			return nil, false, fmt.Errorf("%w: topic %s carries %v, not %v", ErrTypeMismatch, t.Name(), t.valueType(), reflect.TypeFor[T]())
		}
	}
	c := newConsumer[T](&scope{b, KindPattern, pattern, handsOf[T](b)}, cfg, cfg.durable)
	c.sole = false // the topics may be stored
	c.untap = p.untap
	p.consumer = c
	b.patterns.trie.Add(pattern, p)
	b.patterns.all = append(b.patterns.all, p)
	return p, true, nil
}

// notAlike refuses a member of a group whose other members differ from it in
// being Durable.
func notAlike(group string) error {
	return fmt.Errorf("%w: Durable: group %s has members with and without this option; use it for all of them or none", ErrInvalidOption, group)
}

func (p *patternSub[T]) accepts(typ reflect.Type) bool {
	want := reflect.TypeFor[T]()
	return typ == want || want == reflect.TypeFor[any]()
}

func (p *patternSub[T]) pattern() string { return p.text }

func (p *patternSub[T]) group() string {
	if !p.consumer.grouped {
		return ""
	}
	return p.consumer.subscription()
}

// attach adds a topic whose type the pattern accepts.
func (p *patternSub[T]) attach(topic namedTopic) {
	if p.durable && !topic.stored() {
		return
	}
	var untap func()
	if t, ok := topic.(*Topic[T]); ok {
		t.tapPattern(p.consumer, p.start)
		untap = func() { t.untap(p.consumer) }
	} else {
		untap = topic.tapAny(any(p.consumer).(*consumer[any]), p.start)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.untaps = append(p.untaps, untap)
}

// untap removes the pattern from the bus.
func (p *patternSub[T]) untap() {
	ps := &p.consumer.bus.patterns
	ps.mu.Lock()
	ps.dropLocked(p)
	ps.mu.Unlock()
	p.mu.Lock()
	untaps := p.untaps
	p.untaps = nil
	p.mu.Unlock()
	for _, untap := range untaps {
		untap()
	}
}

// boxedTap lets a consumer of any read a topic of X.
type boxedTap[X any] struct{ consumer *consumer[any] }

func (b boxedTap[X]) addLane(t *Topic[X], log *feed.Log[entry[X]], start uint64) {
	l := &boxedLane[X]{}
	l.node.source, l.topic, l.core = source[any](l), t, &b.consumer.core
	l.lane.attach(log, start, func() { b.consumer.addSource(&l.node) })
}

func (b boxedTap[X]) endLane(log any) { b.consumer.endLane(log) }

func (t *Topic[T]) tapAny(c *consumer[any], s start) (untap func()) {
	b := boxedTap[T]{c}
	t.tapPattern(b, s)
	return func() { t.untap(b) }
}

func (t *Topic[T]) kind() Kind { return t.core.kind }

func (t *Topic[T]) stored() bool { return t.core.retention != nil }

// The consumer of a pattern as a component of its bus.

func (p *patternSub[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

func (p *patternSub[T]) seal() { p.consumer.resume() }

func (p *patternSub[T]) drain(ctx context.Context) { p.consumer.settle(ctx) }

func (p *patternSub[T]) work() (accepted uint64, done bool) { return 0, p.consumer.idle() }

func (p *patternSub[T]) stop(ctx context.Context, cause error) []Left {
	if l := p.consumer.stop(ctx, cause); l.any() {
		return []Left{l}
	}
	return nil
}

// cancel implements canceller.
func (p *patternSub[T]) cancel(cause error) { p.consumer.cancel(cause) }

func (p *patternSub[T]) addStats(s *Stats) { s.Patterns = append(s.Patterns, p.consumer.stats()) }

func (p *patternSub[T]) addTopology(top *Topology) {
	top.Nodes = append(top.Nodes, Node{
		Kind: KindPattern, Name: p.text, Type: reflect.TypeFor[T]().String(), Ends: p.consumer.places(),
	})
}
