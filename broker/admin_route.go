package broker

import "net/http"

// routeEndpoints are about the routes of the configuration.
func routeEndpoints() []endpoint {
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/routes", name: "listRoutes", summary: "list the routes and their counters", access: operator,
			doc: "The routes are in the order of the configuration. The counters start with the broker, and a reload does not reset them.", params: pageParams(),
			answer: jsonAnswer(page[routeView]{}), handle: listRoutes,
		},
		{
			method: http.MethodGet, path: "/v1/admin/routes/{route}", name: "getRoute", summary: "show a route and its counters", access: operator,
			params: []param{textParam("route", "the name of the route, or its number").inPath()}, answer: jsonAnswer(routeView{}), also: []int{http.StatusNotFound},
			handle: func(c *call) error {
				for _, v := range c.broker.routeViews() {
					if v.Route == c.text("route") {
						return c.reply(v)
					}
				}
				return refused(http.StatusNotFound, "there is no route %s", c.text("route"))
			},
		},
	}
}

// routeView is a route: its configuration, and what it has done.
type routeView struct {
	RouteStats
	From   string   `json:"from" doc:"the topic or pattern from which the route takes messages"`
	Where  string   `json:"where,omitempty" doc:"the filter; if missing, all messages match"`
	To     []string `json:"to,omitempty" doc:"the targets"`
	Mode   string   `json:"mode" enum:"copy move" doc:"whether messages are removed from their topic after they are routed"`
	Sample float64  `json:"sample,omitempty" doc:"the fraction of the messages that is routed; all if missing"`
	Else   []string `json:"otherwise_to,omitempty" doc:"the targets of messages that no route with the same from matched"`
	Stored bool     `json:"durable" doc:"whether the route reads a stored topic, and so takes every message"`
}

// routeViews returns the routes, in the order of the configuration.
func (b *Broker) routeViews() []routeView {
	p := b.routing.plan.Load()
	all := []routeView{}
	for _, r := range p.router.routes {
		mode := r.Mode
		if mode == "" {
			mode = modeCopy
		}
		all = append(all, routeView{RouteStats: r.stats(), From: r.From, Where: r.Where, To: r.To, Mode: mode, Sample: r.Sample, Else: r.Otherwise, Stored: p.declared(r.From)})
	}
	return all
}

func listRoutes(c *call) error {
	p := page[routeView]{Items: []routeView{}}
	passed := c.text("after") == ""
	for _, v := range c.broker.routeViews() {
		switch {
		case !passed:
			passed = v.Route == c.text("after")
			continue
		case uint64(len(p.Items)) == c.number("limit"):
			p.Next = p.Items[len(p.Items)-1].Route
			return c.reply(p)
		}
		p.Items = append(p.Items, v)
	}
	return c.reply(p)
}
