package broker

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is a mistake in a configuration.
type Problem struct {
	// Where is the file, or the flag or variable; "" for a Config that was
	// made in Go.
	Where        string
	Line, Column int    // in a file, from 1; 0 if it is nowhere in it
	Key          string // such as routes[0].where; may be empty
	Text         string // what is wrong; may have further lines

	err error // underlying error, if there is one
}

// Unwrap returns the underlying error, or nil if there is none.
func (p *Problem) Unwrap() error { return p.err }

// Error gives the place first, in a form that editors understand.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Where != "" {
		b.WriteString(p.Where)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Text
}

// Problems are all mistakes in a configuration, in the order of the file.
type Problems []*Problem

// Error shows each problem on one line, or on several where it needs them.
func (ps Problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap gives errors.As the individual problems.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// asError returns the problems in order, or nil if there are none.
func (ps Problems) asError() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return ps
}

// problem describes what is wrong with a key. If the key is in the file it adds the
// place: that of the key, or of what would contain it.
func (c *Config) problem(key, format string, args ...any) *Problem {
	p := &Problem{Where: c.file, Key: key, Text: fmt.Sprintf(format, args...)}
	if where := c.sources[key]; where != "" {
		p.Where, p.Key = where, ""
		return p
	}
	for k := key; k != ""; k = k[:max(strings.LastIndexAny(k, ".["), 0)] {
		if at, ok := c.places[k]; ok {
			p.Line, p.Column = at.line, at.column
			break
		}
	}
	return p
}
