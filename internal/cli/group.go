package cli

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

var groupCommand = command{
	name: "group", about: "list, move, pause and remove groups on stored topics",
	subs: []command{
		{
			name: "list", args: "TOPIC", about: "list the groups on a topic, and how far behind they are",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				limit := fs.Uint("limit", 0, "list at most this `number`; 0 for all")
				return f.administer(1, 1, "TOPIC", func(ctx context.Context, a *admin, words []string, s Streams) error {
					return listGroups(ctx, f, a, s, words[0], *limit)
				})
			},
		},
		{
			name: "show", args: "TOPIC GROUP", about: "show a group",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				return f.administer(2, 2, "TOPIC and GROUP", func(ctx context.Context, a *admin, words []string, s Streams) error {
					return show(ctx, f, a, s, http.MethodGet, groupPath(words), nil, (*group).fields)
				})
			},
		},
		{
			name: "seek", args: "TOPIC GROUP", about: "move a group to another position",
			long: `Messages that its members hold may be delivered again. A group that keeps the order
of keys must have no members meanwhile. Neither must a group that began with the next
message published, the first time it is moved. If the error says that the group may have
been moved in part, repeat the command before members start.`,
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				to := fs.String("to", "", "the new `position`: start, now, a sequence, or a time such as 2026-01-02T15:04:05Z")
				return f.administer(2, 2, "TOPIC and GROUP", func(ctx context.Context, a *admin, words []string, s Streams) error {
					query, err := seekQuery(*to)
					if err != nil {
						return usageError{err}
					}
					return f.changeGroup(ctx, a, words, "seek", query, s)
				})
			},
		},
		{
			name: "pause", args: "TOPIC GROUP", about: "pause a group",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				d := fs.String("for", "", "for this `time`, such as 90s, 12h or 7d; without it, until resumed")
				return f.administer(2, 2, "TOPIC and GROUP", func(ctx context.Context, a *admin, words []string, s Streams) error {
					query := url.Values{}
					if *d != "" {
						query.Set("for", *d)
					}
					return f.changeGroup(ctx, a, words, "pause", query, s)
				})
			},
		},
		{
			name: "resume", args: "TOPIC GROUP", about: "resume a group",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				return f.administer(2, 2, "TOPIC and GROUP", func(ctx context.Context, a *admin, words []string, s Streams) error {
					return f.changeGroup(ctx, a, words, "resume", nil, s)
				})
			},
		},
		{
			name: "delete", args: "TOPIC GROUP", about: "make a group forget its position",
			long: `Connected members fail; new members begin where they say.`,
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				yes := yesFlag(fs)
				return f.administer(2, 2, "TOPIC and GROUP", func(ctx context.Context, a *admin, words []string, s Streams) error {
					if !*yes {
						var g group
						if err := a.get(ctx, groupPath(words), nil, &g); err != nil {
							return err
						}
						return fmt.Errorf("group %s of %s would permanently lose its position, with %s still waiting; confirm with --yes", g.Group, g.Topic, plural(int(g.Waiting), "message", "messages"))
					}
					if err := a.do(ctx, http.MethodDelete, groupPath(words), nil, nil, nil); err != nil {
						return err
					}
					return f.done(s, nil, "group %s of %s deleted", words[1], words[0])
				})
			},
		},
	},
}

func groupPath(words []string, more ...string) string {
	return adminPath(append([]string{"topics", words[0], "groups", words[1]}, more...)...)
}

// seekQuery parses a position on a topic.
func seekQuery(to string) (url.Values, error) {
	if to == "start" || to == "now" {
		return url.Values{"to": {to}}, nil
	}
	if n, err := strconv.ParseUint(to, 10, 64); err == nil && n > 0 {
		return url.Values{"to": {"seq"}, "seq": {to}}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, to); err == nil {
		return url.Values{"to": {"time"}, "time": {t.Format(time.RFC3339Nano)}}, nil
	}
	return nil, errWantPlace
}

// changeGroup performs an operation on a group, and shows the group.
func (f *adminFlags) changeGroup(ctx context.Context, a *admin, words []string, what string, query url.Values, s Streams) error {
	return show(ctx, f, a, s, http.MethodPost, groupPath(words, what), query, (*group).fields)
}

func listGroups(ctx context.Context, f *adminFlags, a *admin, s Streams, topic string, most uint) error {
	return list(ctx, f, a, s, adminPath("topics", topic, "groups"), nil, most, "groups", []string{"group", "waiting", "in flight", "redelivered", "oldest", "done to", "listening", "paused"}, func(g *group) []string {
		return []string{g.Group, numberText(g.Waiting), numberText(g.InFlight), numberText(g.Redelivered), age(g.Oldest), numberText(g.Done), strconv.Itoa(g.Listening), g.paused()}
	})
}

// group is a group as the API shows it.
type group struct {
	Topic, Group string
	Done         uint64
	Waiting      uint64
	InFlight     uint64 `json:"in_flight"`
	Redelivered  uint64
	Oldest       *time.Time
	Listening    int
	Keyed        bool
	PausedUntil  *time.Time `json:"paused_until"`
	Created      *time.Time
}

// farAway is the length of a pause that somebody is expected to end.
const farAway = 10 * 365 * 24 * time.Hour

func (g *group) paused() string {
	switch {
	case g.PausedUntil == nil:
		return ""
	case time.Until(*g.PausedUntil) > farAway:
		return "until it is resumed"
	}
	return "until " + g.PausedUntil.Local().Format("2006-01-02 15:04:05")
}

func (g *group) fields() [][2]string {
	order := ""
	if g.Keyed {
		order = "by key"
	}
	return [][2]string{
		{"group", g.Group + " of " + g.Topic},
		{"waiting", numberText(g.Waiting)},
		{"in flight", numberText(g.InFlight)},
		{"redelivered", numberText(g.Redelivered)},
		{"oldest", moment(g.Oldest)},
		{"done to", "sequence " + numberText(g.Done)},
		{"listening", plural(g.Listening, "member waits", "members wait")},
		{"order", order},
		{"paused", g.paused()},
		{"created", moment(g.Created)},
	}
}
