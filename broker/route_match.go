package broker

import "slices"

// routeMatch is a message that a route takes, and what becomes of it.
type routeMatch struct {
	route                         *route
	number                        int // of the message in its batch
	otherwise, sampledOut, looped bool
	unresolved                    bool // a target takes a value that it lacks
	move                          bool
	begin, end                    int // of its deliveries, among those of the batch
}

// count counts it once as taken, and once as what has become of it. on are its deliveries; m
// is nil if no route moves the message.
func (t *routeMatch) count(on []*delivery, m *move) {
	c := t.route.counters
	if t.otherwise {
		c.otherwise.Add(1)
	} else {
		c.matched.Add(1)
	}
	switch {
	case t.looped:
		c.looped.Add(1)
	case t.sampledOut:
		c.sampledOut.Add(1)
	case slices.ContainsFunc(on, func(d *delivery) bool { return d.err != nil }):
		c.failed.Add(1)
	case t.unresolved:
		c.unresolved.Add(1)
	case t.move && m.kept:
		c.kept.Add(1)
	default:
		c.routed.Add(1)
	}
}
