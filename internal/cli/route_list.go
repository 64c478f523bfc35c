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
	long: `The counters begin when the broker starts. Each message that a route takes, because it
matches or because no other route has taken it, ends in one of the columns after TAKEN:
all targets have it, it was not in the sample, it lacked a value of a target, a target
refused it, it had been routed too often, or all targets have it and it was not moved.`,
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		return f.administer(0, 0, "nothing", func(ctx context.Context, a *admin, _ []string, s Streams) error {
			return list(ctx, f, a, s, adminPath("routes"), nil, 0, "routes", []string{"route", "from", "to", "taken", "routed", "sampled out", "no value", "failed", "too often", "not moved"}, func(r *routeEntry) []string {
				return []string{
					r.Route, r.From, clipped(r.targets(), 60), numberText(r.Matched + r.Otherwise), numberText(r.Routed), numberText(r.SampledOut),
					numberText(r.Unresolved), numberText(r.Failed), numberText(r.Looped), numberText(r.Kept),
				}
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
		{"as otherwise", numberText(r.Otherwise)},
		{"routed", numberText(r.Routed)},
		{"sampled out", numberText(r.SampledOut)},
		{"no value", numberText(r.Unresolved)},
		{"failed", numberText(r.Failed)},
		{"routed too often", numberText(r.Looped)},
		{"not moved", numberText(r.Kept)},
	}
}
