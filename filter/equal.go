package filter

import (
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// equal implements CEL's ==: values of different types are unequal, except that
// numbers are compared across types.
func (c *evaluation) equal(a, b *value) bool {
	switch a.k {
	case kString, kBytes:
		return a.k == b.k && a.s == b.s
	case kInt, kUint, kDouble:
		if !isNumber(b.k) || isNaN(a) || isNaN(b) {
			return false
		}
		return compareNumbers(a, b) == 0
	case kNull:
		return b.k == kNull
	case kBool, kDuration:
		return a.k == b.k && a.n == b.n
	case kTimestamp:
		return b.k == kTimestamp && a.n == b.n && a.x == b.x
	}
	if a.k != b.k && a.k != kOther && b.k != kOther {
		return false
	}
	return c.equalSlow(a, b)
}

// equalSlow compares lists, maps and structs as cel-go does, after converting
// them to its values.
func (c *evaluation) equalSlow(a, b *value) bool {
	x, y := c.toRef(a), c.toRef(b)
	if types.IsError(x) || types.IsError(y) {
		return false
	}
	return types.Equal(x, y) == types.True
}

// ordered compares a and b. ok is false if there is no order between them. NaN
// is neither less than, greater than nor equal to anything; nan is then true.
func ordered(a, b *value) (cmp int, nan, ok bool) {
	if a.k < kBool || a.k > kDuration {
		return 0, false, false
	}
	if isNaN(a) || isNaN(b) {
		return 0, true, true
	}
	if isNumber(a.k) {
		if !isNumber(b.k) {
			return 0, false, false
		}
		return compareNumbers(a, b), false, true
	}
	if a.k != b.k {
		return 0, false, false
	}
	switch a.k {
	case kString, kBytes:
		return strings.Compare(a.s, b.s), false, true
	case kBool:
		return compareUint(a.n, b.n), false, true
	case kDuration:
		return compareInt(a.int(), b.int()), false, true
	}
	if cmp = compareInt(a.int(), b.int()); cmp == 0 {
		cmp = compareUint(uint64(a.x), uint64(b.x))
	}
	return cmp, false, true
}

// contains implements the operator in.
func (c *evaluation) contains(set, v *value) (found, ok bool) {
	switch set.k {
	case kMap:
		if v.k != kString {
			return false, true
		}
		_, found = c.member(set, v.s)
		return found, true
	case kList:
		if rep(set.x) == repList {
			if s := set.p.(*constList).set; s != nil {
				return s.has(v), true
			}
		}
		var e value
		c.elements(set, &e, func() bool {
			found = c.equal(v, &e)
			return !found
		})
		return found, true
	}
	return false, false
}

// constSet decides membership in a list of constants that are all strings or
// numbers.
type constSet struct {
	strings map[string]struct{}
	numbers []value
}

func newConstSet(elems []value) *constSet {
	s := &constSet{strings: make(map[string]struct{})}
	for _, e := range elems {
		switch {
		case e.k == kString:
			s.strings[e.s] = struct{}{}
		case isNumber(e.k):
			s.numbers = append(s.numbers, e)
		default:
			return nil
		}
	}
	return s
}

func (s *constSet) has(v *value) bool {
	if v.k == kString {
		_, ok := s.strings[v.s]
		return ok
	}
	if !isNumber(v.k) || isNaN(v) {
		return false
	}
	for i := range s.numbers {
		if !isNaN(&s.numbers[i]) && compareNumbers(v, &s.numbers[i]) == 0 {
			return true
		}
	}
	return false
}

// toRef converts a value to a value of cel-go.
func (c *evaluation) toRef(v *value) ref.Val {
	switch v.k {
	case kNull:
		return types.NullValue
	case kBool:
		return types.Bool(v.bool())
	case kInt:
		return types.Int(v.int())
	case kUint:
		return types.Uint(v.n)
	case kDouble:
		return types.Double(v.float())
	case kString:
		return types.String(v.s)
	case kBytes:
		return types.Bytes(v.s)
	case kTimestamp:
		return types.Timestamp{Time: v.time()}
	case kDuration:
		return types.Duration{Duration: v.duration()}
	case kOther:
		return v.p.(ref.Val)
	case kList, kMap, kStruct:
		return c.containerRef(v)
	}
	return types.NewErr("no value")
}

// fromRef converts a value of cel-go to a value.
func fromRef(r ref.Val) value {
	switch r := r.(type) {
	case types.Bool:
		return boolValue(bool(r))
	case types.Int:
		return intValue(int64(r))
	case types.Uint:
		return uintValue(uint64(r))
	case types.Double:
		return floatValue(float64(r))
	case types.String:
		return stringValue(string(r))
	case types.Bytes:
		return value{k: kBytes, s: string(r)}
	case types.Timestamp:
		return timeValue(r.Time)
	case types.Duration:
		return durationValue(r.Duration)
	case types.Null:
		return value{k: kNull}
	case *types.Err:
		return errValue(&evalError{errInterpreter, r.Error()})
	}
	return value{k: kOther, p: r}
}
