package filter

import (
	"errors"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Filter is a compiled expression. It is safe for concurrent use.
type Filter struct {
	text   string
	opts   *settings
	env    *cel.Env
	ast    *ast.AST
	table  *fieldTable
	test   testFn
	vars   int
	interp []Fallback
}

// Compile compiles an expression. Mistakes in the expression are returned as an
// *Error, or as Errors if there are several.
func Compile(expr string, opts ...Option) (*Filter, error) {
	o, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	env, checked, err := parse(expr, o)
	if err != nil {
		return nil, err
	}
	if err := check(expr, checked, o); err != nil {
		return nil, err
	}
	f := &Filter{text: expr, opts: o, env: env, ast: checked, table: newFieldTable(o.sh)}
	k := newCompiler(f, f.table)
	if f.test, err = k.root(); err != nil {
		return nil, err
	}
	f.vars, f.interp = k.deepest, k.interp
	return f, nil
}

// MustCompile is Compile for expressions that are part of the program. It panics
// if the expression does not compile.
func MustCompile(expr string, opts ...Option) *Filter {
	f, err := Compile(expr, opts...)
	if err != nil {
		panic(err)
	}
	return f
}

// Match reports whether the message matches. It also returns false if the
// expression cannot be evaluated; Eval tells the two apart.
func (f *Filter) Match(m Envelope) bool {
	c := begin(m, f.table, f.opts, f.opts.sh, f.vars)
	v := f.test(c)
	c.end()
	return v == yes
}

// Eval reports whether the message matches, or why that cannot be determined:
// the error is one of the kinds ErrNoSuchField, ErrType, ErrMalformed, ErrRange,
// ErrLimit and ErrNoData, for errors.Is. It does not retain the message.
func (f *Filter) Eval(m Envelope) (bool, error) {
	c := begin(m, f.table, f.opts, f.opts.sh, f.vars)
	v := f.test(c)
	fail := c.fail
	c.end()
	if v == failed {
		if fail == nil {
			fail = errOverload
		}
		return false, fail
	}
	return v == yes, nil
}

// MatchesEncoded reports that a filter gives the same answer for a message whose
// Data is its JSON text as for one with the value, so an engine's messages need
// not be decoded first.
func (f *Filter) MatchesEncoded() bool { return true }

// String returns the expression.
func (f *Filter) String() string { return f.text }

// Fields returns the payload fields that the expression reads, such as
// "data.customer.id", in the order in which it names them.
func (f *Filter) Fields() []string {
	out := make([]string, len(f.table.paths))
	for i, p := range f.table.paths {
		out[i] = p.String()
	}
	return out
}

// errUnsupported reports what the compiler leaves to the interpreter.
type errUnsupported struct{ what string }

func (e errUnsupported) Error() string { return e.what + " runs on the interpreter" }

func unsupported(what string) error { return errUnsupported{what} }

func isUnsupported(err error) bool {
	var u errUnsupported
	return errors.As(err, &u)
}
