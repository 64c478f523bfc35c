package drivertest

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest/internal/tables"
)

// Report says what a run of the suite found out about an engine.
type Report struct {
	// Info is how the engine describes itself.
	Info driver.Info
	// Refused are the clauses that were skipped, by their IDs, and what the
	// engine does not have for them.
	Refused map[string]string

	ran, across int      // numbers of clauses
	held        []string // clauses that ran and did not fail
	failed      bool
}

// refusals holds the reasons why tests were skipped, by test name, until their
// clause takes note of them.
var refusals struct {
	sync.Mutex
	reasons map[string]string
}

// refusedBy matches what follows the name of the engine and its server in a
// refusal.
var refusedBy = regexp.MustCompile(`engine [^:]*: (.*)`)

// refused skips a test because the engine refuses what the test needs.
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
	r.held = append(r.held, across.held...)
	r.failed = r.failed || across.failed
}

// note records the result of a clause and counts the clause in ran.
func (r *Report) note(t *testing.T, id string, ran *int) {
	*ran++
	r.failed = r.failed || t.Failed()
	if !t.Failed() {
		r.held = append(r.held, id)
	}
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

// comparing is held while a report is compared, because it may change a part of the file.
var comparing sync.Mutex

// Compare fails the test if the tables in a file say something else of the
// engine in that column; see docs/drivers.md. Without Add the engine is taken for one
// that does not leave its process. With HARK_UPDATE=1 in the
// environment it writes them instead. Of a run that failed or left clauses out only
// those that ran are compared, and nothing is written.
func (r *Report) Compare(t *testing.T, file, column string) {
	t.Helper()
	comparing.Lock()
	defer comparing.Unlock()
	want, got := len(Clauses()), r.ran
	if r.across > 0 {
		want, got = want+len(AcrossClauses()), got+r.across
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	suite, entry := suite(), tables.Entry{Info: r.Info, Refused: r.Refused, Across: r.across, Held: r.held}
	if r.failed || got < want {
		t.Logf("%s is compared for %d of %d clauses: failed: %v", file, len(r.held), want, r.failed)
		if err := suite.Agrees(string(text), column, entry); err != nil {
			t.Errorf("%s is stale (make drivers): %v", file, err)
		}
		return
	}
	made, err := suite.Write(string(text), column, entry)
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

// suite returns the IDs of all clauses.
func suite() (s tables.Suite) {
	for _, c := range Clauses() {
		s.Clauses = append(s.Clauses, c.ID)
	}
	for _, c := range AcrossClauses() {
		s.Across = append(s.Across, c.ID)
	}
	return s
}

// difference returns the lines of b that are not in a.
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
