package broker

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
	"github.com/harkbus/hark/internal/timespan"
)

// param is a parameter of an endpoint: the one place that gives its name, where it
// stands, and what values it may have. It has been validated when a handler is
// called.
type param struct {
	name   string
	in     string // path, query or header
	header string // the name of a header in the canonical form
	doc    string
	def    string // default value; empty for none
	must   bool   // it is required
	schema schema
	check  func(text string) error
}

// inPath returns the parameter as a part of the path.
func (p param) inPath() param { p.in, p.must = "path", true; return p }

// inHeader returns the parameter as a header.
func (p param) inHeader() param {
	p.in, p.header = "header", http.CanonicalHeaderKey(p.name)
	return p
}

// required returns the parameter as a required one.
func (p param) required() param { p.must, p.def = true, ""; return p }

// textParam accepts any text.
func textParam(name, doc string) param {
	return param{name: name, in: "query", doc: doc, schema: schema{"type": "string"}, check: func(string) error { return nil }}
}

// topicParam accepts the name of a topic, or of something else with names like
// that.
func topicParam(name, doc string) param {
	p := textParam(name, doc)
	p.check = checkTopic
	return p
}

// checkTopic refuses what is not a name of a topic for programs.
func checkTopic(name string) error {
	if err := names.Check(name); err != nil {
		return fmt.Errorf("%s", nameFault(err))
	}
	if isReply(name) {
		return fmt.Errorf("%q: names that begin with _INBOX are reserved for replies", name)
	}
	return nil
}

// patternParam accepts a pattern, or a name.
func patternParam(name, doc string) param {
	p := textParam(name, doc)
	p.check = func(s string) error {
		if err := names.CheckPattern(s); err != nil {
			return fmt.Errorf("%s", nameFault(err))
		}
		if isReply(s) {
			return fmt.Errorf("%q: names that begin with _INBOX are reserved for replies", s)
		}
		return nil
	}
	return p
}

// maxFilter is how long a filter in a request may be, in bytes.
const maxFilter = 8 << 10

// filterParam accepts a filter in CEL.
func filterParam(name, doc string) param {
	p := textParam(name, doc+" (docs/filters.md)")
	p.check = func(s string) error { _, err := compileFilter(s); return err }
	return p
}

// compileFilter compiles a filter from a request; "" gives nil.
func compileFilter(text string) (*filter.Filter, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxFilter {
		return nil, fmt.Errorf("a filter may have at most %d bytes", maxFilter)
	}
	return filter.Compile(text)
}

// numberParam accepts a whole number.
func numberParam(name string, least, most uint64, doc string) param {
	p := textParam(name, doc)
	p.schema = schema{"type": "integer", "minimum": least, "maximum": most}
	p.check = func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("got %q, want a whole number from %d to %d", s, least, most)
		}
		return nil
	}
	return p
}

// flagParam accepts true or false.
func flagParam(name, doc string) param {
	p := textParam(name, doc)
	p.schema, p.def = schema{"type": "boolean"}, "false"
	p.check = func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("got %q, want true or false", s)
		}
		return nil
	}
	return p
}

// choiceParam accepts one of some words; the default is the first.
func choiceParam(name, doc string, choices ...string) param {
	p := textParam(name, doc)
	p.schema, p.def = schema{"type": "string", "enum": choices}, choices[0]
	p.check = func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("got %q, want %s%s", s, strings.Join(choices, " or "), didYouMean(s, choices))
		}
		return nil
	}
	return p
}

// durationParam accepts a duration such as 90s or 7d.
func durationParam(name, doc string) param {
	p := textParam(name, doc+", such as 90s, 12h or 7d")
	p.check = func(s string) error { _, err := timespan.Parse(s); return err }
	return p
}

// timeParam accepts a point in time.
func timeParam(name, doc string) param {
	p := textParam(name, doc)
	p.schema = schema{"type": "string", "format": "date-time"}
	p.check = func(s string) error {
		if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
			return fmt.Errorf("got %q, want a time such as 2026-01-02T15:04:05Z", s)
		}
		return nil
	}
	return p
}

const (
	// pageSize is how many entries a page has by default, and maxPageSize how many it
	// may have.
	pageSize    = 100
	maxPageSize = 1000
)

// pageParams are the parameters of a list with pages.
func pageParams() []param {
	limit := numberParam("limit", 1, maxPageSize, "the maximum number of entries")
	limit.def = strconv.Itoa(pageSize)
	return []param{limit, textParam("after", "continue after this entry: the `next` of the previous page")}
}

// arguments are the values of the parameters that were given or have a default.
type arguments []argument

type argument struct{ name, value string }

// get returns the value of a parameter, and whether there is one.
func (a arguments) get(name string) (string, bool) {
	for i := range a {
		if a[i].name == name {
			return a[i].value, true
		}
	}
	return "", false
}

// read parses the parameters of a request, appends them to args, and refuses invalid
// ones. last is that of endpointHandler.
func (e *endpoint) read(r *http.Request, last string, args arguments) (arguments, error) {
	var query url.Values
	if r.URL.RawQuery != "" {
		var err error
		if query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			return nil, refused(http.StatusBadRequest, "the query cannot be read: %s", err)
		}
	}
	for i := range e.params {
		p := &e.params[i]
		value, given := "", false
		switch p.in {
		case "path":
			value, given = last, true
			if last == "" {
				value = r.PathValue(p.name)
			}
		case "header":
			value = headerValue(r.Header, p.header)
			given = value != ""
		default:
			if values := query[p.name]; len(values) > 0 {
				if len(values) > 1 {
					return nil, refused(http.StatusBadRequest, "%s is given %d times; give it once", p.name, len(values))
				}
				value, given = values[0], true
			}
		}
		switch {
		case given:
			if err := p.check(value); err != nil {
				return nil, refused(http.StatusBadRequest, "%s: %s", p.name, err)
			}
			args = append(args, argument{p.name, value})
		case p.must:
			return nil, refused(http.StatusBadRequest, "%s is missing: %s", p.name, p.doc)
		case p.def != "":
			args = append(args, argument{p.name, p.def})
		}
	}
	for name := range query {
		if !slices.ContainsFunc(e.params, func(p param) bool { return p.in == "query" && p.name == name }) {
			return nil, e.unknownParam(name)
		}
	}
	return args, nil
}

// unknownParam refuses an unknown parameter.
func (e *endpoint) unknownParam(name string) error {
	var known []string
	for _, p := range e.params {
		if p.in == "query" {
			known = append(known, p.name)
		}
	}
	hint := strings.TrimPrefix(didYouMean(name, known), "; ")
	if hint == "" && len(known) > 0 {
		hint = "there are " + strings.Join(known, ", ")
	}
	return refused(http.StatusBadRequest, "unknown parameter %q", name).but("%s", hint)
}

// text returns the value of a parameter, or "" if it was left out.
func (a arguments) text(name string) string {
	value, _ := a.get(name)
	return value
}

// flag returns the value of a boolean parameter.
func (a arguments) flag(name string) bool { return a.text(name) == "true" }

// number returns the value of a numeric parameter, or 0 if it was left out.
func (a arguments) number(name string) uint64 {
	n, _ := strconv.ParseUint(a.text(name), 10, 64) // it has been validated
	return n
}

// duration returns the value of a duration parameter, or 0 if it was left out.
func (a arguments) duration(name string) time.Duration {
	d, _ := timespan.Parse(a.text(name)) // it has been validated
	return d
}

// moment returns the value of a time parameter, or the zero time if it was left
// out.
func (a arguments) moment(name string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, a.text(name)) // it has been validated
	return t
}

// filter returns the value of a filter parameter, or nil if it was left out.
func (a arguments) filter(name string) *filter.Filter {
	f, _ := compileFilter(a.text(name)) // it has been validated
	return f
}
