package filter

import (
	"fmt"
	"reflect"
)

// Option changes how an expression is compiled.
type Option func(*settings) error

// Limits that hold unless an option says otherwise.
const (
	DefaultMaxLength       = 4096    // bytes of expression text
	DefaultMaxNesting      = 64      // levels of the parsed expression
	DefaultMaxRegexp       = 1000    // instructions of a compiled regular expression
	DefaultMaxPayloadDepth = 1000    // objects and arrays inside each other
	DefaultMaxMacroNesting = 2       // exists, all and their like inside each other
	DefaultMaxSteps        = 100_000 // elements that the macros of one evaluation visit
)

// settings is the result of applying the options. It does not change after
// compilation.
type settings struct {
	sh           *shape
	length       int
	nesting      int
	regexp       int
	payloadDepth int
	macros       int
	steps        int
	exact        bool
}

func newSettings(opts []Option) (*settings, error) {
	s := &settings{
		length:       DefaultMaxLength,
		nesting:      DefaultMaxNesting,
		regexp:       DefaultMaxRegexp,
		payloadDepth: DefaultMaxPayloadDepth,
		macros:       DefaultMaxMacroNesting,
		steps:        DefaultMaxSteps,
	}
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// For declares that data is a T, which must be a struct or a pointer to one. Its
// fields have their JSON names, so that a misspelt field is an error when the
// expression is compiled, and the type of the Go field: an int field is a CEL
// int, a time.Time a timestamp. A field that is missing or behind a nil pointer
// reads as its zero value; has(data.f) is then false. It is also false for a
// field that is zero, unless the field is a pointer.
//
// The filter accepts a *T, a T, and the JSON text of one.
func For[T any]() Option { return ForType(reflect.TypeFor[T]()) }

// ForType is like For, for a type known only at run time.
func ForType(t reflect.Type) Option {
	return func(s *settings) error {
		if t == nil {
			return fmt.Errorf("filter: the type of data is nil")
		}
		sh := shapeOf(t)
		switch sh.kind {
		case shapeStruct:
			s.sh = sh
		case shapeOpaque:
			return fmt.Errorf("filter: data cannot be a %v: %s", t, sh.reason)
		default:
			return fmt.Errorf("filter: data cannot be declared as %v: only a struct has fields to check", t)
		}
		return nil
	}
}

// Exact makes a filter read the whole payload, as encoding/json does: damage
// anywhere in it is an error, even after the last field that the expression
// needs, and of several members with the same name the last counts. Without it
// the first one counts, and the text is read only until every field is found,
// which is faster the earlier they come.
func Exact() Option {
	return func(s *settings) error { s.exact = true; return nil }
}

// MaxLength limits the text of an expression, in bytes.
func MaxLength(n int) Option {
	return limit("MaxLength", n, func(s *settings) { s.length = n })
}

// MaxNesting limits how deep operators, calls and parentheses may nest.
func MaxNesting(n int) Option {
	return limit("MaxNesting", n, func(s *settings) { s.nesting = n })
}

// MaxRegexp limits a regular expression to n instructions of its compiled form.
// Matching takes time in proportion to that and to the length of the text.
func MaxRegexp(n int) Option {
	return limit("MaxRegexp", n, func(s *settings) { s.regexp = n })
}

// MaxPayloadDepth limits how deep objects and arrays of a payload may nest, as
// far as it is read. A deeper payload is an evaluation error.
func MaxPayloadDepth(n int) Option {
	return limit("MaxPayloadDepth", n, func(s *settings) { s.payloadDepth = n })
}

// MaxMacroNesting limits how deep the macros exists, all, exists_one, filter and
// map may nest. Each level may multiply the time of an evaluation by the length
// of the list it visits.
func MaxMacroNesting(n int) Option {
	return limit("MaxMacroNesting", n, func(s *settings) { s.macros = n })
}

// MaxSteps limits how many list elements and map keys the macros of one
// evaluation may visit. An evaluation that needs more fails with ErrLimit.
func MaxSteps(n int) Option {
	return limit("MaxSteps", n, func(s *settings) { s.steps = n })
}

func limit(name string, n int, set func(*settings)) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("filter: %s(%d): a limit must be positive", name, n)
		}
		set(s)
		return nil
	}
}
