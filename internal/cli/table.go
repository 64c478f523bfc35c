package cli

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table is rows of text, printed in columns.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

// print prints the table. If there are no rows and the table has a head, it says
// so.
func (t *table) print(s Streams) error {
	if len(t.rows) == 0 {
		if len(t.head) > 0 {
			fmt.Fprintln(s.Err, "there are none")
		}
		return nil
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
	if len(t.head) > 0 {
		fmt.Fprintln(w, strings.ToUpper(strings.Join(t.head, "\t")))
	}
	for _, row := range t.rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// printable removes from foreign text what would affect a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// clipped cuts a text that would make a column too wide.
func clipped(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// age returns how long ago a time was, or "" if it is not known.
func age(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	d := max(time.Since(*t), 0)
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

// moment formats a time for people, or returns "" if it is not known.
func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	since := age(t)
	if since != "now" {
		since += " ago"
	}
	return t.Local().Format("2006-01-02 15:04:05") + " (" + since + ")"
}

// bytesText formats a size for people.
func bytesText(n uint64) string {
	value, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatUint(n, 10) + "B"
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + units[unit]
}

// countText formats a number, and 0 as "".
func countText(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func numberText(n uint64) string { return strconv.FormatUint(n, 10) }
