package filter

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// doubleFn returns the value of an expression if it is a double, as the numbers
// in JSON text are. A double is returned in a register, while a value takes 56
// bytes of memory. ok is false for a value of any other type and for a failure;
// the expression's evalFn or testFn then has the answer.
type doubleFn func(*evaluation) (f float64, ok bool)

// double compiles an expression that may be a double. It returns nil for an
// expression that it has no shortcut for.
func (k *compiler) double(e ast.Expr) doubleFn {
	if v, ok := k.constant(e); ok {
		if v.k != kDouble {
			return nil
		}
		f := v.float()
		return func(*evaluation) (float64, bool) { return f, true }
	}
	if kind := k.typeOf(e).Kind(); kind != types.DynKind && kind != types.DoubleKind {
		return nil
	}
	if names, ok := k.path(e); ok {
		slot := k.table.slot(names)
		return func(c *evaluation) (float64, bool) {
			v := c.slot(slot)
			return v.float(), v.k == kDouble
		}
	}
	if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
		return nil
	}
	op, args := e.AsCall().FunctionName(), e.AsCall().Args()
	switch op {
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide:
	default:
		return nil
	}
	x := k.double(args[0])
	if x == nil {
		return nil
	}
	if v, ok := k.constant(args[1]); ok && v.k == kDouble {
		return doubleWithConstant(op, x, v.float())
	}
	y := k.double(args[1])
	if y == nil {
		return nil
	}
	f := arithmeticOps[op].floats
	return func(c *evaluation) (float64, bool) {
		a, ok := x(c)
		if !ok {
			return 0, false
		}
		b, ok := y(c)
		return f(a, b), ok
	}
}

func doubleWithConstant(op string, x doubleFn, b float64) doubleFn {
	switch op {
	case operators.Add:
		return func(c *evaluation) (float64, bool) { a, ok := x(c); return a + b, ok }
	case operators.Subtract:
		return func(c *evaluation) (float64, bool) { a, ok := x(c); return a - b, ok }
	case operators.Multiply:
		return func(c *evaluation) (float64, bool) { a, ok := x(c); return a * b, ok }
	}
	return func(c *evaluation) (float64, bool) { a, ok := x(c); return a / b, ok }
}

// constantDouble returns the constant as a double if it compares with doubles
// in the same way as that double does.
func (k *compiler) constantDouble(e ast.Expr) (float64, bool) {
	v, ok := k.constant(e)
	if !ok || !isNumber(v.k) || isNaN(&v) {
		return 0, false
	}
	f := toFloat(&v)
	return f, v.k == kDouble || isExact(f)
}

// doubleTest is a shortcut for a comparison of doubles. If it does not apply,
// or an operand turns out not to be a double, full has the answer.
func (k *compiler) doubleTest(op string, a, b ast.Expr, full testFn) testFn {
	x := k.double(a)
	if x == nil {
		return full
	}
	if f, ok := k.constantDouble(b); ok {
		return doubleAgainst(op, x, f, full)
	}
	y := k.double(b)
	if y == nil {
		return full
	}
	compare := doubleComparisons[op]
	return func(c *evaluation) verdict {
		f, ok := x(c)
		if !ok {
			return full(c)
		}
		g, ok := y(c)
		if !ok {
			return full(c)
		}
		return verdictOf(compare(f, g))
	}
}

// doubleAgainst compares with a constant, as most filters do.
func doubleAgainst(op string, x doubleFn, limit float64, full testFn) testFn {
	compare := doubleComparisons[op]
	switch op {
	case operators.Equals:
		return func(c *evaluation) verdict {
			if f, ok := x(c); ok {
				return verdictOf(f == limit)
			}
			return full(c)
		}
	case operators.Less:
		return func(c *evaluation) verdict {
			if f, ok := x(c); ok {
				return verdictOf(f < limit)
			}
			return full(c)
		}
	case operators.Greater:
		return func(c *evaluation) verdict {
			if f, ok := x(c); ok {
				return verdictOf(f > limit)
			}
			return full(c)
		}
	}
	return func(c *evaluation) verdict {
		if f, ok := x(c); ok {
			return verdictOf(compare(f, limit))
		}
		return full(c)
	}
}

// doubleComparisons are false for NaN, as in CEL, except for the one that tests
// for inequality.
var doubleComparisons = map[string]func(a, b float64) bool{
	operators.Equals:        func(a, b float64) bool { return a == b },
	operators.NotEquals:     func(a, b float64) bool { return a != b },
	operators.Less:          func(a, b float64) bool { return a < b },
	operators.LessEquals:    func(a, b float64) bool { return a <= b },
	operators.Greater:       func(a, b float64) bool { return a > b },
	operators.GreaterEquals: func(a, b float64) bool { return a >= b },
}
