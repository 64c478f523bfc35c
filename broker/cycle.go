package broker

import (
	"fmt"
	"strings"

	"github.com/harkbus/hark/internal/names"
)

// findCycle reports a circle of routes, if there is one.
func (b *routerBuilder) findCycle() {
	path := newRouteGraph(b.router).cycle()
	if path == nil {
		return
	}
	var text strings.Builder
	for _, a := range path {
		r := b.router.routes[a.route]
		fmt.Fprintf(&text, "%s → (route %s) → %s, ", r.From, r.Name, a.target.text)
	}
	first := b.router.routes[path[0].route]
	b.bad(fmt.Sprintf("routes[%d].to", path[0].route), "messages would go in a circle: %sand so to %s again; a target must not be among what leads to it",
		text.String(), first.From)
}

// arc is a way that messages take: a target of a route.
type arc struct {
	route  int
	target *template
}

// routeGraph has an arc from a group of routes to another one if a target of the
// one may be among what the other is from.
type routeGraph struct {
	groups   []*routeGroup
	arcs     [][]arc        // by group
	exact    map[string]int // groups that are from one topic
	patterns []int          // the others
	state    []visit        // by group
	path     []arc
	entered  []int // the groups on the path
}

// visit says what is known of a group.
type visit uint8

const (
	unseen visit = iota
	onPath
	harmless
)

func newRouteGraph(r *Router) *routeGraph {
	g := &routeGraph{groups: r.groups, arcs: make([][]arc, len(r.groups)), exact: map[string]int{}, state: make([]visit, len(r.groups))}
	number := map[string]int{}
	for i, group := range r.groups {
		number[group.from] = i
		if names.IsPattern(group.from) {
			g.patterns = append(g.patterns, i)
		} else {
			g.exact[group.from] = i
		}
	}
	seen := map[[2]string]bool{}
	for i, route := range r.routes {
		for _, targets := range [][]*template{route.to, route.otherwise} {
			for _, t := range targets {
				if k := [2]string{route.From, t.reaches(route.From)}; !seen[k] {
					seen[k] = true
					at := number[route.From]
					g.arcs[at] = append(g.arcs[at], arc{i, t})
				}
			}
		}
	}
	return g
}

// cycle returns the arcs of a circle, nil if there is none.
func (g *routeGraph) cycle() []arc {
	for i := range g.groups {
		if path := g.visit(i); path != nil {
			return path
		}
	}
	return nil
}

func (g *routeGraph) visit(i int) []arc {
	switch g.state[i] {
	case harmless:
		return nil
	case onPath:
		for k, entered := range g.entered {
			if entered == i {
				return g.path[k:]
			}
		}
	}
	g.state[i] = onPath
	g.entered = append(g.entered, i)
	for _, a := range g.arcs[i] {
		g.path = append(g.path, a)
		for _, next := range g.reached(a.target.reaches(g.groups[i].from)) {
			if path := g.visit(next); path != nil {
				return path
			}
		}
		g.path = g.path[:len(g.path)-1]
	}
	g.entered = g.entered[:len(g.entered)-1]
	g.state[i] = harmless
	return nil
}

// reached returns the groups that are from what a target may be.
func (g *routeGraph) reached(target string) (groups []int) {
	if !names.IsPattern(target) {
		if i, ok := g.exact[target]; ok {
			groups = append(groups, i)
		}
	} else {
		for from, i := range g.exact {
			if names.Match(target, from) {
				groups = append(groups, i)
			}
		}
	}
	for _, i := range g.patterns {
		if overlap(target, g.groups[i].from) {
			groups = append(groups, i)
		}
	}
	return groups
}

// overlap reports whether there is a name that both patterns match.
func overlap(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		if x == ">" || y == ">" {
			return true
		}
		if x != y && x != "*" && y != "*" {
			return false
		}
		if !moreA || !moreB {
			return moreA == moreB
		}
		a, b = restA, restB
	}
}
