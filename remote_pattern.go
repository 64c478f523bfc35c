package hark

import (
	"context"
	"fmt"
	"reflect"

	"github.com/harkbus/hark/driver"
)

// remotePattern is a subscription to a pattern over an engine: to what is
// published while it is there.
type remotePattern struct {
	remoteTopic
	bus *Bus
}

// subscribePatternRemote is subscribePattern over an engine.
func subscribePatternRemote[T any](b *Bus, pattern string, h Handler[T], cfg *subscribeConfig, at uintptr) (*member[T], error) {
	switch {
	case cfg.start.from > fromNow:
		return nil, b.engine.refuse("a start in the past of a pattern (subscribe to the topics)")
	case cfg.holdsUp:
		if err := b.engine.needs(driver.Backpressure); err != nil {
			return nil, err
		}
	}
	p := &remotePattern{bus: b}
	p.engine, p.codec = b.engine, codecFor(reflect.TypeFor[T]())
	// The log of its inbox stands for all topics: where each message comes from
	// is in its arrival.
	t := &Topic[T]{core: topicCore{
		bus: b, kind: KindPattern, name: pattern, typ: reflect.TypeFor[T](),
		bury: func(to string, data any, m *meta) error {
			dead, err := deadTopic[T](b, to)
			if err != nil {
				return err
			}
			return dead.deposit(entry[T]{value: valueAt[T](data), meta: m})
		},
	}}
	p.core = &t.core
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	in := newInbox[T](b, &p.remoteTopic, ephemeralWindow, false, false)
	in.local = makeInboxLog(t, false)
	var err error
	if in.sub, err = b.engine.conn.SubscribePattern(ctx, pattern, driver.SubscribeConfig{Group: cfg.group, Window: ephemeralWindow}); err != nil {
		return nil, engineError(err)
	}
	m, err := in.begin(cfg, pushed, h, nil, "subscribe", at, p)
	if err != nil {
		return nil, err
	}
	m.consumer.pattern = true
	return m, nil
}

// add implements inboxHome: the pattern is on its bus while it has its inbox.
func (p *remotePattern) add(in inboxFace) error {
	ps := &p.bus.patterns
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.bus.mu.Lock()
	closing := p.bus.closing
	p.bus.mu.Unlock()
	if closing {
		return fmt.Errorf("bus %w", ErrClosed)
	}
	ps.remote = append(ps.remote, p)
	return p.remoteTopic.add(in)
}

func (p *remotePattern) remove(in inboxFace) {
	ps := &p.bus.patterns
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forgetLocked(p)
	p.remoteTopic.remove(in)
}

// The face of a pattern over an engine on its bus, besides that of remoteTopic.

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
