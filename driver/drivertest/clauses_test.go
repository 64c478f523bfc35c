package drivertest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestClausesAreDocumented holds docs/semantics.md and the tests to the same
// set of clauses: those of the suite, with those marked "(across processes)",
// and those marked "(in process)", which are tests of the root package.
func TestClausesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	var everywhere, inProcess []string
	for _, m := range regexp.MustCompile(`(?m)^- \*\*([A-Z]{3}-\d+)\*\* (\*\(in process\)\*)?`).FindAllStringSubmatch(string(text), -1) {
		if m[2] == "" {
			everywhere = append(everywhere, m[1])
		} else {
			inProcess = append(inProcess, m[1])
		}
	}
	var tested []string
	for _, c := range Clauses() {
		tested = append(tested, c.ID)
	}
	for _, c := range AcrossClauses() {
		tested = append(tested, c.ID)
	}
	compare(t, "docs/semantics.md", everywhere, "Clauses()", tested)

	files, err := filepath.Glob("../../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var root strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		root.Write(source)
	}
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^func Test([A-Z]{3})(\d+)[A-Z]\w*\(t \*testing\.T\)`).FindAllStringSubmatch(root.String(), -1) {
		named = append(named, m[1]+"-"+m[2])
	}
	compare(t, "docs/semantics.md (in process)", inProcess, "tests of the root package", named)
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
