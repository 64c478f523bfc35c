package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

var topicCommand = command{
	name: "topic", about: "list, create and remove stored topics",
	subs: []command{
		{
			name: "list", args: "[PATTERN]", about: "list the stored topics, or those that match a pattern",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				limit := fs.Uint("limit", 0, "list at most this `number`; 0 for all")
				return f.administer(0, 1, "a pattern, in quotes, or nothing", func(ctx context.Context, a *admin, words []string, s Streams) error {
					return list(ctx, f, a, s, adminPath("topics"), patternQuery(words), *limit, a.seen("stored topics"), []string{"topic", "messages", "size", "newest", "durability", "kept"}, func(t *storedTopic) []string {
						return []string{t.Topic, numberText(t.Messages), t.size(), age(t.LastTime), t.Durability, t.kept()}
					})
				})
			},
		},
		{
			name: "stores", about: "list the patterns whose topics are stored together",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				limit := fs.Uint("limit", 0, "list at most this `number`; 0 for all")
				return f.administer(0, 0, "nothing", func(ctx context.Context, a *admin, _ []string, s Streams) error {
					return list(ctx, f, a, s, adminPath("stores"), nil, *limit, "stores", []string{"pattern", "topics", "messages", "size", "newest", "durability", "kept"}, func(t *patternStore) []string {
						return []string{t.Topic, strconv.Itoa(t.Topics), numberText(t.Messages), bytesText(t.Bytes), age(t.LastTime), t.Durability, t.kept()}
					})
				})
			},
		},
		{
			name: "delete-store", args: "PATTERN", about: "delete a store with all its topics and groups",
			long: `A pattern that was removed from the configuration of the broker still keeps what is
published to its topics, until its store is deleted.`,
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				yes := fs.Bool("yes", false, "do it")
				return f.administer(1, 1, "PATTERN, in quotes", func(ctx context.Context, a *admin, words []string, s Streams) error {
					if !*yes {
						return fmt.Errorf("this would permanently remove everything stored of the topics that match %s; confirm with --yes", words[0])
					}
					if err := a.do(ctx, http.MethodDelete, adminPath("stores"), url.Values{"pattern": {words[0]}}, nil, nil); err != nil {
						return err
					}
					return f.done(s, nil, "store %s deleted", words[0])
				})
			},
		},
		{
			name: "show", args: "TOPIC", about: "show a stored topic, with its groups",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				return f.administer(1, 1, "TOPIC", func(ctx context.Context, a *admin, words []string, s Streams) error {
					if err := show(ctx, f, a, s, http.MethodGet, adminPath("topics", words[0]), nil, (*storedTopic).fields); err != nil || f.json() {
						return err
					}
					fmt.Fprintln(s.Out)
					return listGroups(ctx, f, a, s, words[0], 0)
				})
			},
		},
		{
			name: "create", args: "TOPIC", about: "create a stored topic",
			long: `If the topic exists with the same limits, nothing changes; with other limits it is an
error, unless --alter is given. The broker itself creates the topics that its
configuration declares when it starts.`,
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				age := fs.String("age", "", "keep messages for this `time`, such as 12h or 7d; without it, for ever")
				size := fs.String("bytes", "", "keep this `size`, such as 64MiB; without it, everything")
				count := fs.Int64("count", 0, "keep this `number` of messages; 0 for all")
				durability := fs.String("durability", "", "`strict|relaxed|memory`: what an acknowledged message survives (default strict)")
				dedup := fs.String("dedup", "", "remember message IDs for this `time` (default 2m)")
				alter := fs.Bool("alter", false, "change the topic if it exists")
				return f.administer(1, 1, "TOPIC", func(ctx context.Context, a *admin, words []string, s Streams) error {
					limits := map[string]any{}
					for key, value := range map[string]string{"age": *age, "bytes": *size, "durability": *durability, "dedup": *dedup} {
						if value != "" {
							limits[key] = value
						}
					}
					if *count != 0 {
						limits["count"] = *count
					}
					var query url.Values
					if *alter {
						query = url.Values{"alter": {"true"}}
					}
					var put struct{ Change string }
					text, err := a.doText(ctx, http.MethodPut, adminPath("topics", words[0]), query, limits, &put)
					var r *refusal
					if errors.As(err, &r) && r.Status == http.StatusConflict && r.Hint != "" {
						r.Hint = "--alter gives it these limits"
					}
					if err != nil {
						return err
					}
					what := map[string]string{"created": "topic %s created", "altered": "topic %s changed", "none": "topic %s exists with these limits"}[put.Change]
					return f.done(s, text, what, words[0])
				})
			},
		},
		{
			name: "delete", args: "TOPIC", about: "delete a stored topic, with its messages and groups",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				yes := yesFlag(fs)
				return f.administer(1, 1, "TOPIC", func(ctx context.Context, a *admin, words []string, s Streams) error {
					if !*yes {
						return a.unsure(ctx, words[0], 0, 0)
					}
					if err := a.do(ctx, http.MethodDelete, adminPath("topics", words[0]), nil, nil, nil); err != nil {
						return err
					}
					return f.done(s, nil, "topic %s deleted", words[0])
				})
			},
		},
		{
			name: "purge", args: "TOPIC", about: "remove messages of a stored topic",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				before, keep := positiveFlag(fs, "before", "remove only messages before this `sequence`"), positiveFlag(fs, "keep", "keep this `number` of the newest messages")
				yes := yesFlag(fs)
				return f.administer(1, 1, "TOPIC", func(ctx context.Context, a *admin, words []string, s Streams) error {
					if *before > 0 && *keep > 0 {
						return usageError{errors.New("give either --before or --keep")}
					}
					if !*yes {
						return a.unsure(ctx, words[0], *before, *keep)
					}
					query := url.Values{}
					for name, n := range map[string]uint64{"before": *before, "keep": *keep} {
						if n > 0 {
							query.Set(name, numberText(n))
						}
					}
					var gone struct{ Removed int }
					text, err := a.doText(ctx, http.MethodPost, adminPath("topics", words[0], "purge"), query, nil, &gone)
					if err != nil {
						return err
					}
					return f.done(s, text, "%s removed", plural(gone.Removed, "message", "messages"))
				})
			},
		},
	},
}

// positiveFlag declares a flag for a number from 1 on, which is 0 if it is not given. A 0
// is refused: a script that has found nothing does not mean everything.
func positiveFlag(fs *flag.FlagSet, name, usage string) *uint64 {
	n := new(uint64)
	fs.Func(name, usage, func(s string) (err error) {
		if *n, err = strconv.ParseUint(s, 10, 64); err != nil || *n == 0 {
			return errors.New("want a whole number from 1 on")
		}
		return nil
	})
	return n
}

func yesFlag(fs *flag.FlagSet) *bool {
	return fs.Bool("yes", false, "do it; without --yes the command says what would be removed")
}

// unsure returns the error of a command that would remove messages of a topic, see
// purged, and that the user has not confirmed. It says how many.
func (a *admin) unsure(ctx context.Context, topic string, before, keep uint64) error {
	var t storedTopic
	if err := a.get(ctx, adminPath("topics", topic), nil, &t); err != nil {
		return err
	}
	n, exact := t.purged(before, keep)
	most := ""
	if !exact {
		most = "up to "
	}
	return fmt.Errorf("this would permanently remove %s%s of %s; confirm with --yes", most, plural(int(n), "message", "messages"), topic)
}

// storedTopic is a topic as the API shows it.
type storedTopic struct {
	Topic           string
	Store           string
	Messages, Bytes uint64
	First, Last     uint64
	FirstTime       *time.Time `json:"first_time"`
	LastTime        *time.Time `json:"last_time"`
	Created         *time.Time
	Age             string
	MaxBytes        uint64 `json:"max_bytes"`
	MaxCount        int    `json:"max_count"`
	PerKey          int    `json:"per_key"`
	Durability      string
	Dedup           string
	Declared        bool
}

// purged returns how many messages a purge would remove: those before a sequence,
// unless it is 0, all but so many of the newest, or without either all of them. It is
// not exact if there are gaps between the sequences.
func (t *storedTopic) purged(before, keep uint64) (n uint64, exact bool) {
	switch {
	case before == 0:
		return t.Messages - min(keep, t.Messages), true
	case before <= t.First:
		return 0, true
	case before > t.Last:
		return t.Messages, true
	}
	return min(before-t.First, t.Messages), t.Messages == t.Last-t.First+1
}

// kept describes what the topic keeps.
func (t *storedTopic) kept() string {
	text := ""
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	if t.Age != "" {
		add("for " + t.Age)
	}
	if t.MaxBytes > 0 {
		add("up to " + bytesText(t.MaxBytes))
	}
	if t.MaxCount > 0 {
		add("up to " + plural(t.MaxCount, "message", "messages"))
	}
	if t.PerKey > 0 {
		add("of each key up to " + plural(t.PerKey, "message", "messages"))
	}
	if text == "" {
		text = "all"
	}
	if t.Store != "" && t.Store != t.Topic {
		text += ", together with " + t.Store
	}
	return text
}

// size returns the size of the topic's messages, if known.
func (t *storedTopic) size() string {
	if t.Store != "" && t.Bytes == 0 {
		return "-"
	}
	return bytesText(t.Bytes)
}

// patternStore is a store as the API shows it.
type patternStore struct {
	storedTopic
	Topics   int
	PerTopic int `json:"per_topic"`
}

func (t *patternStore) kept() string {
	if t.PerTopic > 0 {
		return t.storedTopic.kept() + ", of each topic up to " + plural(t.PerTopic, "message", "messages")
	}
	return t.storedTopic.kept()
}

func (t *storedTopic) fields() [][2]string {
	declared := "no"
	switch {
	case t.Declared:
		declared = "in the configuration of the broker"
	case t.Store != "":
		declared = "by the pattern " + t.Store
	}
	return [][2]string{
		{"topic", t.Topic},
		{"messages", strings.TrimSuffix(numberText(t.Messages)+", "+t.size(), ", -")},
		{"sequences", strconv.FormatUint(t.First, 10) + " to " + strconv.FormatUint(t.Last, 10)},
		{"oldest", moment(t.FirstTime)},
		{"newest", moment(t.LastTime)},
		{"keeps", t.kept()},
		{"durability", t.Durability},
		{"dedup", t.Dedup},
		{"declared", declared},
		{"created", moment(t.Created)},
	}
}

var errWantPlace = errors.New("--to must be start, now, a sequence, or a time such as 2026-01-02T15:04:05Z")
