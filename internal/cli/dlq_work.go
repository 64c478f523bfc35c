package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// deadOutcome says what happened to a dead letter, or to all of them.
type deadOutcome struct {
	Seq     uint64
	ID, To  string
	Outcome string
	Reason  string
	Total   *int
	Summary *deadSummary
}

// deadSummary says how many dead letters had which outcome.
type deadSummary struct{ Done, Dry, Skipped, Failed, Gone int }

// text describes it. dry says that nothing was done, only counted.
func (n *deadSummary) text(what string, dry bool) string {
	text := plural(n.Done, "dead letter", "dead letters") + " " + what
	if dry {
		text = plural(n.Dry, "dead letter", "dead letters") + " would be " + what
	}
	if n.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped", n.Skipped)
	}
	if n.Failed > 0 {
		text += fmt.Sprintf(", %d failed", n.Failed)
	}
	if n.Gone > 0 {
		text += fmt.Sprintf(", %d not there", n.Gone)
	}
	return text
}

// err returns what the command exits with. named says that the user has named the
// dead letters one by one.
func (n *deadSummary) err(what string, named bool) error {
	switch {
	case n.Failed > 0:
		return fmt.Errorf("%s could not be %s", plural(n.Failed, "dead letter", "dead letters"), what)
	case n.Gone > 0 && named:
		return nothing("%s not there", plural(n.Gone, "dead letter is", "dead letters are"))
	case n.Skipped > 0:
		return nothing("%s skipped; --force replays them all the same", plural(n.Skipped, "dead letter was", "dead letters were"))
	}
	return nil
}

// countDead returns how many dead letters a request would affect.
func (a *admin) countDead(ctx context.Context, path string, request map[string]any) (n int, err error) {
	request["dry_run"] = true
	err = a.lines(ctx, path, request, func(line json.RawMessage) error {
		var o deadOutcome
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		if o.Summary != nil {
			n = o.Summary.Dry
		}
		return nil
	})
	return n, err
}

// workOnDead performs a request on many dead letters, and shows its progress.
func workOnDead(ctx context.Context, f *adminFlags, a *admin, s Streams, path string, request map[string]any, what string) error {
	type state struct{ total, seen int }
	states := make(chan state, 1)
	states <- state{}
	var bar *progress
	if terminalWidth(s.Err) > 0 {
		bar = showProgress(s.Err, func(int) string {
			now := <-states
			states <- now
			return fmt.Sprintf("%d of %d", now.seen, now.total)
		})
	}
	var summary *deadSummary
	var lines []string
	err := a.lines(ctx, path, request, func(line json.RawMessage) error {
		var o deadOutcome
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		now := <-states
		switch {
		case o.Total != nil:
			now.total = *o.Total
		case o.Summary != nil:
			summary = o.Summary
		default:
			now.seen++
			if !f.json() && o.Outcome != "done" {
				lines = append(lines, o.line(what))
			}
		}
		states <- now
		if f.json() && o.Total == nil {
			_, err := fmt.Fprintf(s.Out, "%s\n", bytes.TrimSpace(line))
			return err
		}
		return nil
	})
	if bar != nil {
		bar.stop()
	}
	for _, line := range lines {
		fmt.Fprintln(s.Out, line)
	}
	if err == nil && summary == nil {
		err = errors.New("the broker has ended the answer")
	}
	if err != nil {
		if now := <-states; now.total > 0 {
			fmt.Fprintf(s.Err, "stopped after %d of %s; the others are where they were\n", now.seen, plural(now.total, "dead letter", "dead letters"))
		}
		return err
	}
	if !f.json() {
		fmt.Fprintln(s.Out, summary.text(what, request["dry_run"] == true))
	}
	return summary.err(what, request["seqs"] != nil)
}

// line describes what happened to a dead letter.
func (o *deadOutcome) line(what string) string {
	text := fmt.Sprintf("%d", o.Seq)
	if o.ID != "" {
		text += " (" + o.ID + ")"
	}
	switch o.Outcome {
	case "dry":
		text += ": would be " + what
		if o.To != "" {
			text += " to " + o.To
		}
	default:
		text += ": " + o.Outcome + ": " + o.Reason
	}
	return printable(text)
}
