package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with an expression, and where.
type Error struct {
	Expr    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Message string // one line
	Hint    string // what to write instead; may be empty
}

// Error shows the message and the line of the expression with a caret under the
// place, for a terminal or a log.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "filter: %d:%d: %s", e.Line, e.Column, e.Message)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	lines := strings.Split(e.Expr, "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return b.String()
	}
	line := strings.TrimRight(lines[e.Line-1], "\r")
	const margin = "\n    "
	b.WriteString(margin + line + margin)
	// Tabs remain tabs, so the caret is under the right place however wide they
	// are.
	n := 1
	for _, r := range line {
		if n >= e.Column {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
		n++
	}
	b.WriteByte('^')
	return b.String()
}

// Errors are several errors in one expression, in the order of their places.
type Errors []*Error

// Error shows every error.
func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i, one := range e {
		parts[i] = one.Error()
	}
	return strings.Join(parts, "\n")
}

// Unwrap gives errors.As the single errors.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// nearest returns the candidate that a misspelt name was most likely meant to
// be, or "" if none is close.
func nearest(name string, candidates []string) string {
	best, bestDistance := "", 1+max(1, utf8.RuneCountInString(name)/3)
	for _, c := range candidates {
		if strings.EqualFold(c, name) {
			return c
		}
		if d := distance(name, c, bestDistance); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance returns the number of insertions, deletions, replacements and swaps
// of neighbors that lead from a to b. If the number is at least limit, the
// result may be any number that is.
func distance(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= limit || len(y)-len(x) >= limit {
		return limit
	}
	before, prev, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range x {
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(y)]
}
