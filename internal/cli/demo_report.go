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

// progress says how far the demo is, in at most width columns unless that is 0.
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

// report prints what became of every message, and returns an error if some are
// not accounted for.
func (d *demo) report(s Streams, took time.Duration) error {
	var out bytes.Buffer
	published, interrupted := int(d.ledger.published.Load()), ""
	if published < d.total() {
		interrupted = fmt.Sprintf(", interrupted before the other %d", d.total()-published)
	}
	used := 0
	for event := range d.topics {
		if d.ledger.sent(event) > 0 {
			used++
		}
	}
	fmt.Fprintf(&out, "%s published to %s in %.1f s%s\n\n",
		plural(published, "delivery", "deliveries"), plural(used, "topic", "topics"), took.Seconds(), interrupted)

	faults := d.table(&out, terminalWidth(s.Out))
	w := d.witness
	w.mu.Lock()
	fmt.Fprintf(&out, "\nmirror: %s, %d out of order, %d at the same time\n",
		plural(w.repositoriesLocked(), "repository", "repositories"), w.disorder, w.overlaps)
	if w.disorder+w.overlaps > 0 {
		faults = append(faults, "mirror: the order of a repository was broken")
	}
	w.mu.Unlock()
	d.ledger.mu.Lock()
	for _, cause := range slices.Sorted(maps.Keys(d.ledger.causes)) {
		fmt.Fprintf(&out, "%s: %d\n", cause, d.ledger.causes[cause])
	}
	d.ledger.mu.Unlock()
	if len(faults) == 0 {
		fmt.Fprintln(&out, "every message is accounted for")
	}
	if _, err := s.Out.Write(out.Bytes()); err != nil {
		return err
	}
	if len(faults) > 0 {
		return errors.New("not accounted for: " + strings.Join(faults, "; "))
	}
	return nil
}

// table prints the accounts, below each other where width, if it is not 0, does
// not hold a table. It returns what is wrong with them.
func (d *demo) table(out *bytes.Buffer, width int) (faults []string) {
	columns := []string{"published", "delivered", "filtered", "dropped", "dead", "retried"}
	var table, list bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t\n", strings.Join(append([]string{"SUBSCRIPTION"}, upper(columns)...), "\t"))
	for _, a := range d.ledger.accounts {
		s := a.sub.Stats()
		faults = append(faults, a.faults(s)...)
		numbers := []uint64{uint64(a.meant()), s.Delivered, s.Filtered, s.Dropped, s.Dead, s.Redelivered}
		fmt.Fprintf(w, "%s", a.name)
		fmt.Fprintf(&list, "%s, to %s\n", a.name, a.to)
		for i, n := range numbers {
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
	return faults
}

func upper(words []string) []string {
	up := make([]string, len(words))
	for i, w := range words {
		up[i] = strings.ToUpper(w)
	}
	return up
}

// plural returns n and the form of the word that goes with it.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
