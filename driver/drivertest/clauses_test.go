package drivertest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/driver/drivertest/internal/tables"
)

// TestClausesAreDocumented checks that docs/semantics.md and the tests have the
// same set of clauses: those of the suite, those marked "(across processes)",
// those marked "(in process)", which the root package tests, and those marked
// "(in the broker)", which package broker tests.
func TestClausesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	var everywhere, inProcess, inBroker []string
	for _, m := range regexp.MustCompile(`(?m)^- \*\*([A-Z]{3}-\d+)\*\* (\*\(in process\)\*|\*\(in the broker\)\*)?`).FindAllStringSubmatch(string(text), -1) {
		switch m[2] {
		case "":
			everywhere = append(everywhere, m[1])
		case "*(in process)*":
			inProcess = append(inProcess, m[1])
		default:
			inBroker = append(inBroker, m[1])
		}
	}
	var tested []string
	for _, c := range drivertest.Clauses() {
		tested = append(tested, c.ID)
	}
	for _, c := range drivertest.AcrossClauses() {
		tested = append(tested, c.ID)
	}
	compare(t, "docs/semantics.md", everywhere, "Clauses()", tested)
	for _, id := range tested {
		if !tables.HasKind(id) {
			t.Errorf("%s is of no kind that the tables have", id)
		}
	}

	compare(t, "docs/semantics.md (in process)", inProcess, "tests of the root package", testedIn(t, "../.."))
	compare(t, "docs/semantics.md (in the broker)", inBroker, "tests of package broker", testedIn(t, "../../broker"))
}

// testedIn returns the clauses for which the tests of a package are named.
func testedIn(t *testing.T, folder string) (named []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(source)
	}
	for _, m := range regexp.MustCompile(`(?m)^func Test([A-Z]{3})(\d+)[A-Z]\w*\(t \*testing\.T\)`).FindAllStringSubmatch(all.String(), -1) {
		named = append(named, m[1]+"-"+m[2])
	}
	return named
}

func compare(t *testing.T, aName string, a []string, bName string, b []string) {
	t.Helper()
	for _, list := range [][]string{a, b} {
		slices.Sort(list)
		for i := 1; i < len(list); i++ {
			if list[i] == list[i-1] {
				t.Errorf("%s is there twice", list[i])
			}
		}
	}
	for _, id := range a {
		if !slices.Contains(b, id) {
			t.Errorf("%s is in %s and not in %s", id, aName, bName)
		}
	}
	for _, id := range b {
		if !slices.Contains(a, id) {
			t.Errorf("%s is in %s and not in %s", id, bName, aName)
		}
	}
}
