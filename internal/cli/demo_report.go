package cli

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// progress describes the demo's progress, in at most width columns unless that is
// 0.
func (d *demo) progress(width int) string {
	published, total := d.ledger.published.Load(), int64(d.total())
	var dropped int64
	for _, a := range d.ledger.accounts {
		dropped += a.dropped.Load()
	}
	line := fmt.Sprintf("%d of %d published", published, total)
	if width > 0 && width < 60 {
		line = fmt.Sprintf("%d/%d", published, total)
	}
	if d.finishing.Load() {
		line = fmt.Sprintf("%d published, finishing", published)
	}
	const bar = 20
	if width >= 72 {
		done := int(published * bar / total)
		line = fmt.Sprintf("[%s%s] %s", strings.Repeat("=", done), strings.Repeat(" ", bar-done), line)
	}
	return fmt.Sprintf("%s, %d dead, %d dropped", line, d.ledger.deadLetters(), dropped)
}

// demoReport says what happened to every message.
type demoReport struct {
	Published     int            `json:"published"`
	Left          int            `json:"left"` // not published because of an interruption
	Topics        int            `json:"topics"`
	Seconds       float64        `json:"seconds"`
	Subscriptions []demoAccount  `json:"subscriptions"`
	Repositories  int            `json:"repositories"`
	Disorder      int            `json:"outOfOrder"`
	Overlaps      int            `json:"atTheSameTime"`
	Causes        map[string]int `json:"causes"`
	Faults        []string       `json:"faults"` // empty if every message is accounted for
}

// demoAccount says what happened to the messages of one subscription.
type demoAccount struct {
	Name      string `json:"name"`
	To        string `json:"to"`
	Published uint64 `json:"published"` // messages it should get
	Delivered uint64 `json:"delivered"`
	Filtered  uint64 `json:"filtered"`
	Dropped   uint64 `json:"dropped"`
	Dead      uint64 `json:"dead"`
	Retried   uint64 `json:"retried"`
}

// report prints what happened to every message, and returns an error if some are
// not accounted for.
func (d *demo) report(s Streams, took time.Duration) error {
	r := d.account(took)
	if d.json {
		return errors.Join(printJSON(s.Out, r), faulty(r.Faults))
	}
	_, err := s.Out.Write(r.text(terminalWidth(s.Out)))
	return errors.Join(err, faulty(r.Faults))
}

// faulty returns an error if there are faults.
func faulty(faults []string) error {
	if len(faults) == 0 {
		return nil
	}
	return errors.New("not accounted for: " + strings.Join(faults, "; "))
}

// account sums up the demo.
func (d *demo) account(took time.Duration) *demoReport {
	r := &demoReport{Published: int(d.ledger.published.Load()), Seconds: took.Seconds(), Faults: []string{}}
	r.Left = max(d.total()-r.Published, 0)
	for event := range d.topics {
		if d.ledger.sent(event) > 0 {
			r.Topics++
		}
	}
	for _, a := range d.ledger.accounts {
		s := a.sub.Stats()
		r.Faults = append(r.Faults, a.faults(s)...)
		r.Subscriptions = append(r.Subscriptions, demoAccount{a.name, a.to, uint64(a.meant()), s.Delivered, s.Filtered, s.Dropped, s.Dead, s.Redelivered})
	}
	w := d.orderChecker
	w.mu.Lock()
	r.Repositories, r.Disorder, r.Overlaps = w.repositoriesLocked(), w.disorder, w.overlaps
	w.mu.Unlock()
	if r.Disorder+r.Overlaps > 0 {
		r.Faults = append(r.Faults, "mirror: the order of a repository was broken")
	}
	d.ledger.mu.Lock()
	r.Causes = maps.Clone(d.ledger.causes)
	d.ledger.mu.Unlock()
	return r
}

// text returns the report for people, in at most width columns unless that is 0.
func (r *demoReport) text(width int) []byte {
	var out bytes.Buffer
	interrupted := ""
	if r.Left > 0 {
		interrupted = fmt.Sprintf(", interrupted before the other %d", r.Left)
	}
	fmt.Fprintf(&out, "%s published to %s in %.1f s%s\n\n",
		plural(r.Published, "delivery", "deliveries"), plural(r.Topics, "topic", "topics"), r.Seconds, interrupted)
	r.table(&out, width)
	fmt.Fprintf(&out, "\nmirror: %s, %d out of order, %d at the same time\n",
		plural(r.Repositories, "repository", "repositories"), r.Disorder, r.Overlaps)
	for _, cause := range slices.Sorted(maps.Keys(r.Causes)) {
		fmt.Fprintf(&out, "%s: %d\n", cause, r.Causes[cause])
	}
	if len(r.Faults) == 0 {
		fmt.Fprintln(&out, "every message is accounted for")
	}
	return out.Bytes()
}

// table prints the accounts, one below the other if width is not 0 and too small
// for a table.
func (r *demoReport) table(out *bytes.Buffer, width int) {
	columns := []string{"published", "delivered", "filtered", "dropped", "dead", "retried"}
	var table, list bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t\n", strings.Join(append([]string{"SUBSCRIPTION"}, upper(columns)...), "\t"))
	for _, a := range r.Subscriptions {
		fmt.Fprintf(w, "%s", a.Name)
		fmt.Fprintf(&list, "%s, to %s\n", a.Name, a.To)
		for i, n := range []uint64{a.Published, a.Delivered, a.Filtered, a.Dropped, a.Dead, a.Retried} {
			fmt.Fprintf(w, "\t%d", n)
			if n > 0 || i == 0 {
				fmt.Fprintf(&list, "%10d %s\n", n, columns[i])
			}
		}
		fmt.Fprint(w, "\t\n")
	}
	w.Flush()
	if first, _, _ := bytes.Cut(table.Bytes(), []byte("\n")); width > 0 && len(first) > width {
		out.Write(list.Bytes())
	} else {
		out.Write(table.Bytes())
	}
}

func upper(words []string) []string {
	up := make([]string, len(words))
	for i, w := range words {
		up[i] = strings.ToUpper(w)
	}
	return up
}

// plural returns n with the matching form of the word.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
