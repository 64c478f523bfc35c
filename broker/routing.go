package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// routingPatience is the patience of routing.
const routingPatience = 5 * time.Second

// routesGroup is the group that keeps the place of routes on a stored topic.
const routesGroup = "hark-routes"

// routing runs the routes of a configuration: a reader for each declared topic
// that has routes, and one for each other From.
type routing struct {
	conn *natsdriver.Conn
	log  *slog.Logger
	// shared says that other brokers have the same routes: each message is routed
	// by one of them.
	shared bool
	// work ends when stopping takes too long.
	work context.Context
	cut  context.CancelFunc
	// patience is how long a reload waits until readers that are not wanted any more have
	// routed what they have received, and before that what is stored, if their topics are
	// not declared any more.
	patience time.Duration

	mu      sync.Mutex // guards what follows
	readers map[readerKey]*reader
	plan    atomic.Pointer[plan]
}

// plan is what readers go by. It does not change.
type plan struct {
	router  *Router
	maxHops int
	topics  map[string]driver.Topic // those that are declared by name
	inside  *storeTopics            // of these
	tasks   map[readerKey][]*routeGroup
	mixed   map[readerKey]bool // tasks of which not all are for every message
}

// readerKey says what a reader reads.
type readerKey struct {
	from   string
	stored bool // a declared topic, or a store; otherwise a subscription
}

func newRouting(conn *natsdriver.Conn, log *slog.Logger, shared bool) *routing {
	r := &routing{conn: conn, shared: shared, log: log.With("part", "routes"), readers: map[readerKey]*reader{}, patience: routingPatience}
	r.work, r.cut = context.WithCancel(context.Background())
	return r
}

// newPlan opens what a router needs.
func (r *routing) newPlan(ctx context.Context, c *Config, router *Router) (*plan, error) {
	p := &plan{
		router: router, maxHops: c.MaxHops, topics: map[string]driver.Topic{}, tasks: map[readerKey][]*routeGroup{}, mixed: map[readerKey]bool{},
		inside: &storeTopics{conn: r.conn, open: map[string]driver.Topic{}},
	}
	for _, t := range c.Topics {
		if t.isStore() {
			if groups := router.groupsOver(t.Name); len(groups) > 0 {
				key := readerKey{t.Name, true}
				p.tasks[key] = groups
				p.mixed[key] = slices.ContainsFunc(groups, func(g *routeGroup) bool { return !names.Covers(g.from, t.Name) })
			}
			continue
		}
		stored := t.stored()
		stored.Existing = true // its limits may be about to change
		topic, err := r.conn.OpenTopic(ctx, driver.TopicConfig{Name: t.Name, Stored: stored})
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", t.Name, err)
		}
		p.topics[t.Name] = topic
		if groups := router.groupsFor(t.Name); len(groups) > 0 {
			p.tasks[readerKey{t.Name, true}] = groups
		}
	}
	for _, g := range router.groups {
		if !router.declared.has(g.from) {
			p.tasks[readerKey{g.from, false}] = []*routeGroup{g}
		}
	}
	return p, nil
}

// routingChange is the step from the routes of one configuration to those of another: what
// is new listens and has taken nothing.
type routingChange struct {
	of    *routing
	plan  *plan
	fresh map[readerKey]*reader
	seed  maphash.Seed // of the marks
}

// change begins the step to another configuration. Either finish or undo must be called.
func (r *routing) change(ctx context.Context, c *Config, router *Router) (*routingChange, error) {
	p, err := r.newPlan(ctx, c, router)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	step := &routingChange{r, p, map[readerKey]*reader{}, maphash.MakeSeed()}
	step.recordLocked()
	for key := range p.tasks {
		if r.readers[key] != nil {
			continue
		}
		reader, err := r.open(ctx, key)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("route from %s: %w", key.from, err), step.undoLocked(ctx))
		}
		step.fresh[key] = reader
	}
	return step, nil
}

// undo ends what is new, and removes the groups that were made for it.
func (step *routingChange) undo(ctx context.Context) error {
	step.of.mu.Lock()
	defer step.of.mu.Unlock()
	return step.undoLocked(ctx)
}

func (step *routingChange) undoLocked(ctx context.Context) (err error) {
	ctx, cancel := lastly(ctx)
	defer cancel()
	step.forgetLocked()
	for _, reader := range step.fresh {
		reader.cut()
		err = errors.Join(err, reader.sub.Close(ctx))
		if reader.placed {
			err = errors.Join(err, step.of.conn.DeleteGroup(ctx, reader.key.from, routesGroup))
		}
	}
	return err
}

// finish runs the new routes instead of the others, whether or not ctx ends meanwhile.
func (step *routingChange) finish(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	r, p := step.of, step.plan
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.plan.Load()
	begin := step.handOverLocked(ctx)
	if old != nil {
		p.router.takeCounters(old.router)
	}
	r.plan.Store(p)
	begin()
	for key, reader := range step.fresh {
		r.readers[key] = reader
		reader.start()
	}
	var unwanted []*reader
	for key, reader := range r.readers {
		if p.tasks[key] == nil {
			unwanted = append(unwanted, reader)
		}
	}
	r.endLocked(ctx, unwanted...)
	step.forgetLocked()
	r.forgetPlaces(ctx, old, p)
}

// endLocked ends readers that are not wanted any more, when they have routed what they
// have, or the patience for that is at an end: a target may accept nothing.
func (r *routing) endLocked(ctx context.Context, unwanted ...*reader) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	var all sync.WaitGroup
	for _, reader := range unwanted {
		delete(r.readers, reader.key)
		all.Go(func() {
			if err := reader.stop(ctx); err != nil {
				r.log.Warn("a reader was ended before all that it had received was routed", "from", reader.key.from, "err", err)
			}
		})
	}
	all.Wait()
}

// forgetPlaces removes the group from topics that are, or were, declared and have no
// routes, so that a route that is added later begins with what is published then. old is
// nil at first.
func (r *routing) forgetPlaces(ctx context.Context, old, p *plan) {
	if r.shared {
		return // others may still route, with the configuration that this one had
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	declared := slices.AppendSeq(slices.Clone(p.router.declared.stores), maps.Keys(p.topics))
	if old != nil {
		for key := range old.tasks {
			if key.stored && !p.declared(key.from) {
				declared = append(declared, key.from)
			}
		}
	}
	for _, name := range declared {
		if p.tasks[readerKey{name, true}] != nil {
			continue
		}
		if err := r.conn.DeleteGroup(ctx, name, routesGroup); err != nil {
			r.log.Warn("the position of removed routes could not be deleted", "topic", name, "err", err)
		}
	}
}

// stop ends all readers when they have done what they have taken, or ctx ends.
func (r *routing) stop(ctx context.Context) error {
	defer context.AfterFunc(ctx, r.cut)()
	defer r.cut()
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make([]error, len(r.readers))
	var all sync.WaitGroup
	for i, reader := range slices.Collect(maps.Values(r.readers)) {
		all.Go(func() { errs[i] = reader.stop(ctx) })
	}
	all.Wait()
	clear(r.readers)
	return errors.Join(errs...)
}

// RouteStats are the numbers of a route since the broker was started. Each message that it
// takes is counted in Matched or Otherwise, and then in one of those that follow.
type RouteStats struct {
	Route      string `json:"route" doc:"the name"`
	Matched    uint64 `json:"matched" doc:"messages that matched. Each of these, and of those counted in otherwise, is counted in exactly one of routed, sampled_out, unresolved, failed, looped and kept"`
	Otherwise  uint64 `json:"otherwise" doc:"messages that the route took because no other route matched"`
	Routed     uint64 `json:"routed" doc:"messages that all targets have"`
	SampledOut uint64 `json:"sampled_out" doc:"messages that were not in the sample"`
	Unresolved uint64 `json:"unresolved" doc:"messages that were not sent to a target because a value in its template was missing"`
	Failed     uint64 `json:"failed" doc:"messages that a target rejected"`
	Looped     uint64 `json:"looped" doc:"messages that were not routed because they had already been routed max_hops times"`
	Kept       uint64 `json:"kept" doc:"messages of a moving route that all targets have, but that were not removed, because a target is not stored or another moving route failed"`
}

// RouteStats returns the numbers of each route, in the order of the
// configuration.
func (b *Broker) RouteStats() (all []RouteStats) {
	p := b.routing.plan.Load()
	if p == nil {
		return nil
	}
	for _, r := range p.router.routes {
		all = append(all, r.stats())
	}
	return all
}

func (r *route) stats() RouteStats {
	c := r.counters
	return RouteStats{
		r.Name, c.matched.Load(), c.otherwise.Load(), c.routed.Load(), c.sampledOut.Load(), c.unresolved.Load(), c.failed.Load(), c.looped.Load(), c.kept.Load(),
	}
}

// takeCounters goes on with the counters of the routes of another router.
func (r *Router) takeCounters(from *Router) {
	byName := map[string]*routeCounters{}
	for _, route := range from.routes {
		byName[route.Name] = route.counters
	}
	for _, route := range r.routes {
		if c := byName[route.Name]; c != nil {
			route.counters = c
		}
	}
}

// declared reports whether messages of a topic are read from its store.
func (p *plan) declared(topic string) bool { return p.router.declared.has(topic) }

// target returns the topic to which what is routed goes, and whether it is stored.
func (p *plan) target(ctx context.Context, conn *natsdriver.Conn, name string) (topic driver.Topic, stored bool, err error) {
	if topic := p.topics[name]; topic != nil {
		return topic, true, nil
	}
	if pattern := p.router.declared.storeOf(name); pattern != "" {
		topic, err = p.inside.topic(ctx, pattern, name)
		return topic, true, err
	}
	topic, err = conn.OpenTopic(ctx, driver.TopicConfig{Name: name})
	return topic, false, err
}

// storeTopics are topics of stores to which messages have been routed.
type storeTopics struct {
	conn *natsdriver.Conn

	mu   sync.Mutex // guards open
	open map[string]driver.Topic
}

func (s *storeTopics) topic(ctx context.Context, pattern, name string) (driver.Topic, error) {
	s.mu.Lock()
	topic := s.open[name]
	s.mu.Unlock()
	if topic != nil {
		return topic, nil
	}
	topic, err := s.conn.OpenInStore(ctx, pattern, name, driver.StoredConfig{Existing: true, Dedup: time.Minute}) // IDs are sent; for how long they count is the store's
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxKnownTopics {
		clear(s.open) // they are opened again
	}
	s.open[name] = topic
	return topic, nil
}

// open begins to receive.
func (r *routing) open(ctx context.Context, key readerKey) (*reader, error) {
	in := newReader(r, key)
	var err error
	switch {
	case key.stored:
		if r.plan.Load() != nil {
			// What was routed as it was published is stored by now, and not from now on.
			if err = r.conn.AwaitStored(ctx, key.from); err != nil {
				return nil, err
			}
			has, err := hasGroup(ctx, r.conn, key.from, routesGroup)
			if err != nil {
				return nil, err
			}
			in.placed = !has && !r.shared
		}
		cfg := driver.SubscribeConfig{Group: routesGroup, From: driver.FromNow, Window: storedBatch, Keyed: r.shared}
		if !r.shared {
			// What was in flight when the broker ended comes again at once, and so in
			// order. Others keep the order of keys by their leases.
			if err = r.conn.ResetGroup(ctx, key.from, routesGroup); err != nil {
				return nil, err
			}
		}
		var topic driver.Topic
		if topic, err = openDeclared(ctx, r.conn, key.from); err == nil {
			in.sub, err = topic.Subscribe(ctx, cfg)
		}
	case names.IsPattern(key.from):
		in.sub, err = r.conn.SubscribePattern(ctx, key.from, r.live(key.from))
	default:
		var topic driver.Topic
		if topic, err = r.conn.OpenTopic(ctx, driver.TopicConfig{Name: key.from}); err == nil {
			in.sub, err = topic.Subscribe(ctx, r.live(key.from))
		}
	}
	return in, err
}

// hasGroup reports whether a group on a stored topic is there.
func hasGroup(ctx context.Context, conn *natsdriver.Conn, topic, group string) (bool, error) {
	_, err := conn.GroupInfo(ctx, topic, group)
	if errors.Is(err, natsdriver.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// live is how routes read what is not stored. Brokers that share the work are a
// group, for each topic or pattern another one.
func (r *routing) live(from string) driver.SubscribeConfig {
	cfg := driver.SubscribeConfig{Window: liveWindow}
	if r.shared {
		cfg.Group = routesGroup + "/" + from
	}
	return cfg
}
