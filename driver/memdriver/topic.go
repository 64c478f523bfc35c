package memdriver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
)

// topic is a topic of the engine. Engine.mu guards its fields.
type topic struct {
	engine  *Engine
	name    string
	stored  *driver.StoredConfig
	log     []*driver.Received // of a stored topic, starting at sequence first
	first   uint64
	ids     map[string]time.Time
	repeats uint64
	subs    []*subscription
	groups  map[string]*group
}

// group is the position that the members of a group share on a stored topic, or
// whose turn it is on an ephemeral one.
type group struct {
	next   uint64             // the next sequence to deliver
	back   []*driver.Received // returned messages, to be delivered first
	turn   int
	owners map[string]*subscription // the member that has messages of a key in flight
	held   map[string]int
}

// openTopic is a topic on a connection.
type openTopic struct {
	*topic
	conn *conn
}

// Publish implements driver.Topic.
func (t openTopic) Publish(ctx context.Context, ms []*driver.Message) error {
	if err := t.conn.check(ctx); err != nil {
		return err
	}
	for _, m := range ms {
		if !m.Due.IsZero() {
			return fmt.Errorf("%w: engine memory: delayed messages", driver.ErrUnsupported)
		}
	}
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range ms {
		t.publishLocked(m)
	}
	return nil
}

func (t *topic) publishLocked(m *driver.Message) {
	r := &driver.Received{Message: *m, Topic: t.name, Deliveries: 1}
	r.Data, r.Headers = slices.Clone(m.Data), maps.Clone(m.Headers)
	if t.stored != nil {
		if id, window := cmp.Or(m.DedupID, m.ID), t.stored.Dedup; window > 0 && id != "" {
			if at, ok := t.ids[id]; ok && time.Since(at) < window {
				t.repeats++
				return
			}
			t.ids[id] = time.Now()
		}
		r.Seq = t.first + uint64(len(t.log))
		t.log = append(t.log, r)
		t.trimLocked()
	}
	turns := map[string]bool{}
	for _, s := range t.listenersLocked() {
		switch {
		case s.group == "":
			s.offer(r)
		case t.stored == nil || s.pattern != "":
			if turns[s.pattern+" "+s.group] {
				continue
			}
			turns[s.pattern+" "+s.group] = true
			t.nextOfGroupLocked(s).offer(r)
		}
	}
	if t.stored != nil {
		t.handOutLocked()
	}
}

// listenersLocked returns the subscriptions to the topic, direct and by
// pattern.
func (t *topic) listenersLocked() []*subscription {
	all := slices.Clone(t.subs)
	for s, pattern := range t.engine.patterns {
		if matches(pattern, t.name) {
			all = append(all, s)
		}
	}
	return all
}

func matches(pattern, name string) bool {
	ps, ns := strings.Split(pattern, "."), strings.Split(name, ".")
	for i, p := range ps {
		switch {
		case p == ">":
			return len(ns) > i
		case i >= len(ns) || p != "*" && p != ns[i]:
			return false
		}
	}
	return len(ps) == len(ns)
}

// nextOfGroupLocked returns the member of s's group whose turn it is.
func (t *topic) nextOfGroupLocked(s *subscription) *subscription {
	var members []*subscription
	for _, other := range t.listenersLocked() {
		if other.group == s.group && other.pattern == s.pattern && other.live() {
			members = append(members, other)
		}
	}
	if len(members) == 0 {
		return s
	}
	slices.SortFunc(members, func(a, b *subscription) int { return int(a.serial) - int(b.serial) })
	g := t.groupLocked(s.group)
	g.turn++
	return members[g.turn%len(members)]
}

func (t *topic) groupLocked(name string) *group {
	g := t.groups[name]
	if g == nil {
		g = &group{next: t.first + uint64(len(t.log)), owners: map[string]*subscription{}, held: map[string]int{}}
		t.groups[name] = g
	}
	return g
}

// trimLocked drops what retention does not keep.
func (t *topic) trimLocked() {
	for len(t.log) > 0 && (t.stored.MaxMessages > 0 && len(t.log) > t.stored.MaxMessages ||
		t.stored.MaxAge > 0 && time.Since(t.log[0].Time) > t.stored.MaxAge) {
		t.log[0] = nil
		t.log = t.log[1:]
		t.first++
	}
}

// handOutLocked delivers to the members of groups what they may have in flight.
func (t *topic) handOutLocked() {
	for name, g := range t.groups {
		for {
			m := g.peek(t)
			if m == nil {
				break
			}
			s := t.takerLocked(name, g, m)
			if s == nil {
				break
			}
			g.take(t)
			s.hold(g, m)
		}
	}
}

func (g *group) peek(t *topic) *driver.Received {
	if len(g.back) > 0 {
		return g.back[0]
	}
	g.next = max(g.next, t.first)
	if i := g.next - t.first; i < uint64(len(t.log)) {
		return t.log[i]
	}
	return nil
}

func (g *group) take(t *topic) {
	if len(g.back) > 0 {
		g.back = g.back[1:]
	} else {
		g.next++
	}
}

// takerLocked returns the member that gets the message: the one that holds
// others of its key, or else the one with the most room.
func (t *topic) takerLocked(name string, g *group, m *driver.Received) *subscription {
	var best *subscription
	for _, s := range t.subs {
		if s.group != name || !s.live() {
			continue
		}
		if s.keyed && m.Key != "" && g.owners[m.Key] != nil {
			if g.owners[m.Key] != s {
				continue
			}
			best = s
			break
		}
		if best == nil || len(s.inFlight) < len(best.inFlight) {
			best = s
		}
	}
	if best == nil || len(best.inFlight) >= best.window {
		return nil
	}
	return best
}

// Subscribe implements driver.Topic.
func (t openTopic) Subscribe(ctx context.Context, c driver.SubscribeConfig) (driver.Subscription, error) {
	if err := t.conn.check(ctx); err != nil {
		return nil, err
	}
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	s := newSubscription(t.conn, c)
	s.topic = t.topic
	if t.stored != nil {
		t.trimLocked()
		switch {
		case c.Group == "":
			for _, m := range t.log[t.placeLocked(c)-t.first:] {
				s.offer(m)
			}
		case t.groups[c.Group] == nil:
			t.groupLocked(c.Group).next = t.placeLocked(c)
		}
	}
	t.subs = append(t.subs, s)
	t.conn.add(s)
	t.handOutLocked()
	return s, nil
}

// placeLocked returns the sequence at which a subscription begins.
func (t *topic) placeLocked(c driver.SubscribeConfig) uint64 {
	end := t.first + uint64(len(t.log))
	switch c.From {
	case driver.FromStart:
		return t.first
	case driver.FromSeq:
		return min(max(c.Seq, t.first), end)
	case driver.FromTime:
		for i, m := range t.log {
			if !m.Time.Before(c.Time) {
				return t.first + uint64(i)
			}
		}
	case driver.FromLast:
		return end - min(c.Seq, uint64(len(t.log)))
	}
	return end
}

// Stats implements driver.Topic.
func (t openTopic) Stats(ctx context.Context) (driver.TopicStats, error) {
	if err := t.conn.check(ctx); err != nil {
		return driver.TopicStats{}, err
	}
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.stored == nil {
		return driver.TopicStats{}, nil
	}
	t.trimLocked()
	s := driver.TopicStats{Stored: uint64(len(t.log)), First: t.first, Last: t.first + uint64(len(t.log)) - 1, Deduplicated: t.repeats}
	if s.Stored == 0 {
		s.First = 0
	}
	return s, nil
}

// subscription is a driver.Subscription. Engine.mu guards inFlight.
type subscription struct {
	conn     *conn
	topic    *topic // nil for a pattern
	pattern  string
	group    string
	keyed    bool
	window   int
	serial   int64
	queue    *queue[*driver.Received]
	inFlight map[*driver.Received]*group
	lost     atomic.Uint64
	leaving  atomic.Bool
}

var serials atomic.Int64

func newSubscription(c *conn, config driver.SubscribeConfig) *subscription {
	return &subscription{
		conn: c, group: config.Group, keyed: config.Keyed, window: config.Window, serial: serials.Add(1),
		queue: newQueue[*driver.Received](), inFlight: map[*driver.Received]*group{},
	}
}

func (s *subscription) live() bool { return !s.leaving.Load() }

func (s *subscription) stored() bool { return s.topic != nil && s.topic.stored != nil }

// offer adds a copy of the message to the queue, unless the queue is full.
func (s *subscription) offer(m *driver.Received) {
	most := s.window
	if s.stored() { // the topic keeps it anyway
		most = int(^uint(0) >> 1)
	}
	c := *m
	c.Headers = maps.Clone(m.Headers)
	if s.live() && !s.queue.put(&c, most) {
		s.lost.Add(1)
	}
}

// hold delivers a message to a member of a group on a stored topic.
func (s *subscription) hold(g *group, m *driver.Received) {
	c := *m
	c.Headers, c.Token = maps.Clone(m.Headers), m
	s.inFlight[m] = g
	if m.Key != "" {
		g.owners[m.Key] = s
		g.held[m.Key]++
	}
	s.queue.put(&c, len(s.inFlight)+s.window)
}

// letGo removes a message from those that a member has in flight, and reports
// whether it was there.
func (s *subscription) letGo(m *driver.Received) (*group, bool) {
	g, ok := s.inFlight[m]
	if !ok {
		return nil, false
	}
	delete(s.inFlight, m)
	if m.Key != "" {
		if g.held[m.Key]--; g.held[m.Key] == 0 {
			delete(g.held, m.Key)
			delete(g.owners, m.Key)
		}
	}
	return g, true
}

// Receive implements driver.Subscription.
func (s *subscription) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	return s.queue.take(ctx, most)
}

// Ack implements driver.Subscription.
func (s *subscription) Ack(_ context.Context, ms []*driver.Received) error {
	e := s.conn.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range ms {
		if original, ok := m.Token.(*driver.Received); ok {
			s.letGo(original)
		}
	}
	if s.stored() {
		s.topic.handOutLocked()
	}
	return nil
}

// Extend implements driver.Subscription. It does nothing, because no message is
// taken away here.
func (s *subscription) Extend(context.Context) error { return nil }

// Return implements driver.Subscription.
func (s *subscription) Return(_ context.Context, ms []*driver.Received) error {
	e := s.conn.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	var back []*driver.Received
	for _, m := range ms {
		if original, ok := m.Token.(*driver.Received); ok {
			back = append(back, original)
		}
	}
	s.returnLocked(back)
	return nil
}

// returnLocked returns messages to their group, in the order of the topic.
func (s *subscription) returnLocked(ms []*driver.Received) {
	for _, m := range ms {
		if g, ok := s.letGo(m); ok {
			again := *m
			again.Deliveries++
			g.back = append(g.back, &again)
			slices.SortFunc(g.back, func(a, b *driver.Received) int { return int(a.Seq) - int(b.Seq) })
		}
	}
	if s.stored() {
		s.topic.handOutLocked()
	}
}

// Drain implements driver.Subscription.
func (s *subscription) Drain(context.Context) error {
	s.leaving.Store(true)
	s.queue.end(false)
	return nil
}

// Lag implements driver.Subscription.
func (s *subscription) Lag(context.Context) (driver.Lag, error) {
	e := s.conn.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	lag := driver.Lag{Waiting: uint64(s.queue.len()), Lost: s.lost.Load(), Members: 1}
	if s.stored() && s.group != "" {
		g := s.topic.groupLocked(s.group)
		lag.Waiting += s.topic.first + uint64(len(s.topic.log)) - max(g.next, s.topic.first) + uint64(len(g.back))
	}
	return lag, nil
}

// CaughtUp implements driver.Subscription.
func (s *subscription) CaughtUp(ctx context.Context, _ uint64) (bool, error) {
	lag, err := s.Lag(ctx)
	return lag.Waiting == 0, err
}

// Close implements driver.Subscription.
func (s *subscription) Close(context.Context) error {
	e := s.conn.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	s.leaving.Store(true)
	s.queue.end(true)
	delete(e.patterns, s)
	if s.topic != nil {
		if i := slices.Index(s.topic.subs, s); i >= 0 {
			s.topic.subs = slices.Delete(s.topic.subs, i, i+1)
		}
	}
	s.returnLocked(slices.Collect(maps.Keys(s.inFlight)))
	s.conn.mu.Lock()
	delete(s.conn.subs, s)
	s.conn.mu.Unlock()
	return nil
}

// Requests.

// responder is a driver.Responder.
type responder struct {
	conn  *conn
	name  string
	calls *queue[*driver.Call]
	most  int
	once  sync.Once
}

// Request implements driver.Requester.
func (c *conn) Request(ctx context.Context, name string, m *driver.Message) (*driver.Message, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	answers := make(chan *driver.Message, 1)
	waiting, stop := context.WithCancel(context.Background()) // without the values of the requester's
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	call := &driver.Call{Message: *m, Context: waiting, Answer: func(_ context.Context, a *driver.Message) error {
		answers <- a
		return nil
	}}
	e := c.engine
	e.mu.Lock()
	all := e.responders[name]
	if len(all) == 0 {
		e.mu.Unlock()
		return nil, driver.ErrNoResponders
	}
	e.turns[name]++
	r := all[e.turns[name]%len(all)]
	taken := r.calls.put(call, r.most)
	e.mu.Unlock()
	if !taken {
		return nil, fmt.Errorf("%w: %d requests wait", driver.ErrFull, r.most)
	}
	select {
	case a := <-answers:
		return a, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Respond implements driver.Requester.
func (c *conn) Respond(ctx context.Context, name string, window int) (driver.Responder, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	r := &responder{conn: c, name: name, calls: newQueue[*driver.Call](), most: window}
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	e.responders[name] = append(e.responders[name], r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.responders[r] = struct{}{}
	return r, nil
}

// Receive implements driver.Responder.
func (r *responder) Receive(ctx context.Context, most int) ([]*driver.Call, error) {
	return r.calls.take(ctx, most)
}

// Close implements driver.Responder.
func (r *responder) Close(context.Context) error {
	r.once.Do(func() {
		e := r.conn.engine
		e.mu.Lock()
		e.responders[r.name] = slices.DeleteFunc(e.responders[r.name], func(other *responder) bool { return other == r })
		if len(e.responders[r.name]) == 0 {
			delete(e.responders, r.name)
			delete(e.turns, r.name)
		}
		e.mu.Unlock()
		r.calls.end(false)
		r.conn.mu.Lock()
		delete(r.conn.responders, r)
		r.conn.mu.Unlock()
	})
	return nil
}
