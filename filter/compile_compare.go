package filter

import (
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// comparison compiles ==, !=, <, <=, > and >=.
func (k *compiler) comparison(op string, a, b ast.Expr) (testFn, error) {
	var t testFn
	var err error
	switch op {
	case operators.Equals:
		t, err = k.equals(a, b, yes, no)
	case operators.NotEquals:
		t, err = k.equals(a, b, no, yes)
	default:
		t, err = k.order(op, a, b)
	}
	if err != nil {
		return nil, err
	}
	return k.doubleTest(op, a, b, t), nil
}

// equals compiles a == b. same and other are the verdicts for equal and
// unequal.
func (k *compiler) equals(a, b ast.Expr, same, other verdict) (testFn, error) {
	if _, ok := k.constant(a); ok {
		a, b = b, a
	}
	constant, isConst := k.constant(b)
	if isConst && constant.k == kString {
		if t := k.equalsString(a, constant.s, same, other); t != nil {
			return t, nil
		}
	}
	x, err := k.value(a)
	if err != nil {
		return nil, err
	}
	if isConst {
		return func(c *evaluation) verdict {
			v := x(c)
			if v.failed() {
				return c.failWith(&v)
			}
			if c.equal(&v, &constant) {
				return same
			}
			return other
		}, nil
	}
	y, err := k.value(b)
	if err != nil {
		return nil, err
	}
	return func(c *evaluation) verdict {
		v := x(c)
		if v.failed() {
			return c.failWith(&v)
		}
		w := y(c)
		if w.failed() {
			return c.failWith(&w)
		}
		if c.equal(&v, &w) {
			return same
		}
		return other
	}, nil
}

// equalsString compiles the most frequent comparison, that of a field or an
// attribute with a string. It returns nil for anything else.
func (k *compiler) equalsString(a ast.Expr, s string, same, other verdict) testFn {
	if names, ok := k.path(a); ok {
		slot := k.table.slot(names)
		missing := k.missing(pathName(names))
		return func(c *evaluation) verdict {
			v := c.slot(slot)
			if v.k == kString {
				if v.s == s {
					return same
				}
				return other
			}
			if v.failed() {
				x := v.reason(missing)
				return c.failWith(&x)
			}
			return other
		}
	}
	if a.Kind() == ast.IdentKind && !k.bound(a) {
		if attr, ok := attributes[a.AsIdent()]; ok && attr != attrTime {
			return func(c *evaluation) verdict {
				if attr.text(c.env) == s {
					return same
				}
				return other
			}
		}
	}
	return nil
}

// order compiles <, <=, > and >=.
func (k *compiler) order(op string, a, b ast.Expr) (testFn, error) {
	x, err := k.value(a)
	if err != nil {
		return nil, err
	}
	y, err := k.value(b)
	if err != nil {
		return nil, err
	}
	overload := k.overload(op[1 : len(op)-1])
	// The outcomes of the comparison, from -1 to 1, that make it true.
	var accept [3]verdict
	switch op {
	case operators.Less:
		accept = [3]verdict{yes, no, no}
	case operators.LessEquals:
		accept = [3]verdict{yes, yes, no}
	case operators.Greater:
		accept = [3]verdict{no, no, yes}
	default:
		accept = [3]verdict{no, yes, yes}
	}
	if constant, ok := k.constant(b); ok {
		return func(c *evaluation) verdict {
			v := x(c)
			return c.ordering(&v, &constant, &accept, overload)
		}, nil
	}
	return func(c *evaluation) verdict {
		v := x(c)
		if v.failed() {
			return c.failWith(&v)
		}
		w := y(c)
		return c.ordering(&v, &w, &accept, overload)
	}, nil
}

func (c *evaluation) ordering(v, w *value, accept *[3]verdict, overload *evalError) verdict {
	if v.failed() {
		return c.failWith(v)
	}
	if w.failed() {
		return c.failWith(w)
	}
	cmp, nan, ok := ordered(v, w)
	if !ok {
		c.fail = overload
		return failed
	}
	if nan {
		return no
	}
	return accept[cmp+1]
}

// affix compiles startsWith, endsWith and contains.
func (k *compiler) affix(fn string, a, b ast.Expr) (testFn, error) {
	x, err := k.value(a)
	if err != nil {
		return nil, err
	}
	test := strings.Contains
	switch fn {
	case "startsWith":
		test = strings.HasPrefix
	case "endsWith":
		test = strings.HasSuffix
	}
	overload := k.overload(fn)
	if s, ok := constString(b); ok {
		if names, ok := k.path(a); ok {
			slot := k.table.slot(names)
			missing := k.missing(pathName(names))
			return func(c *evaluation) verdict {
				v := c.slot(slot)
				if v.k == kString {
					return verdictOf(test(v.s, s))
				}
				c.fail = overload
				if v.failed() {
					x := v.reason(missing)
					return c.failWith(&x)
				}
				return failed
			}, nil
		}
		return func(c *evaluation) verdict {
			v := x(c)
			if v.k == kString {
				return verdictOf(test(v.s, s))
			}
			if v.failed() {
				return c.failWith(&v)
			}
			c.fail = overload
			return failed
		}, nil
	}
	y, err := k.value(b)
	if err != nil {
		return nil, err
	}
	return func(c *evaluation) verdict {
		v := x(c)
		if v.failed() {
			return c.failWith(&v)
		}
		w := y(c)
		if w.failed() {
			return c.failWith(&w)
		}
		if v.k != kString || w.k != kString {
			c.fail = overload
			return failed
		}
		return verdictOf(test(v.s, w.s))
	}, nil
}

// matches compiles matches(a, pattern). The checker has made sure that the
// pattern is constant and within the limit.
func (k *compiler) matches(a, pattern ast.Expr) (testFn, error) {
	x, err := k.value(a)
	if err != nil {
		return nil, err
	}
	text, _ := constString(pattern)
	overload := k.overload("matches")
	on := func(test func(string) bool) testFn {
		return func(c *evaluation) verdict {
			v := x(c)
			if v.k == kString {
				return verdictOf(test(v.s))
			}
			if v.failed() {
				return c.failWith(&v)
			}
			c.fail = overload
			return failed
		}
	}
	if test := plainPattern(text); test != nil {
		return on(test), nil
	}
	re, err := compileRegexp(text, k.f.opts.regexp)
	if err != nil {
		return nil, err
	}
	return on(re.MatchString), nil
}

// plainPattern returns a test for a pattern that is literal text, anchored or
// not. It returns nil for all others.
func plainPattern(pattern string) func(string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	begin, end := false, false
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		begin, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		end, parts = true, parts[:n-1]
	}
	if len(parts) != 1 || parts[0].Op != syntax.OpLiteral || parts[0].Flags&syntax.FoldCase != 0 {
		return nil
	}
	lit := string(parts[0].Rune)
	if strings.ContainsRune(lit, '\uFFFD') {
		return nil // as a regular expression it also matches invalid UTF-8
	}
	switch {
	case begin && end:
		return func(s string) bool { return s == lit }
	case begin:
		return func(s string) bool { return strings.HasPrefix(s, lit) }
	case end:
		return func(s string) bool { return strings.HasSuffix(s, lit) }
	}
	return func(s string) bool { return strings.Contains(s, lit) }
}
