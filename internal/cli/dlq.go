package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

var dlqCommand = command{
	name: "dlq", about: "list, show, replay, edit and remove dead letters",
	long: `A dead letter is a message that a subscription gave up. It is on a dead-letter topic:
its own topic's name with .dead appended, or the one that the subscription names.`,
	subs: []command{dlqListCommand, dlqShowCommand, dlqReplayCommand, dlqEditCommand, dlqDeleteCommand},
}

const whereHelp = "only those whose original message matches this `filter`; headers.reason, headers.subscription and headers.attempts describe the failure"

var dlqListCommand = command{
	name: "list", args: "[TOPIC]", about: "list dead-letter topics, or the dead letters of one",
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		where := fs.String("where", "", whereHelp)
		group := fs.String("error", "", "only those with this `error`, as named by hark dlq list TOPIC --group-by error")
		by := &choiceFlag{forms: []string{"error"}}
		fs.Var(by, "group-by", "`error`: count them by error, ignoring its variable parts")
		limit := fs.Uint("limit", 0, "list at most this `number`; 0 for all")
		return f.administer(0, 1, "TOPIC or nothing", func(ctx context.Context, a *admin, words []string, s Streams) error {
			switch {
			case len(words) == 0 && (*where != "" || *group != "" || by.chosen != ""):
				return usageError{errors.New("of which topic? hark dlq list shows those that there are")}
			case by.chosen != "" && (*where != "" || *group != ""):
				return usageError{errors.New("--group-by counts all dead letters: want it alone, or --where and --error")}
			case len(words) == 0:
				return list(ctx, f, a, s, adminPath("dead"), nil, *limit, a.seen("topics for dead letters"), []string{"topic", "dead letters", "oldest", "newest"}, func(t *deadTopicEntry) []string {
					return []string{t.Topic, numberText(t.Messages), age(t.Oldest), age(t.Newest)}
				})
			case by.chosen != "":
				return list(ctx, f, a, s, adminPath("dead", words[0], "errors"), nil, *limit, "dead letters", []string{"count", "error", "reason", "last", "again", "subscriptions"}, func(g *deadError) []string {
					return []string{numberText(g.Count), g.Error, clipped(g.Reason, 80), age(g.Last), countText(g.Again), strings.Join(g.Subscriptions, " ")}
				})
			}
			if _, err := readWhere(*where); err != nil {
				return err
			}
			query := url.Values{}
			for name, value := range map[string]string{"where": *where, "error": *group} {
				if value != "" {
					query.Set(name, value)
				}
			}
			return list(ctx, f, a, s, adminPath("dead", words[0], "messages"), query, *limit, "dead letters", []string{"seq", "failed", "id", "subscription", "tried", "replayed", "reason"}, func(d *deadLetter) []string {
				return []string{numberText(d.Seq), age(d.Last), clipped(d.ID, 24), d.Subscription, countText(d.Attempts), countText(d.Replays), clipped(d.Reason, 80)}
			})
		})
	},
}

var dlqShowCommand = command{
	name: "show", args: "TOPIC SEQ", about: "show a dead letter, with its failure",
	long: `Of a large message it prints the first 16 KiB; with --output json it prints all of it.`,
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		return f.administer(2, 2, "TOPIC and SEQ", func(ctx context.Context, a *admin, words []string, s Streams) error {
			var text json.RawMessage
			path, err := deadPath(words)
			if err != nil {
				return err
			}
			if err := a.get(ctx, path, nil, &text); err != nil {
				return err
			}
			return showDead(f, s, text)
		})
	},
}

// deadPath returns the path of a dead letter in the API.
func deadPath(words []string, more ...string) (string, error) {
	if _, err := sequence(words[1]); err != nil {
		return "", err
	}
	return adminPath(append([]string{"dead", words[0], "messages", words[1]}, more...)...), nil
}

func sequence(word string) (uint64, error) {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil || n == 0 {
		return 0, usageError{fmt.Errorf("%q is no sequence: want the number that hark dlq list shows", word)}
	}
	return n, nil
}

func showDead(f *adminFlags, s Streams, text json.RawMessage) error {
	if err := describe(f, s, text, (*deadLetter).fields); err != nil || f.json() {
		return err
	}
	var d deadLetter
	if err := json.Unmarshal(text, &d); err != nil {
		return err
	}
	if d.Stack != "" {
		fmt.Fprintf(s.Out, "\nstack\n  %s\n", strings.ReplaceAll(strings.TrimSpace(printableLines(d.Stack)), "\n", "\n  "))
	}
	var message bytes.Buffer
	if err := json.Indent(&message, d.Message, "  ", "  "); err != nil {
		return err
	}
	shown, more := message.Bytes(), ""
	if rest := len(shown) - maxShown; rest > 0 {
		shown, more = shown[:maxShown], fmt.Sprintf("…\n\nof the message, %s are not shown: --output json prints all\n", bytesText(uint64(rest)))
	}
	_, err := fmt.Fprintf(s.Out, "\nmessage\n  %s\n%s", printableLines(strings.ToValidUTF8(string(shown), "")), more)
	return err
}

// maxShown is how many bytes of a message are shown to people.
const maxShown = 16 << 10

// printableLines is printable for text with several lines.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(strings.ReplaceAll(lines[i], "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

// deadFlags select dead letters.
type deadFlags struct {
	group, where *string
	all, dry     *bool
	limit        *uint64
}

func newDeadFlags(fs *flag.FlagSet) *deadFlags {
	return &deadFlags{
		group: fs.String("error", "", "only those with this `error`, as named by hark dlq list TOPIC --group-by error"),
		where: fs.String("where", "", whereHelp),
		all:   fs.Bool("all", false, "all dead letters"),
		dry:   fs.Bool("dry-run", false, "only say what would happen"),
		limit: fs.Uint64("limit", 0, "only this `number` of the oldest; 0 for all"),
	}
}

// request returns the body of the API request.
func (d *deadFlags) request(words []string) (map[string]any, error) {
	if _, err := readWhere(*d.where); err != nil {
		return nil, err
	}
	request := map[string]any{}
	var seqs []uint64
	for _, word := range words {
		n, err := sequence(word)
		if err != nil {
			return nil, err
		}
		seqs = append(seqs, n)
	}
	if seqs != nil {
		request["seqs"] = seqs
	}
	for name, value := range map[string]string{"error": *d.group, "where": *d.where} {
		if value != "" {
			request[name] = value
		}
	}
	if len(request) == 0 && !*d.all {
		return nil, usageError{errors.New("which dead letters? Give their sequences, --error or --where; or --all")}
	}
	if *d.all {
		request["all"] = true
	}
	if *d.dry {
		request["dry_run"] = true
	}
	if *d.limit > 0 {
		request["limit"] = *d.limit
	}
	return request, nil
}

var dlqReplayCommand = command{
	name: "replay", args: "TOPIC [SEQ…]", about: "publish dead letters to the topics they come from",
	long: `Each is published, and removed once the copy is stored. If the command or the broker
dies, nothing is lost, and nothing is stored twice while the topic remembers IDs. Every
group of the topic gets the message, not only the one that gave it up.

A dead letter that failed again after a replay, or comes from a topic that is not
stored, is skipped, unless --force is given. The command exits with 3 if it skips any,
and with 1 if it could not replay one.`,
	setup: func(fs *flag.FlagSet) action {
		f, which := newAdminFlags(fs), newDeadFlags(fs)
		to := ""
		fs.Func("to", "publish to this `topic` instead of the one each comes from", func(s string) error {
			if to = s; s == "" {
				return errors.New("want a topic")
			}
			return nil
		})
		rate := fs.Float64("rate", 0, "at most this `number` per second; no limit without it")
		force := fs.Bool("force", false, "also replay those that failed again after a replay, and to topics that are not stored")
		return f.administer(1, -1, "TOPIC, and perhaps sequences", func(ctx context.Context, a *admin, words []string, s Streams) error {
			request, err := which.request(words[1:])
			if err != nil {
				return err
			}
			if *rate < 0 {
				return usageError{errors.New("--rate must not be negative")}
			}
			request["rate"], request["force"], request["to"] = *rate, *force, to
			return workOnDead(ctx, f, a, s, adminPath("dead", words[0], "replay"), request, "replayed")
		})
	},
}

var dlqDeleteCommand = command{
	name: "delete", args: "TOPIC [SEQ…]", about: "remove dead letters",
	long: `Dead letters named by sequence are removed at once. With --all, --error and --where,
add --yes; without it the command says how many would be removed.`,
	setup: func(fs *flag.FlagSet) action {
		f, which := newAdminFlags(fs), newDeadFlags(fs)
		yes := yesFlag(fs)
		return f.administer(1, -1, "TOPIC, and perhaps sequences", func(ctx context.Context, a *admin, words []string, s Streams) error {
			request, err := which.request(words[1:])
			if err != nil {
				return err
			}
			path := adminPath("dead", words[0], "delete")
			if unsure := len(words) == 1 && !*yes && !*which.dry; unsure {
				n, err := a.countDead(ctx, path, request)
				if err != nil {
					return err
				}
				return fmt.Errorf("this would permanently remove %s of %s; confirm with --yes", plural(n, "dead letter", "dead letters"), words[0])
			}
			return workOnDead(ctx, f, a, s, path, request, "removed")
		})
	},
}

var dlqEditCommand = command{
	name: "edit", args: "TOPIC SEQ [DATA]", about: "copy a dead letter with changes",
	long: `The copy is a dead letter on the same topic, with the record of the failure; replay it
afterwards. DATA is its new data, - reads it from the input; without it the data stays.`,
	setup: func(fs *flag.FlagSet) action {
		f := newAdminFlags(fs)
		headers, without := headerFlag{}, nameFlag{}
		fs.Var(headers, "header", "`name=value` of a header; may be given several times")
		fs.Var(&without, "remove-header", "`name` of a header to remove; may be given several times")
		var key *string
		fs.Func("key", "the new `key`; empty for none", func(s string) error { key = &s; return nil })
		replace := fs.Bool("replace", false, "remove the dead letter once its copy is stored")
		return f.administer(2, 3, "TOPIC, SEQ and perhaps DATA", func(ctx context.Context, a *admin, words []string, s Streams) error {
			edit := map[string]any{"replace": *replace}
			if len(words) == 3 {
				if err := editData(ctx, s, words[2], edit); err != nil {
					return err
				}
			}
			changed := map[string]any{}
			for name, value := range headers {
				changed[name] = value
			}
			for _, name := range without {
				changed[name] = nil
			}
			edit["headers"] = changed
			if key != nil {
				edit["key"] = *key
			}
			if len(words) == 2 && len(changed) == 0 && key == nil {
				return usageError{errors.New("what is to be other? Give DATA, --header, --remove-header or --key")}
			}
			path, err := deadPath(words, "edit")
			if err != nil {
				return err
			}
			var text json.RawMessage
			if err := a.do(ctx, http.MethodPost, path, nil, edit, &text); err != nil {
				return err
			}
			return showDead(f, s, text)
		})
	},
}

// editData adds new data to an edit.
func editData(ctx context.Context, s Streams, data string, edit map[string]any) error {
	text := []byte(data)
	if data == "-" {
		var b bytes.Buffer
		if _, err := b.ReadFrom(newInput(ctx, s)); err != nil {
			return err
		}
		text = bytes.TrimRight(b.Bytes(), "\r\n")
	}
	if json.Valid(text) {
		edit["data"], edit["datacontenttype"] = json.RawMessage(text), "application/json"
		return nil
	}
	edit["data_base64"], edit["datacontenttype"] = text, "text/plain"
	return nil
}

// nameFlag collects names.
type nameFlag []string

// Set implements flag.Value.
func (f *nameFlag) Set(s string) error {
	if s == "" {
		return errors.New("want a name")
	}
	*f = append(*f, s)
	return nil
}

// String implements flag.Value.
func (f *nameFlag) String() string { return "" }

// deadTopicEntry is a topic for dead letters as the API shows it.
type deadTopicEntry struct {
	Topic          string
	Messages       uint64
	Oldest, Newest *time.Time
}

// deadError is a group of dead letters with the same error as the API shows it.
type deadError struct {
	Error, Reason string
	Count, Again  uint64
	Last          *time.Time
	Subscriptions []string
}

// deadLetter is a dead letter as the API shows it.
type deadLetter struct {
	Seq           uint64
	ID, Key       string
	From          string
	FromSeq       uint64 `json:"from_seq"`
	Subscription  string
	Error, Reason string
	Attempts      uint64
	First, Last   *time.Time
	Replays       uint64
	EditedFrom    uint64 `json:"edited_from"`
	Stack         string
	Message       json.RawMessage
}

func (d *deadLetter) fields() [][2]string {
	from := d.From
	if d.FromSeq > 0 {
		from += ", sequence " + numberText(d.FromSeq)
	}
	if d.Attempts == 0 && d.From == "" {
		return [][2]string{
			{"message", numberText(d.Seq)},
			{"failure", "none is recorded: no subscription of hark gave this message up"},
			{"id", d.ID},
			{"key", d.Key},
			{"edited from", countText(d.EditedFrom)},
		}
	}
	again := ""
	if d.Replays > 0 {
		again = plural(int(d.Replays), "replay", "replays") + " before it failed again"
	}
	return [][2]string{
		{"dead letter", numberText(d.Seq)},
		{"from", from},
		{"id", d.ID},
		{"key", d.Key},
		{"subscription", d.Subscription},
		{"reason", d.Reason},
		{"error", d.Error},
		{"attempts", countText(d.Attempts)},
		{"first", moment(d.First)},
		{"last", moment(d.Last)},
		{"replayed", again},
		{"edited from", countText(d.EditedFrom)},
	}
}
