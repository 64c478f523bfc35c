package filter

import (
	"math"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// arithmetic compiles + - * / and %.
func (k *compiler) arithmetic(op string, a, b ast.Expr) (evalFn, error) {
	x, err := k.value(a)
	if err != nil {
		return nil, err
	}
	y, err := k.value(b)
	if err != nil {
		return nil, err
	}
	f := arithmeticOps[op]
	overload := k.overload(op[1 : len(op)-1])
	bad := &evalError{ErrRange, op[1 : len(op)-1]}
	return func(c *evaluation) value {
		v := x(c)
		if v.failed() {
			return v
		}
		w := y(c)
		if w.failed() {
			return w
		}
		var r value
		ok := false
		switch {
		case v.k == w.k && v.k == kInt:
			var i int64
			i, ok = f.ints(v.int(), w.int())
			r = intValue(i)
		case v.k == w.k && v.k == kUint:
			var u uint64
			u, ok = f.uints(v.n, w.n)
			r = uintValue(u)
		case v.k == w.k && v.k == kDouble && f.floats != nil:
			return floatValue(f.floats(v.float(), w.float()))
		case v.k == w.k && v.k == kString && op == operators.Add:
			return stringValue(c.concat(v.s, w.s))
		case v.k == kTimestamp || v.k == kDuration:
			return c.timeArithmetic(op, &v, &w, overload, bad)
		case op == operators.Add && (v.k == kBytes || v.k == kList || v.k == kOther):
			return c.addSlow(&v, &w, overload)
		default:
			return errValue(overload)
		}
		if !ok {
			return errValue(bad)
		}
		return r
	}, nil
}

// concat joins two strings in the evaluation's scratch memory.
func (c *evaluation) concat(a, b string) string {
	at := len(c.scratch)
	c.scratch = append(append(c.scratch, a...), b...)
	return viewString(c.scratch[at:])
}

func (c *evaluation) addSlow(v, w *value, overload *evalError) value {
	if r, ok := c.toRef(v).(traits.Adder); ok {
		return fromResult(r.Add(c.toRef(w)), overload)
	}
	return errValue(overload)
}

// fromResult is fromRef for results that may be errors.
func fromResult(r ref.Val, e *evalError) value {
	if types.IsError(r) {
		return errValue(e)
	}
	return fromRef(r)
}

// timeArithmetic leaves the rules for the range of times to cel-go.
func (c *evaluation) timeArithmetic(op string, v, w *value, overload, bad *evalError) value {
	if w.k != kTimestamp && w.k != kDuration {
		return errValue(overload)
	}
	x, y := c.toRef(v), c.toRef(w)
	switch op {
	case operators.Add:
		if v.k == kTimestamp && w.k == kTimestamp {
			return errValue(overload)
		}
		return fromResult(x.(traits.Adder).Add(y), bad)
	case operators.Subtract:
		if v.k == kDuration && w.k == kTimestamp {
			return errValue(overload)
		}
		return fromResult(x.(traits.Subtractor).Subtract(y), bad)
	}
	return errValue(overload)
}

// arithmeticOp holds an operator for each type of number. ok is false on
// overflow and on division by zero.
type arithmeticOp struct {
	ints   func(a, b int64) (r int64, ok bool)
	uints  func(a, b uint64) (r uint64, ok bool)
	floats func(a, b float64) float64 // nil if there is none
}

var arithmeticOps = map[string]arithmeticOp{
	operators.Add: {
		func(a, b int64) (int64, bool) { r := a + b; return r, (r > a) == (b > 0) },
		func(a, b uint64) (uint64, bool) { r := a + b; return r, r >= a },
		func(a, b float64) float64 { return a + b },
	},
	operators.Subtract: {
		func(a, b int64) (int64, bool) { r := a - b; return r, (r < a) == (b > 0) },
		func(a, b uint64) (uint64, bool) { return a - b, a >= b },
		func(a, b float64) float64 { return a - b },
	},
	operators.Multiply: {
		multiplyInts,
		func(a, b uint64) (uint64, bool) { return a * b, b == 0 || a <= math.MaxUint64/b },
		func(a, b float64) float64 { return a * b },
	},
	operators.Divide: {
		func(a, b int64) (int64, bool) {
			if b == 0 || a == math.MinInt64 && b == -1 {
				return 0, false
			}
			return a / b, true
		},
		func(a, b uint64) (uint64, bool) {
			if b == 0 {
				return 0, false
			}
			return a / b, true
		},
		func(a, b float64) float64 { return a / b },
	},
	operators.Modulo: {
		func(a, b int64) (int64, bool) {
			if b == 0 || a == math.MinInt64 && b == -1 {
				return 0, false
			}
			return a % b, true
		},
		func(a, b uint64) (uint64, bool) {
			if b == 0 {
				return 0, false
			}
			return a % b, true
		},
		nil,
	},
}

func multiplyInts(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	if a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
		return 0, false
	}
	r := a * b
	return r, r/b == a
}

// negate implements unary minus.
func negate(v *value, overload *evalError) value {
	switch v.k {
	case kInt:
		if v.int() != math.MinInt64 {
			return intValue(-v.int())
		}
		return errValue(errOverflow)
	case kDouble:
		return floatValue(-v.float())
	case kDuration:
		if v.int() != math.MinInt64 {
			return durationValue(-v.duration())
		}
		return errValue(errOverflow)
	}
	return errValue(overload)
}

var errOverflow = &evalError{ErrRange, "-"}
