package hark

import (
	"cmp"
	"context"
	"fmt"
	"reflect"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

// remotePattern is a subscription to a pattern over an engine, either to what
// is published while it exists or to the stored topics that match.
type remotePattern struct {
	remoteTopic
	bus *Bus
	// Its group, and whether it is durable. All members of the group must
	// agree.
	group   string
	durable bool
}

// subscribePatternRemote is subscribePattern over an engine.
func subscribePatternRemote[T any](b *Bus, pattern string, h Handler[T], cfg *subscribeConfig, at uintptr) (*member[T], error) {
	kept := cfg.durable || cfg.start.from > fromNow
	switch {
	case kept && !names.IsPattern(pattern):
		return nil, b.engine.refuse("Durable or a start in the past for a pattern without wildcards (subscribe to the topic, with option Stored)")
	case kept && cfg.group != "" && !cfg.durable:
		return nil, b.engine.refuse("a start in the past for a group on a pattern that does not keep its position (use the option Durable)")
	case kept:
		if err := cmp.Or(b.engine.needs(driver.Stored), b.engine.needs(driver.StoredPatterns)); err != nil {
			return nil, err
		}
	case cfg.holdsUp:
		if err := b.engine.needs(driver.Backpressure); err != nil {
			return nil, err
		}
	}
	p := &remotePattern{bus: b, group: cfg.group, durable: cfg.durable}
	p.engine, p.codec = b.engine, b.codecFor(reflect.TypeFor[T]())
	// The log of its inbox stands for all topics. Each message's arrival says
	// where it comes from.
	t := &Topic[T]{core: topicCore{
		scope: scope{b, KindPattern, pattern, handsOf[T](b)}, typ: reflect.TypeFor[T](), bury: burial[T](b),
	}}
	p.core = &t.core
	if p.core.typ == reflect.TypeFor[any]() {
		t.core.bury = p.buryAny
	}
	for _, other := range b.snapshot() {
		if t, ok := other.(namedTopic); ok && t.kind() == KindTopic && names.Match(pattern, t.Name()) && !p.accepts(t.valueType()) {
			return nil, fmt.Errorf("%w: topic %s carries %v, not %v", ErrTypeMismatch, t.Name(), t.valueType(), p.core.typ)
		}
	}
	dc := driver.SubscribeConfig{Group: cfg.group, Window: ephemeralWindow}
	if kept {
		cfg.readStored(&dc)
		plain := *cfg
		plain.queue = queue{defaultBuffer, Block} // the queue options are for ephemeral topics
		cfg = &plain
	}
	in := newInbox[T](b, &p.remoteTopic, dc.Window, kept, kept && cfg.group != "")
	in.local = makeInboxLog(t, in.shared)
	in.decode = func(m *driver.Received, v *T) error {
		if local, ok := b.topicNamed(m.Topic); ok {
			if boxed, ok := any(v).(*any); ok {
				return local.decodeAny(m.Data, boxed)
			}
		}
		return decodeWith(p.codec, m.Data, v)
	}
	var err error
	if in.sub, err = p.subscribe(pattern, kept, dc); err != nil {
		return nil, err
	}
	return in.begin(cfg, pushed, h, nil, subscribes, at, p)
}

// subscribe starts receiving from the engine.
func (p *remotePattern) subscribe(pattern string, kept bool, dc driver.SubscribeConfig) (driver.Subscription, error) {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if !kept {
		sub, err := p.engine.conn.SubscribePattern(ctx, pattern, dc)
		return sub, engineError(err)
	}
	p.config = driver.TopicConfig{Name: pattern, Stored: &driver.StoredConfig{Existing: true}}
	topic, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := topic.Subscribe(ctx, dc)
	return sub, engineError(err)
}

// buryAny publishes the bytes of a message to a topic for dead letters, because
// a subscription to values of any type has no type to give that topic.
func (p *remotePattern) buryAny(to string, _ any, m *meta) error {
	from, known := p.bus.topicNamed(m.arrival.Topic)
	if dead, ok := p.bus.topicNamed(to); ok && known && dead.valueType() != from.valueType() {
		return fmt.Errorf("%w: topic %s carries %v, not %v", ErrTypeMismatch, to, dead.valueType(), from.valueType())
	}
	return p.buryRaw(context.Background(), to, m.arrival, m.failure)
}

// add implements inboxOwner. The pattern is on its bus as long as it has its
// inbox.
func (p *remotePattern) add(in anyInbox) error {
	ps := &p.bus.patterns
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.bus.mu.Lock()
	closing := p.bus.closing
	p.bus.mu.Unlock()
	if closing {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	for _, other := range ps.remote {
		if p.group != "" && other.group == p.group && other.core.name == p.core.name && other.durable != p.durable {
			return notAlike(p.group)
		}
	}
	ps.remote = append(ps.remote, p)
	return p.remoteTopic.add(in)
}

func (p *remotePattern) remove(in anyInbox) {
	ps := &p.bus.patterns
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forgetLocked(p)
	p.remoteTopic.remove(in)
}

// The parts of a pattern's component on its bus, over an engine, that differ from
// remoteTopic.

func (p *remotePattern) valueType() reflect.Type { return p.core.typ }

func (p *remotePattern) addStats(s *Stats) {
	for _, in := range p.snapshot() {
		s.Patterns = append(s.Patterns, in.stats())
	}
}

func (p *remotePattern) addTopology(top *Topology) {
	node := Node{Kind: KindPattern, Name: p.core.name, Type: p.core.typ.String()}
	for _, in := range p.snapshot() {
		node.Ends = append(node.Ends, in.places()...)
	}
	top.Nodes = append(top.Nodes, node)
}

// accepts reports whether the pattern accepts topics of a type.
func (p *remotePattern) accepts(typ reflect.Type) bool {
	return p.core.typ == typ || p.core.typ == reflect.TypeFor[any]()
}

// accepted returns an error if there is a pattern that does not accept a topic
// with this name and type.
func (ps *patterns) accepted(name string, typ reflect.Type) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.remote {
		if names.Match(p.core.name, name) && !p.accepts(typ) {
			return fmt.Errorf("%w: the subscription to %s takes %v, not %v", ErrTypeMismatch, p.core.name, p.core.typ, typ)
		}
	}
	return nil
}

// topicNamed returns the topic with this name, if this bus has it.
func (b *Bus) topicNamed(name string) (namedTopic, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.components[componentKey{KindTopic, name}].(namedTopic)
	return t, ok
}

// decodeAny decodes a value of the topic and stores it in to.
func (t *Topic[T]) decodeAny(data []byte, to *any) error {
	var v T
	if err := decodeWith(t.remote.codec, data, &v); err != nil {
		return err
	}
	*to = v
	return nil
}
