// Package tables reads and writes the tables of docs/drivers.md, which say what each
// engine can do.
package tables

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/harkbus/hark/driver"
)

// The text between these lines of a document is generated from reports. It is
// parsed again to preserve the columns of the other engines.
const (
	tablesBegin = "<!-- From here on it is written by make drivers. -->\n"
	tablesEnd   = "<!-- Up to here it is written by make drivers. -->\n"
)

var capabilities = []driver.Capability{
	driver.Stored, driver.MaxBytes, driver.Dedup, driver.Delay, driver.EphemeralDelay, driver.StoredPatterns, driver.KeyOrder,
	driver.Backpressure, driver.HandBack, driver.Deadlocks, driver.Latches, driver.Strict, driver.Relaxed, driver.Memory,
}

// features are the parts that an engine may refuse as a whole, in the words of the
// refusal.
var features = []string{"requests", "channels", "notifications", "values"}

const (
	rowServer  = "Server"
	rowAcross  = "Clauses that hold across processes"
	rowLease   = "Time to handle a message"
	rowPayload = "Maximum message size"
	yes, no    = "yes", "–"
)

// Entry is what a run of the suite found out about an engine.
type Entry struct {
	Info    driver.Info
	Refused map[string]string // what the engine does not have for a clause, by ID
	Across  int               // how many clauses about several processes ran
	Held    []string          // the clauses that ran and did not fail
}

// Agrees compares a column of the tables in a text with the clauses that held.
func (s Suite) Agrees(text, column string, e Entry) error {
	_, rest, _ := strings.Cut(text, tablesBegin)
	made, _, ok := strings.Cut(rest, tablesEnd)
	if !ok {
		return fmt.Errorf("there is no %q followed by %q", tablesBegin, tablesEnd)
	}
	ts, err := s.parse(made)
	if err != nil {
		return err
	}
	if !slices.Contains(ts.columns, column) {
		return fmt.Errorf("there is no column %s", column)
	}
	says := map[string]string{}
	for reason, cells := range ts.refused {
		for _, id := range s.lengthen(cells[column]) {
			says[id] = reason
		}
	}
	for _, id := range e.Held {
		if got, want := asCell(e.Refused[id]), says[id]; got != want {
			return fmt.Errorf("for %s, %s is refused for lack of %q, and there of %q", column, id, got, want)
		}
	}
	return nil
}

// Write returns text with the entry in a column of its tables.
func (s Suite) Write(text, column string, e Entry) (string, error) {
	before, rest, ok := strings.Cut(text, tablesBegin)
	old, after, ends := strings.Cut(rest, tablesEnd)
	if !ok || !ends {
		return "", fmt.Errorf("there is no %q followed by %q", tablesBegin, tablesEnd)
	}
	ts, err := s.parse(old)
	if err != nil {
		return "", err
	}
	ts.set(column, e)
	return before + tablesBegin + ts.String() + tablesEnd + after, nil
}

// tables hold what is known of the engines, in a column for each.
type tables struct {
	suite   Suite
	columns []string
	can     table
	hold    table // only rowAcross is parsed
	refused table // what an engine lacks, and the clauses that need it
}

// table maps a row and a column to a cell.
type table map[string]map[string]string

func (t table) put(row, column, cell string) {
	if t[row] == nil {
		t[row] = map[string]string{}
	}
	t[row][column] = cell
}

// The headings of the tables, by which they are told apart.
const (
	headCan     = "Capability"
	headHold    = "Clauses that hold"
	headRefused = "Refused for lack of"
)

func (s Suite) parse(text string) (*tables, error) {
	ts := &tables{suite: s, can: table{}, hold: table{}, refused: table{}}
	var current table
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch head := cells[0]; {
		case head == headCan:
			ts.columns, current = cells[1:], ts.can
		case head == headHold:
			current = ts.hold
		case head == headRefused:
			current = ts.refused
		case strings.HasPrefix(head, "---"):
		case current == nil || len(cells) != 1+len(ts.columns):
			return nil, fmt.Errorf("a line that is no row of a table: %s", line)
		default:
			for i, cell := range cells[1:] {
				current.put(head, ts.columns[i], cell)
			}
		}
	}
	return ts, nil
}

// set replaces the column of one engine.
func (ts *tables) set(column string, e Entry) {
	if !slices.Contains(ts.columns, column) {
		ts.columns = append(ts.columns, column)
	}
	for _, t := range []table{ts.can, ts.hold, ts.refused} {
		for row := range t {
			delete(t[row], column)
		}
	}
	ts.can.put(rowServer, column, cmp.Or(e.Info.Server, "this process"))
	across := no
	if e.Across > 0 {
		left := e.Across
		for _, id := range ts.suite.Across {
			if _, ok := e.Refused[id]; ok {
				left--
			}
		}
		across = share(left, e.Across)
	}
	ts.hold.put(rowAcross, column, across)
	lease, payload := "unlimited", "unlimited"
	if e.Info.Lease > 0 {
		lease = e.Info.Lease.String() + ", extended automatically"
	}
	if e.Info.MaxPayload > 0 {
		payload = strconv.Itoa(e.Info.MaxPayload>>10) + " KiB"
	}
	ts.can.put(rowLease, column, lease)
	ts.can.put(rowPayload, column, payload)
	for _, c := range slices.Concat(capabilities, e.Info.Can) {
		cell := no
		if e.Info.Has(c) {
			cell = yes
		}
		ts.can.put(string(c), column, cell)
	}
	reasons := map[string][]string{}
	for _, id := range slices.SortedFunc(maps.Keys(e.Refused), compareClauses) {
		reason := asCell(e.Refused[id])
		reasons[reason] = append(reasons[reason], id)
	}
	for reason, ids := range reasons {
		ts.refused.put(reason, column, ts.suite.shorten(ids))
	}
}

// asCell escapes a text for use in a table.
func asCell(text string) string { return strings.ReplaceAll(text, "|", "/") }

// share formats some out of n.
func share(some, n int) string {
	switch some {
	case n:
		return strconv.Itoa(n)
	case 0:
		return no
	}
	return fmt.Sprintf("%d of %d", some, n)
}

// String returns the tables in Markdown.
func (ts *tables) String() string {
	var b strings.Builder
	ts.head(&b, headCan)
	for _, feature := range features {
		for _, column := range ts.columns {
			ts.can.put(feature, column, yes)
			for reason, clauses := range ts.refused { // reason is "channels", or "channels before server 2.11"
				if (reason == feature || strings.HasPrefix(reason, feature+" ")) && clauses[column] != "" {
					ts.can.put(feature, column, no)
				}
			}
		}
	}
	rows := slices.Concat([]string{rowServer, rowPayload, rowLease}, features)
	for _, c := range capabilities {
		rows = append(rows, string(c))
	}
	for _, row := range slices.Sorted(maps.Keys(ts.can)) {
		if !slices.Contains(rows, row) && slices.Contains(slices.Collect(maps.Values(ts.can[row])), yes) {
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		ts.row(&b, row, func(column string) string { return cmp.Or(ts.can[row][column], no) })
	}

	ts.head(&b, headHold)
	refused := map[string]map[string]bool{} // by column and clause
	for _, column := range ts.columns {
		refused[column] = map[string]bool{}
		for row := range ts.refused {
			for _, id := range ts.suite.lengthen(ts.refused[row][column]) {
				refused[column][id] = true
			}
		}
	}
	for _, k := range kinds {
		ts.row(&b, k.title+" ("+k.prefix+")", func(column string) string {
			n, left := 0, 0
			for _, id := range ts.suite.Clauses {
				if strings.HasPrefix(id, k.prefix) {
					n++
					if !refused[column][id] {
						left++
					}
				}
			}
			return share(left, n)
		})
	}
	ts.row(&b, rowAcross, func(column string) string { return cmp.Or(ts.hold[rowAcross][column], no) })

	ts.head(&b, headRefused)
	first := func(row string) string { // the first clause that misses it
		var ids []string
		for _, cell := range ts.refused[row] {
			ids = append(ids, ts.suite.lengthen(cell)[:1]...)
		}
		return slices.MinFunc(ids, compareClauses)
	}
	for row, cells := range ts.refused {
		maps.DeleteFunc(cells, func(_, cell string) bool { return cell == "" })
		if len(cells) == 0 {
			delete(ts.refused, row)
		}
	}
	for _, row := range slices.SortedFunc(maps.Keys(ts.refused), func(a, b string) int {
		return cmp.Or(compareClauses(first(a), first(b)), cmp.Compare(a, b))
	}) {
		ts.row(&b, row, func(column string) string { return ts.refused[row][column] })
	}
	b.WriteString("\n")
	return b.String()
}

func (ts *tables) head(b *strings.Builder, title string) {
	b.WriteString("\n")
	ts.row(b, title, func(column string) string { return column })
	b.WriteString(strings.Repeat("| --- ", 1+len(ts.columns)) + "|\n")
}

func (ts *tables) row(b *strings.Builder, title string, cell func(column string) string) {
	b.WriteString("| " + title + " |")
	for _, column := range ts.columns {
		if c := cell(column); c != "" {
			b.WriteString(" " + c + " |")
		} else {
			b.WriteString(" |")
		}
	}
	b.WriteString("\n")
}
