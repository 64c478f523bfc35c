package filter

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// checker rejects what CEL allows but a filter does not: expressions that could
// take more time than the limits grant, and those that have no meaning here.
type checker struct {
	text string
	ast  *ast.AST
	opts *settings
	errs Errors
}

// check examines every part of a checked expression.
func check(text string, a *ast.AST, o *settings) error {
	k := checker{text: text, ast: a, opts: o}
	k.walk(a.Expr(), 0, map[string]bool{})
	switch len(k.errs) {
	case 0:
		return nil
	case 1:
		return k.errs[0]
	}
	return k.errs
}

func (k *checker) fail(e ast.Expr, format string, args ...any) {
	k.errs = append(k.errs, errorAt(k.text, k.ast, e, format, args...))
}

func errorAt(text string, a *ast.AST, e ast.Expr, format string, args ...any) *Error {
	loc := a.SourceInfo().GetStartLocation(e.ID())
	return &Error{
		Expr: text, Line: max(loc.Line(), 1), Column: max(loc.Column(), 0) + 1,
		Message: fmt.Sprintf(format, args...),
	}
}

// walk visits e, which is nested in the given number of macros. bound holds the
// variables of those macros.
func (k *checker) walk(e ast.Expr, macros int, bound map[string]bool) {
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() == "headers" && !bound["headers"] {
			k.fail(e, `headers can only be looked up by name: headers["x"], has(headers.x), "x" in headers`)
		}
	case ast.SelectKind:
		s := e.AsSelect()
		if sh := structShape(k.ast.GetType(s.Operand().ID()).TypeName()); sh != nil {
			if f := sh.byName[s.FieldName()]; f != nil && f.sh.kind == shapeOpaque {
				k.fail(e, "field %q cannot be used in a filter: %s", f.name, f.sh.reason)
			}
		}
		if !k.isHeaders(s.Operand(), bound) {
			k.walk(s.Operand(), macros, bound)
		}
	case ast.CallKind:
		k.call(e, macros, bound)
	case ast.ListKind:
		for _, x := range e.AsList().Elements() {
			k.walk(x, macros, bound)
		}
	case ast.MapKind:
		for _, x := range e.AsMap().Entries() {
			k.walk(x.AsMapEntry().Key(), macros, bound)
			k.walk(x.AsMapEntry().Value(), macros, bound)
		}
	case ast.StructKind:
		k.fail(e, "a filter cannot make a %s", e.AsStruct().TypeName())
	case ast.ComprehensionKind:
		if macros++; macros == k.opts.macros+1 {
			k.fail(e, "more than %d macros nested in each other", k.opts.macros)
		}
		x := e.AsComprehension()
		k.walk(x.IterRange(), macros-1, bound)
		k.walk(x.AccuInit(), macros, bound)
		inner := map[string]bool{x.IterVar(): true, x.IterVar2(): true}
		for name := range bound {
			inner[name] = true
		}
		k.walk(x.LoopCondition(), macros, inner)
		k.walk(x.LoopStep(), macros, inner)
		k.walk(x.Result(), macros, inner)
	}
}

func (k *checker) isHeaders(e ast.Expr, bound map[string]bool) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == "headers" && !bound["headers"]
}

func (k *checker) call(e ast.Expr, macros int, bound map[string]bool) {
	c := e.AsCall()
	args := c.Args()
	if c.IsMemberFunction() {
		k.walk(c.Target(), macros, bound)
	}
	switch c.FunctionName() {
	case operators.Index:
		if k.isHeaders(args[0], bound) {
			args = args[1:]
		}
	case operators.In:
		if k.isHeaders(args[1], bound) {
			args = args[:1]
		}
	case "matches":
		pattern, ok := constString(args[len(args)-1])
		if !ok {
			k.fail(args[len(args)-1], "the pattern of matches must be a string constant")
			break
		}
		if _, err := compileRegexp(pattern, k.opts.regexp); err != nil {
			k.fail(args[len(args)-1], "%v", err)
		}
	}
	for _, a := range args {
		k.walk(a, macros, bound)
	}
}

func constString(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

func compileRegexp(pattern string, limit int) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(prog.Inst); n > limit {
		return nil, fmt.Errorf("the regular expression compiles to %d instructions, more than the %d allowed", n, limit)
	}
	return regexp.Compile(pattern)
}
