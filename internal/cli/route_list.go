package cli

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
)

var routeListCommand = command{
	name: "list", about: "list the routes of a broker, with their counters",
	long: `The counters begin when the broker starts: messages that matched, messages that targets
accepted and refused, and targets for which messages lacked a value. hark route show
has more.`,
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		return f.administer(0, 0, "nothing", func(ctx context.Context, a *admin, _ []string, s Streams) error {
			return list(ctx, f, a, s, adminPath("routes"), nil, 0, []string{"route", "from", "to", "matched", "routed", "failed", "no value"}, func(r *routeEntry) []string {
				return []string{r.Route, r.From, clipped(r.targets(), 60), numberText(r.Matched), numberText(r.Routed), numberText(r.Failed), numberText(r.Unresolved)}
			})
		})
	},
}

var routeShowCommand = command{
	name: "show", args: "ROUTE", about: "show a route of a broker, by its name or number",
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		return f.administer(1, 1, "ROUTE", func(ctx context.Context, a *admin, words []string, s Streams) error {
			return show(ctx, f, a, s, http.MethodGet, adminPath("routes", words[0]), nil, (*routeEntry).fields)
		})
	},
}

// routeEntry is a route as the API shows it.
type routeEntry struct {
	Route, From, Where, Mode string
	To                       []string
	Else                     []string `json:"otherwise_to"`
	Sample                   float64
	Durable                  bool
	Matched, Routed, Failed  uint64
	SampledOut               uint64 `json:"sampled_out"`
	Otherwise, Unresolved    uint64
	Looped, Kept             uint64
}

func (r *routeEntry) targets() string {
	text := strings.Join(r.To, " ")
	if len(r.Else) > 0 {
		text += " otherwise " + strings.Join(r.Else, " ")
	}
	return strings.TrimSpace(text)
}

func (r *routeEntry) fields() [][2]string {
	sample, kind := "", "sees what is published while the broker runs"
	if r.Sample > 0 {
		sample = fmt.Sprintf("%v%%", r.Sample*100)
	}
	if r.Durable {
		kind = "durable: takes every message of the stored topic"
	}
	return [][2]string{
		{"route", r.Route},
		{"from", r.From},
		{"where", r.Where},
		{"to", strings.Join(r.To, " ")},
		{"mode", r.Mode},
		{"sample", sample},
		{"otherwise", strings.Join(r.Else, " ")},
		{"kind", kind},
		{"matched", numberText(r.Matched)},
		{"sampled out", numberText(r.SampledOut)},
		{"as otherwise", numberText(r.Otherwise)},
		{"routed", numberText(r.Routed)},
		{"failed", numberText(r.Failed)},
		{"no value", numberText(r.Unresolved)},
		{"routed too often", numberText(r.Looped)},
		{"not moved", numberText(r.Kept)},
	}
}
