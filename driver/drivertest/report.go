package drivertest

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark/driver"
)

// Report says what a run of the suite found out about an engine.
type Report struct {
	// Info is how the engine describes itself.
	Info driver.Info
	// Refused are the clauses that were skipped, by their IDs, and what the
	// engine does not have for them.
	Refused map[string]string

	ran, across int // clauses
	failed      bool
}

// refusals has why tests were skipped, by their names, until their clause notes
// it.
var refusals struct {
	sync.Mutex
	reasons map[string]string
}

// refusedBy finds what follows the name of the engine, and its server, in a
// refusal.
var refusedBy = regexp.MustCompile(`engine [^:]*: (.*)`)

// refused skips a test because the engine refuses what it needs.
func refused(t *testing.T, err error) {
	t.Helper()
	reason := err.Error()
	if m := refusedBy.FindStringSubmatch(reason); m != nil {
		reason = m[1]
	}
	refusals.Lock()
	if refusals.reasons == nil {
		refusals.reasons = map[string]string{}
	}
	refusals.reasons[t.Name()] = reason
	refusals.Unlock()
	t.Skipf("refused: %v", err)
}

// Add adds what a run of RunAcross found out about the same engine.
func (r *Report) Add(across *Report) {
	maps.Copy(r.Refused, across.Refused)
	r.across += across.across
	r.failed = r.failed || across.failed
}

// note takes down what became of a clause, and counts it in ran.
func (r *Report) note(t *testing.T, id string, ran *int) {
	*ran++
	r.failed = r.failed || t.Failed()
	refusals.Lock()
	defer refusals.Unlock()
	for name, reason := range refusals.reasons {
		if name == t.Name() || strings.HasPrefix(name, t.Name()+"/") {
			r.Refused[id] = reason
			delete(refusals.reasons, name)
		}
	}
	if t.Skipped() && r.Refused[id] == "" {
		t.Errorf("%s was skipped, and not because the engine refused something", id)
	}
}

// Compare fails the test if the tables in a file say something else of the
// engine in that column; see docs/drivers.md. Without Add the engine is taken for one
// that does not leave its process. With HARK_UPDATE=1 in the
// environment it writes them instead. A run that failed or left clauses out
// says nothing and is not compared.
func (r *Report) Compare(t *testing.T, file, column string) {
	t.Helper()
	want, got := len(Clauses()), r.ran
	if r.across > 0 {
		want, got = want+len(AcrossClauses()), got+r.across
	}
	if r.failed || got < want {
		t.Logf("%s is not compared: %d of %d clauses ran, failed: %v", file, got, want, r.failed)
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	made, err := r.write(string(text), column)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	switch {
	case made == string(text):
	case os.Getenv("HARK_UPDATE") != "":
		if err := os.WriteFile(file, []byte(made), 0o666); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale (make drivers): for %s it is to have\n%s", file, column, difference(string(text), made))
	}
}

// write returns text with what the report says in a column of its tables.
func (r *Report) write(text, column string) (string, error) {
	before, rest, ok := strings.Cut(text, tablesBegin)
	old, after, ends := strings.Cut(rest, tablesEnd)
	if !ok || !ends {
		return "", fmt.Errorf("there is no %q followed by %q", tablesBegin, tablesEnd)
	}
	ts, err := parseTables(old)
	if err != nil {
		return "", err
	}
	ts.set(column, r)
	return before + tablesBegin + ts.String() + tablesEnd + after, nil
}

// difference returns the lines of b that a has not.
func difference(a, b string) string {
	has := map[string]bool{}
	for line := range strings.Lines(a) {
		has[line] = true
	}
	var d strings.Builder
	for line := range strings.Lines(b) {
		if !has[line] {
			d.WriteString(line)
		}
	}
	return d.String()
}
