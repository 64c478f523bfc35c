package tables

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// suite is a small one.
var suite = Suite{
	Clauses: []string{"PUB-1", "PUB-2", "PUB-3", "PUB-4", "PUB-5", "PUB-6", "PUB-7", "STO-1", "STO-2", "STO-3", "STO-4", "STO-5", "VAL-1", "VAL-2"},
	Across:  []string{"NTF-25", "VAL-3"},
}

func TestKinds(t *testing.T) {
	for id, want := range map[string]bool{"PUB-1": true, "VAL-20": true, "PUB-": false, "PUB-x": false, "XXX-1": false, "": false} {
		if got := HasKind(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}

func TestRangesOfClauses(t *testing.T) {
	all := suite.ids()
	for name, ids := range map[string][]string{
		"none": nil, "one": {"PUB-1"}, "two": {"STO-1", "STO-2"}, "all": all,
		"odd": {"PUB-1", "STO-1", "STO-2", "STO-3", "STO-5", "VAL-1", "VAL-2"},
	} {
		if got := suite.lengthen(suite.shorten(ids)); !slices.Equal(got, ids) {
			t.Errorf("%s: got %v, want %v, from %q", name, got, ids, suite.shorten(ids))
		}
	}
	if got, want := suite.shorten([]string{"PUB-1", "STO-1", "STO-2", "STO-3", "STO-5"}), "PUB-1, STO-1 to STO-3, STO-5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The tables can be parsed again, and a report replaces only its own column.
func TestTables(t *testing.T) {
	text := "before\n" + tablesBegin + tablesEnd + "after\n"
	write := func(e Entry, column string) {
		t.Helper()
		made, err := suite.Write(text, column, e)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := suite.Write(made, column, e); again != made || err != nil {
			t.Fatalf("written again (%v):\n%s\nat first:\n%s", err, again, made)
		}
		text = made
	}
	has := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("%q is missing from\n%s", line, text)
			}
		}
	}
	able := Entry{Info: driver.Info{Can: []driver.Capability{driver.Stored, "magic"}}}
	poor := Entry{
		Info:    driver.Info{Server: "1.2", Lease: time.Minute, MaxPayload: 2048},
		Refused: map[string]string{"STO-1": "a|b", "STO-2": "a|b", "STO-3": "a|b", "PUB-3": "c", "NTF-25": "c"},
		Across:  len(suite.Across),
	}
	write(able, "A")
	write(poor, "B")
	has("before", "after", "| Capability | A | B |", "| Server | this process | 1.2 |", "| stored topics | yes | – |", "| magic | yes | – |",
		"| Maximum message size | unlimited | 2 KiB |", "| Publishing (PUB) | 7 | 6 of 7 |", "| c | | PUB-3, NTF-25 |", "| a/b | | STO-1 to STO-3 |")
	poor.Refused = map[string]string{"PUB-3": "c"}
	able.Refused = map[string]string{"PUB-7": "c"}
	write(poor, "B")
	write(able, "A")
	has("| c | PUB-7 | PUB-3 |")
	if strings.Contains(text, "a/b") {
		t.Errorf("what is refused no more is there still:\n%s", text)
	}

	// A run of some clauses is compared only with what the tables say of those.
	some := Entry{Refused: map[string]string{"PUB-3": "c"}, Held: []string{"PUB-1", "PUB-3"}}
	if err := suite.Agrees(text, "B", some); err != nil {
		t.Error(err)
	}
	for column, id := range map[string]string{"B": "PUB-4", "A": "PUB-7", "C": ""} {
		other := Entry{Refused: map[string]string{"PUB-4": "d"}, Held: []string{id}}
		if err := suite.Agrees(text, column, other); err == nil {
			t.Errorf("column %s is taken for that of an engine that differs in %s", column, id)
		}
	}

	for _, wrong := range []string{"", tablesBegin, tablesBegin + "| a | b |\n" + tablesEnd} {
		if _, err := suite.Write(wrong, "A", able); err == nil {
			t.Errorf("%q: got no error", wrong)
		}
	}
}
