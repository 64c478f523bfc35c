package broker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/harkbus/hark/internal/names"
)

// findCycles reports loops of routes, except those that share an edge with another
// loop.
func (b *routerBuilder) findCycles() {
	for _, path := range newRouteGraph(b.router).cycles() {
		var text strings.Builder
		for _, a := range path {
			r := b.router.routes[a.route]
			fmt.Fprintf(&text, "%s → (route %s) → %s, ", r.From, r.Name, a.target.text)
		}
		first := b.router.routes[path[0].route]
		b.bad(fmt.Sprintf("routes[%d].to", path[0].route), "messages would go in a loop: %sand so to %s again; a target must not lead back to itself",
			text.String(), first.From)
	}
}

// edge leads from one group of routes to others: it is a target of a route.
type edge struct {
	route  int
	target *template
}

// routeGraph has an edge from a group of routes to another if a target of the first
// may be among the sources of the second.
type routeGraph struct {
	groups   []*routeGroup
	edges    [][]edge       // by group
	exact    map[string]int // groups with a single topic as their source
	patterns []int          // the other groups
	state    []visitState   // by group
	path     []edge
	entered  []int // groups on the current path
	found    [][]edge
	onCycle  map[edge]bool // edges of the loops found
}

// visitState is the state of a group in the search for cycles.
type visitState uint8

const (
	unvisited visitState = iota
	onPath
	visited // with everything that it leads to
)

func newRouteGraph(r *Router) *routeGraph {
	g := &routeGraph{groups: r.groups, edges: make([][]edge, len(r.groups)), exact: map[string]int{}, state: make([]visitState, len(r.groups)), onCycle: map[edge]bool{}}
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
					g.edges[at] = append(g.edges[at], edge{i, t})
				}
			}
		}
	}
	return g
}

// cycles returns the edges of loops that have no edge in common.
func (g *routeGraph) cycles() [][]edge {
	for i := range g.groups {
		g.visit(i)
	}
	return g.found
}

func (g *routeGraph) visit(i int) {
	switch g.state[i] {
	case visited:
		return
	case onPath:
		g.note(g.path[slices.Index(g.entered, i):])
		return
	}
	g.state[i] = onPath
	g.entered = append(g.entered, i)
	for _, a := range g.edges[i] {
		g.path = append(g.path, a)
		for _, next := range g.reached(a.target.reaches(g.groups[i].from)) {
			g.visit(next)
		}
		g.path = g.path[:len(g.path)-1]
	}
	g.entered = g.entered[:len(g.entered)-1]
	g.state[i] = visited
}

// note records a loop, unless it shares an edge with another one. It looks for that
// from the end, where the loops of large graphs overlap most.
func (g *routeGraph) note(cycle []edge) {
	for _, a := range slices.Backward(cycle) {
		if g.onCycle[a] {
			return
		}
	}
	for _, a := range cycle {
		g.onCycle[a] = true
	}
	g.found = append(g.found, slices.Clone(cycle))
}

// reached returns the groups whose sources include what a target may be.
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

// overlap reports whether there is a name that matches both patterns.
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
