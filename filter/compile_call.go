package filter

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// call compiles a call of which the value is needed.
func (k *compiler) call(e ast.Expr) (evalFn, error) {
	c := e.AsCall()
	args := c.Args()
	if c.IsMemberFunction() {
		args = append([]ast.Expr{c.Target()}, args...)
	}
	switch fn := c.FunctionName(); fn {
	case operators.Conditional:
		return k.conditional(args)
	case operators.Index:
		return k.indexed(args[0], args[1])
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo:
		return k.arithmetic(fn, args[0], args[1])
	case operators.Negate:
		overload := k.overload("-")
		return k.unary(args[0], func(_ *evaluation, v value) value { return negate(&v, overload) })
	case "size":
		overload := k.overload("size")
		return k.unary(args[0], func(c *evaluation, v value) value { return c.sizeOf(&v, overload) })
	case "trim":
		overload := k.overload("trim")
		return k.unary(args[0], func(_ *evaluation, v value) value {
			if v.k != kString {
				return errValue(overload)
			}
			return stringValue(strings.TrimSpace(v.s))
		})
	case "lowerAscii":
		return k.letterCase(args[0], fn, 'A', 'Z')
	case "upperAscii":
		return k.letterCase(args[0], fn, 'a', 'z')
	case "int", "uint", "double", "string", "bool", "bytes", "timestamp", "duration":
		if len(args) == 1 {
			return k.convert(fn, e, args[0])
		}
	default:
		if v, err := k.timeCall(fn, e, args); v != nil || err != nil {
			return v, err
		}
	}
	t, err := k.testCall(e)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, unsupported(c.FunctionName())
	}
	return valueOfTest(t), nil
}

// unary compiles a function of one operand.
func (k *compiler) unary(e ast.Expr, f func(*evaluation, value) value) (evalFn, error) {
	x, err := k.value(e)
	if err != nil {
		return nil, err
	}
	return func(c *evaluation) value {
		v := x(c)
		if v.failed() {
			return v
		}
		return f(c, v)
	}, nil
}

func (k *compiler) conditional(args []ast.Expr) (evalFn, error) {
	cond, err := k.test(args[0])
	if err != nil {
		return nil, err
	}
	a, err := k.value(args[1])
	if err != nil {
		return nil, err
	}
	b, err := k.value(args[2])
	if err != nil {
		return nil, err
	}
	return func(c *evaluation) value {
		switch cond(c) {
		case yes:
			return a(c)
		case no:
			return b(c)
		}
		return errValue(c.fail)
	}, nil
}

func (c *evaluation) sizeOf(v *value, overload *evalError) value {
	switch v.k {
	case kString:
		return intValue(int64(utf8.RuneCountInString(v.s)))
	case kBytes:
		return intValue(int64(len(v.s)))
	case kList, kMap:
		return intValue(int64(c.size(v)))
	}
	return errValue(overload)
}

// letterCase compiles lowerAscii and upperAscii, which change the case of the
// letters from lo to hi.
func (k *compiler) letterCase(e ast.Expr, fn string, lo, hi byte) (evalFn, error) {
	overload := k.overload(fn)
	return k.unary(e, func(c *evaluation, v value) value {
		if v.k != kString {
			return errValue(overload)
		}
		s := v.s
		if !utf8.ValidString(s) {
			s = strings.ToValidUTF8(s, "\uFFFD")
		}
		for i := range len(s) {
			if s[i] < lo || s[i] > hi {
				continue
			}
			at := len(c.scratch)
			c.scratch = append(c.scratch, s...)
			out := c.scratch[at:]
			for j := i; j < len(out); j++ {
				if out[j] >= lo && out[j] <= hi {
					out[j] ^= 'a' - 'A'
				}
			}
			return stringValue(viewString(out))
		}
		return stringValue(s)
	})
}

// convertible lists the kinds that each conversion accepts, and its target.
var convertible = map[string]struct {
	from []kind
	to   ref.Type
}{
	"int":       {[]kind{kInt, kDouble, kDuration, kString, kTimestamp, kUint}, types.IntType},
	"uint":      {[]kind{kUint, kDouble, kInt, kString}, types.UintType},
	"double":    {[]kind{kDouble, kInt, kString, kUint}, types.DoubleType},
	"string":    {[]kind{kString, kBool, kBytes, kDouble, kDuration, kInt, kUint}, types.StringType},
	"bool":      {[]kind{kBool, kString}, types.BoolType},
	"bytes":     {[]kind{kBytes, kString}, types.BytesType},
	"timestamp": {[]kind{kTimestamp, kInt, kString}, types.TimestampType},
	"duration":  {[]kind{kDuration, kString}, types.DurationType},
}

// convert compiles a conversion. The frequent ones are implemented here; for
// the others it calls cel-go's implementation.
func (k *compiler) convert(fn string, call, e ast.Expr) (evalFn, error) {
	if fn == "string" && k.typeOf(e).Kind() == types.TimestampKind {
		return nil, unsupported("string(timestamp)")
	}
	conv := convertible[fn]
	only := k.overloadOf(call)
	var takes [kOther + 1]bool
	for _, from := range conv.from {
		takes[from] = only == "" || strings.HasPrefix(only, overloadNames[from]+"_to_")
	}
	overload := k.overload(fn)
	bad := &evalError{ErrRange, fn}
	return k.unary(e, func(c *evaluation, v value) value {
		if !takes[v.k] {
			return errValue(overload)
		}
		switch {
		case fn == "int" && v.k == kDouble:
			f := v.float()
			if !(f > math.MinInt64 && f < math.MaxInt64) {
				return errValue(bad)
			}
			return intValue(int64(f))
		case fn == "int" && v.k == kString:
			i, err := strconv.ParseInt(v.s, 10, 64)
			if err != nil {
				return errValue(bad)
			}
			return intValue(i)
		case fn == "double" && v.k == kInt:
			return floatValue(float64(v.int()))
		case fn == "int" && v.k == kInt, fn == "double" && v.k == kDouble, fn == "string" && v.k == kString,
			fn == "timestamp" && v.k == kTimestamp, fn == "duration" && v.k == kDuration:
			return v
		case fn == "timestamp" && v.k == kString:
			t, ok := parseTimestamp(v.s)
			if !ok {
				return errValue(bad)
			}
			return t
		}
		r := c.toRef(&v).ConvertToType(conv.to)
		if types.IsError(r) {
			return errValue(bad)
		}
		return fromRef(r)
	})
}

// overloadOf returns the only overload that the checker has left for a call, or
// "" if there are several. The checker may also leave just one for an operand
// whose type it does not know; values of other types are then errors.
func (k *compiler) overloadOf(call ast.Expr) string {
	if ids := k.ast.GetOverloadIDs(call.ID()); len(ids) == 1 {
		return ids[0]
	}
	return ""
}

// overloadNames maps kinds to their names in overload identifiers.
var overloadNames = map[kind]string{
	kBool: "bool", kInt: "int64", kUint: "uint64", kDouble: "double", kString: "string", kBytes: "bytes",
	kTimestamp: "timestamp", kDuration: "duration",
}
