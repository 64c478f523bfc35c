package filter

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// An expression compiles to closures: an evalFn where its value is needed, a
// testFn where only its truth is.
type (
	evalFn func(*evaluation) value
	testFn func(*evaluation) verdict
)

// compiler compiles one checked expression to closures over a field table.
type compiler struct {
	f       *Filter
	ast     *ast.AST
	table   *fieldTable
	scope   []string // variables of the macros that enclose the place being compiled
	deepest int
	interp  []Fallback
	names   map[string]*evalError
}

func newCompiler(f *Filter, t *fieldTable) *compiler {
	return &compiler{f: f, ast: f.ast, table: t, names: make(map[string]*evalError)}
}

func (k *compiler) root() (testFn, error) { return k.test(k.ast.Expr()) }

func (k *compiler) typeOf(e ast.Expr) *types.Type { return k.ast.GetType(e.ID()) }

func (k *compiler) missing(name string) *evalError {
	e := k.names[name]
	if e == nil {
		e = &evalError{ErrNoSuchField, name}
		k.names[name] = e
	}
	return e
}

// overload is the error of an operation on a type for which it is not defined.
func (k *compiler) overload(what string) *evalError {
	e := k.names["op "+what]
	if e == nil {
		e = &evalError{ErrType, what}
		k.names["op "+what] = e
	}
	return e
}

// test compiles an expression of which only the truth is needed.
func (k *compiler) test(e ast.Expr) (testFn, error) {
	before := len(k.interp)
	t, err := k.testOf(e)
	if isUnsupported(err) && !k.bound(e) {
		k.interp = k.interp[:before]
		return k.interpretTest(e, err)
	}
	return t, err
}

func (k *compiler) testOf(e ast.Expr) (testFn, error) {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			v := verdictOf(bool(b))
			return func(*evaluation) verdict { return v }, nil
		}
	case ast.SelectKind:
		if e.AsSelect().IsTestOnly() {
			return k.has(e)
		}
	case ast.ComprehensionKind:
		return k.macro(e)
	case ast.CallKind:
		if t, err := k.testCall(e); t != nil || err != nil {
			return t, err
		}
	}
	v, err := k.value(e)
	if err != nil {
		return nil, err
	}
	return testOfValue(v), nil
}

// testOfValue tests a value for truth. A value that is not a bool is an error.
func testOfValue(v evalFn) testFn {
	return func(c *evaluation) verdict {
		x := v(c)
		if x.k == kBool {
			return verdictOf(x.bool())
		}
		return c.failWith(&x)
	}
}

// testCall compiles a call whose result is a truth value. It returns nil for
// other calls.
func (k *compiler) testCall(e ast.Expr) (testFn, error) {
	c := e.AsCall()
	args := c.Args()
	switch c.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		return k.logic(e, c.FunctionName())
	case operators.LogicalNot:
		t, err := k.test(args[0])
		if err != nil {
			return nil, err
		}
		return func(c *evaluation) verdict {
			switch t(c) {
			case yes:
				return no
			case no:
				return yes
			}
			return failed
		}, nil
	case operators.Conditional:
		cond, err := k.test(args[0])
		if err != nil {
			return nil, err
		}
		a, err := k.test(args[1])
		if err != nil {
			return nil, err
		}
		b, err := k.test(args[2])
		if err != nil {
			return nil, err
		}
		return func(c *evaluation) verdict {
			switch cond(c) {
			case yes:
				return a(c)
			case no:
				return b(c)
			}
			return failed
		}, nil
	case operators.Equals, operators.NotEquals,
		operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return k.comparison(c.FunctionName(), args[0], args[1])
	case operators.In:
		return k.in(args[0], args[1])
	case "startsWith", "endsWith", "contains":
		return k.affix(c.FunctionName(), c.Target(), args[0])
	case "matches":
		if c.IsMemberFunction() {
			return k.matches(c.Target(), args[0])
		}
		return k.matches(args[0], args[1])
	}
	return nil, nil
}

// logic compiles && and ||. A term that decides the outcome wins over terms
// that fail, wherever it stands.
func (k *compiler) logic(e ast.Expr, op string) (testFn, error) {
	var terms []testFn
	for _, x := range flatten(e, op, nil) {
		t, err := k.test(x)
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	decides, neutral := no, yes
	if op == operators.LogicalOr {
		decides, neutral = yes, no
	}
	if len(terms) == 2 {
		a, b := terms[0], terms[1]
		return func(c *evaluation) verdict {
			x := a(c)
			if x == decides {
				return decides
			}
			fail := c.fail
			y := b(c)
			if y == decides {
				return decides
			}
			if x == failed {
				c.fail = fail
				return failed
			}
			return y
		}, nil
	}
	return func(c *evaluation) verdict {
		result := neutral
		var fail *evalError
		for _, t := range terms {
			switch t(c) {
			case decides:
				return decides
			case failed:
				if result != failed {
					result, fail = failed, c.fail
				}
			}
		}
		if result == failed {
			c.fail = fail
		}
		return result
	}, nil
}

// flatten lists the terms of nested calls of one operator, in order.
func flatten(e ast.Expr, op string, into []ast.Expr) []ast.Expr {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == op {
		for _, a := range e.AsCall().Args() {
			into = flatten(a, op, into)
		}
		return into
	}
	return append(into, e)
}

// value compiles an expression of which the value is needed.
func (k *compiler) value(e ast.Expr) (evalFn, error) {
	before := len(k.interp)
	v, err := k.valueOf(e)
	if isUnsupported(err) && !k.bound(e) && k.scalar(e) {
		k.interp = k.interp[:before]
		return k.interpretValue(e, err)
	}
	return v, err
}

// scalar reports whether the interpreter can hand over the values of e's type.
func (k *compiler) scalar(e ast.Expr) bool {
	switch k.typeOf(e).Kind() {
	case types.BoolKind, types.IntKind, types.UintKind, types.DoubleKind, types.StringKind,
		types.BytesKind, types.TimestampKind, types.DurationKind:
		return true
	}
	return false
}

func (k *compiler) valueOf(e ast.Expr) (evalFn, error) {
	if v, ok := k.constant(e); ok {
		return func(*evaluation) value { return v }, nil
	}
	if names, ok := k.path(e); ok {
		return k.field(names), nil
	}
	switch e.Kind() {
	case ast.IdentKind:
		return k.ident(e)
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return k.testValue(e)
		}
		if k.headers(s.Operand()) {
			return k.header(s.FieldName()), nil
		}
		return k.selectMember(s.Operand(), s.FieldName())
	case ast.ComprehensionKind:
		return k.testValue(e)
	case ast.CallKind:
		return k.call(e)
	case ast.ListKind:
		return nil, unsupported("a list that is not constant")
	case ast.MapKind:
		return nil, unsupported("a map literal")
	}
	return nil, unsupported("this kind of expression")
}

// testValue compiles a test whose outcome is used as a value.
func (k *compiler) testValue(e ast.Expr) (evalFn, error) {
	t, err := k.testOf(e)
	if err != nil {
		return nil, err
	}
	return valueOfTest(t), nil
}

func valueOfTest(t testFn) evalFn {
	return func(c *evaluation) value {
		switch t(c) {
		case yes:
			return value{k: kBool, n: 1}
		case no:
			return value{k: kBool}
		}
		return value{k: kError, p: c.fail}
	}
}

func (k *compiler) ident(e ast.Expr) (evalFn, error) {
	name := e.AsIdent()
	for i := len(k.scope) - 1; i >= 0; i-- {
		if k.scope[i] == name {
			return func(c *evaluation) value { return c.vars[i] }, nil
		}
	}
	a, ok := attributes[name]
	switch {
	case !ok:
		return nil, unsupported("a type as a value")
	case a == attrTime:
		return func(c *evaluation) value { return timeValue(c.env.Time()) }, nil
	}
	return func(c *evaluation) value { return stringValue(a.text(c.env)) }, nil
}

// bound reports whether e uses a variable of an enclosing macro.
func (k *compiler) bound(e ast.Expr) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() == ast.IdentKind {
			for _, name := range k.scope {
				found = found || name == x.AsIdent()
			}
		}
	}))
	return found
}

// constant returns the value of a literal or of a list of literals.
func (k *compiler) constant(e ast.Expr) (value, bool) {
	switch e.Kind() {
	case ast.LiteralKind:
		v := fromRef(e.AsLiteral())
		return v, v.k != kOther
	case ast.ListKind:
		l := e.AsList()
		if len(l.OptionalIndices()) > 0 {
			return value{}, false
		}
		elems := make([]value, 0, l.Size())
		for _, x := range l.Elements() {
			v, ok := k.constant(x)
			if !ok {
				return value{}, false
			}
			elems = append(elems, v)
		}
		return newConstList(elems), true
	case ast.CallKind:
		// A negative number may still be represented as a call.
		c := e.AsCall()
		if c.FunctionName() == operators.Negate {
			if v, ok := k.constant(c.Args()[0]); ok {
				if v = negate(&v, errOverload); !v.failed() {
					return v, true
				}
			}
		}
		if v, ok := k.constantTime(c); ok {
			return v, true
		}
	}
	return value{}, false
}
