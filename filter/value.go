package filter

import (
	"errors"
	"math"
	"time"

	"cel.dev/cel-go/common/types/ref"
)

// kind is the type of a value. The first few kinds are not values but reasons
// why a field has none.
type kind uint8

const (
	kUnread   kind = iota // not read yet
	kMissing              // the object exists, but not this field
	kNoParent             // the parent of the field is not an object
	kBroken               // the document is damaged before the end of the field
	kError                // evaluation failed; p holds the *evalError
	kNull
	kBool
	kInt
	kUint
	kDouble
	kString
	kBytes
	kTimestamp
	kDuration
	kList
	kMap
	kStruct // a Go struct, or a JSON object known to be one
	kOther  // a CEL value with no representation of its own here; p holds the ref.Val
)

// rep says where the parts of a list, a map or a struct are stored.
type rep uint32

const (
	repJSON rep = iota // s is the JSON text
	repGo              // p is a pointer to the Go value
	repList            // p is a *constList
)

// value is a CEL value that needs no allocation. Which fields are used depends
// on k:
//
//	kBool, kInt, kUint, kDouble, kDuration  n
//	kTimestamp                              n (Unix seconds) and x (nanoseconds)
//	kString, kBytes                         s
//	kList, kMap, kStruct                    x is the rep; sh the Go type's shape, nil if unknown
//	kOther                                  p
type value struct {
	k   kind
	set bool // for a declared field: the answer of has()
	x   uint32
	n   uint64
	s   string
	p   any
	sh  *shape
}

// constList is a list literal whose elements are constants.
type constList struct {
	elems []value
	list  ref.Val
	set   *constSet // nil if membership cannot be decided by look-up
}

func (v *value) bool() bool              { return v.n != 0 }
func (v *value) int() int64              { return int64(v.n) }
func (v *value) float() float64          { return math.Float64frombits(v.n) }
func (v *value) duration() time.Duration { return time.Duration(v.n) }
func (v *value) time() time.Time         { return time.Unix(int64(v.n), int64(v.x)).UTC() }
func (v *value) failed() bool            { return v.k <= kError }

func boolValue(b bool) value {
	if b {
		return value{k: kBool, n: 1}
	}
	return value{k: kBool}
}

func intValue(i int64) value              { return value{k: kInt, n: uint64(i)} }
func uintValue(u uint64) value            { return value{k: kUint, n: u} }
func floatValue(f float64) value          { return value{k: kDouble, n: math.Float64bits(f)} }
func stringValue(s string) value          { return value{k: kString, s: s} }
func durationValue(d time.Duration) value { return value{k: kDuration, n: uint64(d)} }

func timeValue(t time.Time) value {
	return value{k: kTimestamp, n: uint64(t.Unix()), x: uint32(t.Nanosecond())}
}

func errValue(e *evalError) value { return value{k: kError, p: e} }

// Kinds of failure of an evaluation, for errors.Is.
var (
	// ErrNoSuchField means that the expression read a field or an element that
	// the message does not have.
	ErrNoSuchField = errors.New("no such field")
	// ErrType means that an operation met a value of a type for which it is not
	// defined, such as < between a string and a number.
	ErrType = errors.New("no such overload")
	// ErrMalformed means that the payload is not valid JSON, up to the point
	// where the needed fields end, or does not fit its declared Go type.
	ErrMalformed = errors.New("malformed payload")
	// ErrRange means an overflow, a division by zero, or a conversion of text
	// that is not a number, a time or a duration.
	ErrRange = errors.New("value out of range")
	// ErrLimit means that the evaluation would have exceeded a limit set at
	// compile time.
	ErrLimit = errors.New("limit exceeded")
	// ErrNoData means that the message has no payload, or one of a kind for
	// which the filter was not compiled.
	ErrNoData = errors.New("no usable payload")
)

// evalError is created when an expression is compiled, so that a failure while
// matching does not allocate.
type evalError struct {
	kind error
	msg  string
}

func (e *evalError) Error() string { return "filter: " + e.msg + ": " + e.kind.Error() }
func (e *evalError) Unwrap() error { return e.kind }

var (
	errDepth    = &evalError{ErrLimit, "payload nested too deeply"}
	errNoData   = &evalError{ErrNoData, "data"}
	errSteps    = &evalError{ErrLimit, "too many elements visited"}
	errOverload = &evalError{ErrType, "operands"}
)

// reason converts a non-value to an error value. missing is the error for a
// field that does not exist.
func (v *value) reason(missing *evalError) value {
	switch v.k {
	case kError:
		return *v
	case kBroken:
		return errValue(errBroken)
	}
	return errValue(missing)
}

var errBroken = &evalError{ErrMalformed, "data"}

// compareFloatInt and the functions like it order numbers of different types as
// CEL does: through float64, after checking the range of the other type.
func compareFloatInt(d float64, i int64) int {
	if d < math.MinInt64 {
		return -1
	}
	if d > math.MaxInt64 {
		return 1
	}
	return compareFloat(d, float64(i))
}

func compareFloatUint(d float64, u uint64) int {
	if d < 0 {
		return -1
	}
	if d > math.MaxUint64 {
		return 1
	}
	return compareFloat(d, float64(u))
}

func compareFloat(a, b float64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func compareIntUint(i int64, u uint64) int {
	if i < 0 || u > math.MaxInt64 {
		return -1
	}
	return compareInt(i, int64(u))
}

func compareInt(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func compareUint(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// compareNumbers orders two numbers of any types. Neither may be NaN.
func compareNumbers(a, b *value) int {
	switch a.k {
	case kInt:
		switch b.k {
		case kInt:
			return compareInt(a.int(), b.int())
		case kUint:
			return compareIntUint(a.int(), b.n)
		}
		return -compareFloatInt(b.float(), a.int())
	case kUint:
		switch b.k {
		case kInt:
			return -compareIntUint(b.int(), a.n)
		case kUint:
			return compareUint(a.n, b.n)
		}
		return -compareFloatUint(b.float(), a.n)
	}
	switch b.k {
	case kInt:
		return compareFloatInt(a.float(), b.int())
	case kUint:
		return compareFloatUint(a.float(), b.n)
	}
	return compareFloat(a.float(), b.float())
}

func isNumber(k kind) bool { return k >= kInt && k <= kDouble }

func isNaN(v *value) bool { return v.k == kDouble && math.IsNaN(v.float()) }
