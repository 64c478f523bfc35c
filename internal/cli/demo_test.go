package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/leak"
)

// TestDemoReport runs the demo without arguments, in virtual time.
func TestDemoReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		code, out, errs := call(t, "", "demo")
		// What the dashboard drops depends on the order of two events at the same
		// time.
		got := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return strings.Contains(line, "dashboard") })
		want := `1000 deliveries published to 58 topics in 2.0 s

  SUBSCRIPTION  PUBLISHED  DELIVERED  FILTERED  DROPPED  DEAD  RETRIED
         audit       1000       1000         0        0     0        0
        mirror       1000       1000         0        0     0        0
       reviews         87         12        75        0     0        0
     reviewers         12         12         0        0     0        0
       tracker         87         77         0        0    10       46
    postmortem         10         10         0        0     0        0

mirror: 13 repositories, 0 out of order, 0 at the same time
dead: the tracker does not know this issue: 10
every message is accounted for
`
		if code != exitOK || strings.Join(got, "\n") != want {
			t.Errorf("got code %d\n%s\nwant code %d\n%s", code, out, exitOK, want)
		}
		// There is one line per second, and the last second ends with the work.
		if lines := strings.Split(errs, "\n"); !strings.HasPrefix(errs, "500 of 1000 published") && !strings.HasPrefix(errs, "501 of 1000 published") || len(lines) > 3 {
			t.Errorf("progress is %q, want a line for each second", errs)
		}
	})
}

func TestDemoRate(t *testing.T) {
	tests := []struct{ args, want string }{
		{"--rate 100 --count 301", "301 deliveries published to 52 topics in 3.0 s"},
		{"--rate 1 --count 2", "2 deliveries published to 1 topic in 1.0 s"},
		{"--count 0 --rate 100", "329 deliveries published to 58 topics in 3.3 s"},
		{"--count 1", "1 delivery published to 1 topic in 0.0 s"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			if code, out, errs := call(t, "", append([]string{"demo"}, strings.Fields(tt.args)...)...); code != exitOK || !strings.HasPrefix(out, tt.want+"\n") {
				t.Errorf("%s: got code %d\n%s\n%s\nwant %q", tt.args, code, out, errs, tt.want)
			}
		})
	}
}

// TestDemoOverEngine runs the demo twice on one directory: the second run reads
// what the first has left.
func TestDemoOverEngine(t *testing.T) {
	noContexts(t)
	url := "file:" + filepath.Join(t.TempDir(), "data")
	for run, want := range []string{"60 deliveries are stored, by 1 run of", "120 deliveries are stored, by 2 runs of"} {
		code, out, errs := call(t, "", "demo", "--url", url, "--rate", "0", "--count", "60")
		if code != exitOK || !strings.Contains(out, want) || !strings.Contains(out, " 0 out of order, 0 at the same time; 0 done more than once\nevery delivery is accounted for\n") {
			t.Errorf("run %d: got code %d\n%s\n%s", run, code, out, errs)
		}
	}
}

func TestDemoSeed(t *testing.T) {
	tracker := func(args ...string) (row string) {
		synctest.Test(t, func(t *testing.T) {
			_, out, _ := call(t, "", append([]string{"demo"}, args...)...)
			for line := range strings.Lines(out) {
				if strings.Contains(line, "tracker ") && row == "" {
					row = line
				}
			}
		})
		return row
	}
	first, again, other := tracker(), tracker("--seed", "1"), tracker("--seed", "2")
	if first == "" || first != again {
		t.Errorf("seed 1 gave %q and %q, want the same", first, again)
	}
	if first == other {
		t.Errorf("seeds 1 and 2 both gave %q, want a difference", first)
	}
}

func TestDemoInput(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const push = `{"event":"push","payload":{"repository":{"full_name":"a/b"}}}` + "\n"
	tests := []struct {
		name, input, in string
		code            int
		out             string
		errs            []string // must be part of the output
	}{
		{"file", write("good", push+push), "", exitOK, "2 deliveries published to 1 topic", nil},
		{"standard input", "-", push, exitOK, "1 delivery published to 1 topic", nil},
		{"no line break at the end", "-", push + `{"event":"ping","payload":{}}`, exitOK, "2 deliveries published to 2 topics", nil},
		{
			"bad lines", write("mixed", push+"not json\n"+`{"payload":{}}`+"\n"+`{"event":"push","payload":7}`+"\n\n"+`{"event":"no good","payload":{}}`+"\n"+`[]`+"\n"+`{"event":"issues","payload":{"action":"opened"}}`),
			"", exitOK, "2 deliveries published to 2 topics",
			[]string{"line 2 skipped: not a JSON object", `line 3 skipped: no "event"`, `line 4 skipped: no object "payload"`, "line 6 skipped: hark: topic github.no good: invalid name", "line 7 skipped", "5 bad lines skipped, 2 deliveries read"},
		},
		{"a line that is too long", "-", `{"event":"` + strings.Repeat("x", maxLine) + "\"}\n" + push, exitOK, "1 delivery published", []string{"line 1 skipped: longer than"}},
		{"only bad lines", "-", "1\n2\n", exitFailed, "", []string{"line 1 skipped", "line 2 skipped", "the input has no delivery; write one"}},
		{"empty", write("empty", ""), "", exitFailed, "", []string{"has no delivery; write one", "or leave it out"}},
		{"missing", filepath.Join(dir, "none"), "", exitFailed, "", []string{"no such file", "name a file of JSON lines, or leave it out"}},
		{"a folder", dir, "", exitFailed, "", []string{"is a directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := call(t, tt.in, "demo", "--rate", "0", "--count", "0", "--input", tt.input)
			if code != tt.code || !strings.HasPrefix(out, tt.out) || tt.code == exitFailed && out != "" {
				t.Errorf("got code %d\n%s\n%s\nwant code %d and %q", code, out, errs, tt.code, tt.out)
			}
			for _, want := range tt.errs {
				if !strings.Contains(errs, want) {
					t.Errorf("got %s\nwant %q in it", errs, want)
				}
			}
		})
	}
}

// TestDemoInterrupted interrupts the demo while it publishes slowly, and while it
// publishes far more than the tracker can handle. It must account for what it has
// published, and leave nothing running.
func TestDemoInterrupted(t *testing.T) {
	for _, rate := range []string{"100", "0"} {
		t.Run("rate "+rate, func(t *testing.T) {
			leak.Check(t)
			ctx, cancel := context.WithCancel(t.Context())
			var out, errs bytes.Buffer
			interrupt := writerFunc(func(p []byte) (int, error) {
				cancel() // on the first line of progress
				return errs.Write(p)
			})
			code := Run(ctx, []string{"demo", "--rate", rate, "--count", "100000000"}, Streams{Out: &out, Err: interrupt})
			if code != exitInterrupted || !strings.Contains(out.String(), "interrupted before the other") || !strings.HasSuffix(out.String(), "every message is accounted for\n") {
				t.Errorf("got code %d\n%s\n%s\nwant code %d and a table", code, out.String(), errs.String(), exitInterrupted)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDemoUnwritable checks that the demo fails if it cannot print its report.
func TestDemoUnwritable(t *testing.T) {
	var errs bytes.Buffer
	full := writerFunc(func([]byte) (int, error) { return 0, errors.New("disk full") })
	if code := Run(t.Context(), []string{"demo", "--rate", "0"}, Streams{Out: full, Err: &errs}); code != exitFailed || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("got code %d, %q, want code %d and the cause", code, errs.String(), exitFailed)
	}
}

// ran returns a finished demo.
func ran(t *testing.T) *demo {
	t.Helper()
	opened, err := filter.Compile(`data.action == "opened"`, filter.For[webhook]())
	if err != nil {
		t.Fatal(err)
	}
	d := newDemo(demoOptions{count: 400}, opened)
	for _, step := range []func() error{
		func() error { return d.read(Streams{}, d.open) },
		d.subscribe,
		func() error { return d.publish(t.Context()) },
		func() error { return d.close(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDemoNoticesLoss tampers with the demo's counts: the report must mention
// whatever is missing or extra.
func TestDemoNoticesLoss(t *testing.T) {
	d := ran(t)
	report := func() (string, error) {
		var out bytes.Buffer
		err := d.report(Streams{Out: &out}, 0)
		return out.String(), err
	}
	if out, err := report(); err != nil || !strings.Contains(out, "every message is accounted for") {
		t.Fatalf("untouched: got %v\n%s", err, out)
	}
	account := d.ledger.account
	tests := []struct {
		name   string
		tamper func(by int64)
		want   string
	}{
		{"published", func(by int64) { d.ledger.published.Add(by) }, "audit: 401 messages were published for it, and 400 accounted for"},
		{"event", func(by int64) { d.ledger.events["issues"] += by }, "tracker: "},
		{"routed", func(by int64) { d.ledger.routed.Add(by) }, "reviewers: "},
		{"handled", func(by int64) { account("mirror").handled.Add(-by) }, "mirror: the bus has delivered 400, the demo counted 399"},
		{"refused", func(by int64) { account("reviews").refused.Add(by) }, "reviews: the bus has filtered"},
		{"dropped", func(by int64) { account("dashboard").dropped.Add(by) }, "dashboard: the bus has dropped"},
		{"dead", func(by int64) { account("tracker").dead.Add(-by) }, "postmortem: "},
		{"retried", func(by int64) { account("tracker").retried.Add(by) }, "tracker: the bus has retried"},
		{"order", func(by int64) { d.orderChecker.disorder += int(by) }, "the order of a repository was broken"},
		{"overlap", func(by int64) { d.orderChecker.overlaps += int(by) }, "the order of a repository was broken"},
	}
	for _, tt := range tests {
		tt.tamper(1)
		out, err := report()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(out, "is accounted for") {
			t.Errorf("%s: got %v\n%s\nwant an error with %q", tt.name, err, out, tt.want)
		}
		tt.tamper(-1)
	}
	if _, err := report(); err != nil {
		t.Errorf("put right again: got %v", err)
	}
}

func TestDemoNarrowTable(t *testing.T) {
	d := ran(t)
	for _, width := range []int{0, 40, 80} {
		var out bytes.Buffer
		d.account(0).table(&out, width)
		listed := strings.Contains(out.String(), "reviews, to github.pull_request\n")
		if listed != (width == 40) {
			t.Errorf("width %d: got\n%s", width, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if width > 0 && len(line)-1 > width {
				t.Errorf("width %d: %q is wider", width, line)
			}
		}
	}
}

func TestOrderChecker(t *testing.T) {
	w := newOrderChecker()
	w.begins("a", "x", 1)
	w.begins("b", "x", 1) // of another repository
	w.ends("b")
	w.ends("a")
	w.begins("a", "x", 2)
	w.ends("a")
	w.begins("a", "y", 1) // of another topic
	w.ends("a")
	if w.overlaps != 0 || w.disorder != 0 || w.repositoriesLocked() != 2 {
		t.Errorf("got %d overlaps, %d out of order, %d repositories, want 0, 0, 2", w.overlaps, w.disorder, w.repositoriesLocked())
	}
	w.begins("a", "x", 1) // after a later one
	if w.disorder != 1 {
		t.Errorf("got %d out of order, want 1", w.disorder)
	}
	w.begins("a", "y", 1) // before the previous one is done, and again
	if w.overlaps != 1 || w.disorder != 2 {
		t.Errorf("got %d overlaps, %d out of order, want 1, 2", w.overlaps, w.disorder)
	}
}
