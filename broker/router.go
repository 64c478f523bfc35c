package broker

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
)

// Router decides where messages go by the routes of a configuration. It has no
// connections, and is safe for concurrent use.
type Router struct {
	routes   []*route
	groups   []*routeGroup // in the order of the configuration
	declared declaredTopics
}

// route is a rule that is ready to be applied.
type route struct {
	RouteConfig
	filter        *filter.Filter // nil if it takes every message
	to, otherwise []*template
	counters      *routeCounters
}

// routeCounters count messages.
type routeCounters struct {
	matched, sampledOut, otherwise, routed, unresolved, failed, looped, kept atomic.Uint64
}

// routeGroup is the routes that have the same From: one index finds those that a
// message matches.
type routeGroup struct {
	from   string
	set    *filter.Set[int] // by number of the route
	every  []int            // routes without a filter
	others []int            // routes with targets for what no route has taken
}

// NewRouter returns the router of a configuration. What is wrong with its routes
// is returned as Problems.
func NewRouter(c *Config) (*Router, error) {
	r, ps := newRouter(c)
	if err := ps.asError(); err != nil {
		return nil, err
	}
	return r, nil
}

func newRouter(c *Config) (*Router, Problems) {
	b := &routerBuilder{config: c, router: &Router{declared: newDeclaredTopics(c.Topics)}, groups: map[string]*routeGroup{}, names: map[string]int{}, filtered: map[*routeGroup][]int{}}
	for i := range c.Routes {
		b.add(i)
	}
	for _, g := range b.router.groups {
		if err := b.index(g); err != nil {
			b.bad("routes", "from %s: %s", g.from, err)
		}
	}
	b.checkOtherwise()
	b.findCycles()
	return b.router, b.problems
}

// checkOtherwise refuses targets for what no route has taken where a route takes everything.
func (b *routerBuilder) checkOtherwise() {
	for _, g := range b.router.groups {
		all := slices.IndexFunc(g.every, func(i int) bool { return slices.ContainsFunc(b.router.routes[i].to, (*template).constant) })
		if all < 0 {
			continue
		}
		taker := b.router.routes[g.every[all]]
		sample := ""
		if taker.Sample != 0 {
			sample = " (what is not in its sample too)"
		}
		for _, i := range g.others {
			b.bad(fmt.Sprintf("routes[%d].otherwise", i), "no message would go there, because route %s takes every message from %s%s; remove otherwise, or give that route a filter (where)", taker.Name, g.from, sample)
		}
	}
}

type routerBuilder struct {
	config   *Config
	router   *Router
	groups   map[string]*routeGroup
	names    map[string]int
	filtered map[*routeGroup][]int
	problems Problems
}

func (b *routerBuilder) bad(key, format string, args ...any) {
	b.problems = append(b.problems, b.config.problem(key, format, args...))
}

// add checks a route and takes it into its group.
func (b *routerBuilder) add(i int) {
	key := fmt.Sprintf("routes[%d]", i)
	r := &route{RouteConfig: b.config.Routes[i], counters: &routeCounters{}}
	if r.Name == "" {
		r.Name = strconv.Itoa(i + 1)
	}
	if other, ok := b.names[r.Name]; ok {
		b.bad(key+".name", "routes %d and %d are both called %s", other+1, i+1, r.Name)
	}
	b.names[r.Name] = i
	switch err := names.CheckPattern(r.From); {
	case r.From == "":
		b.bad(key+".from", `is missing; if it is the pattern > it needs quotes: ">"`)
	case err != nil:
		b.bad(key+".from", "%s", nameFault(err))
	case isReply(r.From):
		b.bad(key+".from", "names that begin with _INBOX are reserved for replies")
	}
	if why := b.config.keptInPart(r.From); r.Durable && why != "" {
		b.bad(key+".durable", "%s", why)
	}
	if len(r.To) == 0 && len(r.Otherwise) == 0 {
		b.bad(key+".to", "is missing")
	}
	if len(r.To) == 0 && (r.Where != "" || r.Sample != 0 || r.Mode == modeMove) {
		b.bad(key+".to", "is missing; where, sample and mode need it")
	}
	r.to = b.templates(key+".to", r.To, func(at string, t *template) {
		if r.Mode == modeMove {
			b.checkMove(at, r.From, t)
		}
	})
	r.otherwise = b.templates(key+".otherwise", r.Otherwise, func(string, *template) {})
	if r.Sample < 0 || r.Sample > 1 {
		b.bad(key+".sample", "must be between 0 and 1")
	}
	switch r.Mode {
	case "", modeCopy:
	case modeMove:
		if !b.router.declared.has(r.From) {
			b.bad(key+".mode", "only a message of a stored topic can be moved; declare %s under topics, or copy", r.From)
		}
	default:
		b.bad(key+".mode", "got %q, want copy or move", r.Mode)
	}
	if r.Where != "" {
		var err error
		if r.filter, err = filter.Compile(r.Where); err != nil {
			b.problems = append(b.problems, b.config.filterProblems(key+".where", err)...)
		}
	}
	b.router.routes = append(b.router.routes, r)
	g := b.groups[r.From]
	if g == nil {
		g = &routeGroup{from: r.From}
		b.groups[r.From] = g
		b.router.groups = append(b.router.groups, g)
	}
	if len(r.otherwise) > 0 {
		g.others = append(g.others, i)
	}
	if r.filter != nil {
		b.filtered[g] = append(b.filtered[g], i)
	} else if len(r.to) > 0 {
		g.every = append(g.every, i)
	}
}

// checkMove refuses a target in which nothing that is moved there could be stored.
func (b *routerBuilder) checkMove(key, from string, t *template) {
	reached := t.reaches(from)
	switch {
	case slices.ContainsFunc(b.config.Topics, func(topic TopicConfig) bool { return overlap(topic.Name, reached) }):
	case t.constant():
		b.bad(key, "%s is not declared under topics, so messages that are moved there would not be stored", t.text)
	default:
		b.bad(key, "no topic under topics matches %s, so messages that are moved there would not be stored; declare them, or a pattern such as %s", t.text, reached)
	}
}

// templates reads targets, and has each checked that can be read.
func (b *routerBuilder) templates(key string, texts []string, check func(at string, t *template)) (all []*template) {
	for i, text := range texts {
		at := key
		if _, ok := b.config.places[fmt.Sprintf("%s[%d]", key, i)]; ok || len(texts) > 1 {
			at = fmt.Sprintf("%s[%d]", key, i)
		}
		t, err := parseTemplate(text)
		if err != nil {
			b.bad(at, "%s", err)
			continue
		}
		check(at, t)
		all = append(all, t)
	}
	return all
}

// index makes the index of a group.
func (b *routerBuilder) index(g *routeGroup) (err error) {
	if g.set, err = filter.NewSet[int](); err != nil {
		return err
	}
	filters := make([]*filter.Filter, len(b.filtered[g]))
	for i, number := range b.filtered[g] {
		filters[i] = b.router.routes[number].filter
	}
	return g.set.AddAll(b.filtered[g], filters)
}

// filterProblems returns what is wrong with a filter, with the places in the
// file.
func (c *Config) filterProblems(key string, err error) (ps Problems) {
	var all filter.Errors
	var one *filter.Error
	switch {
	case errors.As(err, &all):
	case errors.As(err, &one):
		all = filter.Errors{one}
	default:
		return Problems{c.problem(key, "%s", err)}
	}
	for _, e := range all {
		_, text, _ := strings.Cut(e.Error(), ": ") // without the package
		if _, rest, ok := strings.Cut(text, ": "); ok {
			text = rest
		}
		p := c.problem(key, "%s", text)
		if p.Line > 0 {
			if at, ok := c.within(position{p.Line, p.Column}, e); ok {
				p.Line, p.Column = at.line, at.column
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// within returns the place of an error in a filter that is written at a place of
// the file; false if it is not there as it is, such as with escapes in it.
func (c *Config) within(start position, e *filter.Error) (position, bool) {
	lines := strings.Split(e.Expr, "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return position{}, false
	}
	want := strings.TrimSpace(lines[e.Line-1])
	indent := len(lines[e.Line-1]) - len(strings.TrimLeft(lines[e.Line-1], " "))
	first := start.line
	if len(lines) > 1 {
		first += e.Line // a block begins below its mark
	}
	for _, at := range []int{first, start.line + e.Line} { // a block of one line, too
		if at > len(c.lines) {
			break
		}
		from := 0
		if at == start.line {
			from = min(start.column-1, len(c.lines[at-1]))
		}
		if i := strings.Index(c.lines[at-1][from:], want); i >= 0 && want != "" {
			return position{at, from + i + e.Column - indent}, true
		}
	}
	return position{}, false
}

// Decision is what a route does with a message.
type Decision struct {
	Route     string   `json:"route"`
	Targets   []string `json:"targets,omitempty"`
	Otherwise bool     `json:"otherwise,omitempty"` // because no route has taken it
	// SampledOut says that it matches and is not in the sample.
	SampledOut bool `json:"sampled_out,omitempty"`
	// Unresolved are targets for which the message lacks a value.
	Unresolved []string `json:"unresolved,omitempty"`
	Move       bool     `json:"move,omitempty"`

	// Unstored are targets of a move that are not declared: the message is copied there,
	// and stays where it is.
	Unstored []string `json:"unstored,omitempty"`

	shared []string // targets that get the message by another route, or twice by this one
	route  *route
}

// decide returns what the routes of groups do with a message. A topic is the
// target of one of them only.
func (r *Router) decide(groups []*routeGroup, e *Event) (ds []Decision) {
	var numbers []int
	seen := map[string]bool{}
	for _, g := range groups {
		if !takes(g.from, e.Topic()) {
			continue
		}
		numbers = g.set.Match(e, append(numbers[:0], g.every...))
		slices.Sort(numbers)
		taken := false
		for _, i := range numbers {
			d := r.routes[i].apply(e, seen, r.declared)
			taken = taken || d.SampledOut || len(d.Unresolved) < len(r.routes[i].to)
			ds = append(ds, d)
		}
		if taken {
			continue
		}
		for _, i := range g.others {
			d := Decision{Route: r.routes[i].Name, Otherwise: true, route: r.routes[i]}
			d.expand(r.routes[i].otherwise, e, seen, r.declared)
			ds = append(ds, d)
		}
	}
	return ds
}

// apply returns what a route does with a message that matches.
func (r *route) apply(e *Event, seen map[string]bool, declared declaredTopics) Decision {
	d := Decision{Route: r.Name, route: r}
	if !sampled(r.Sample, e) {
		d.SampledOut = true
		return d
	}
	d.Move = r.Mode == modeMove
	d.expand(r.to, e, seen, declared)
	return d
}

// expand makes the targets, of which those that are seen already are no further ones.
func (d *Decision) expand(ts []*template, e *Event, seen map[string]bool, declared declaredTopics) {
	for _, t := range ts {
		name, err := t.expand(e)
		if d.Move && err == nil && !declared.has(name) {
			d.Unstored = append(d.Unstored, name)
		}
		switch {
		case err != nil:
			d.Unresolved = append(d.Unresolved, t.text+": "+err.Error())
		case seen[name]:
			d.shared = append(d.shared, name)
		default:
			seen[name] = true
			d.Targets = append(d.Targets, name)
		}
	}
}

// groupsFor returns the groups that take messages of a topic.
func (r *Router) groupsFor(topic string) []*routeGroup { return matching(r.groups, topic) }

// groupsOver returns the groups that take messages of some of the topics that match a
// pattern.
func (r *Router) groupsOver(pattern string) (gs []*routeGroup) {
	for _, g := range r.groups {
		if overlap(g.from, pattern) {
			gs = append(gs, g)
		}
	}
	return gs
}

// takes reports whether a route or webhook from a pattern takes messages of a topic that
// matches it: not those of a topic for dead letters, unless the pattern says that it means
// these.
func takes(pattern, topic string) bool {
	return !strings.HasSuffix(topic, deadSuffix) || strings.HasSuffix(pattern, deadSuffix) || !names.IsPattern(pattern)
}

// deadSuffix ends the names of topics for dead letters.
const deadSuffix = ".dead"

// matching returns those groups that take messages of a topic.
func matching(groups []*routeGroup, topic string) (gs []*routeGroup) {
	for _, g := range groups {
		if names.Match(g.from, topic) {
			gs = append(gs, g)
		}
	}
	return gs
}

// Decide returns what the routes do with a message of a topic, without doing it.
func (r *Router) Decide(e *Event) []Decision { return r.decide(r.groupsFor(e.Topic()), e) }

// Undecided yields the routes whose filters cannot be evaluated for a message, with the
// reason. They do not take it, as if it did not match.
func (r *Router) Undecided(e *Event) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, route := range r.routes {
			if route.filter == nil || !names.Match(route.From, e.Topic()) || !takes(route.From, e.Topic()) {
				continue
			}
			if _, err := route.filter.Eval(e); err != nil && !yield(route.Name, err) {
				return
			}
		}
	}
}
