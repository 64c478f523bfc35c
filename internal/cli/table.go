package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/harkbus/hark/internal/names"
)

// table is rows of text, printed in columns.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

// print writes the table to out.
func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
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

// printable returns foreign text as it can be shown on a terminal: with spaces in
// place of control characters, and invisible ones, which may turn the text around,
// escaped.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsControl(r):
			b.WriteByte(' ')
		case names.IsInvisible(r):
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
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
