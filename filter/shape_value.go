package filter

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"time"
)

var (
	errShape  = &evalError{ErrMalformed, "data does not fit its Go type"}
	zeroTime  = timeValue(time.Time{})
	emptyList = "[]"
	emptyMap  = "{}"
)

// zero returns the value that a field of the shape has when it is missing.
func (sh *shape) zero() value {
	switch sh.kind {
	case shapeBool:
		return value{k: kBool}
	case shapeInt:
		return value{k: kInt}
	case shapeUint:
		return value{k: kUint}
	case shapeFloat:
		return value{k: kDouble}
	case shapeString:
		return value{k: kString}
	case shapeBytes:
		return value{k: kBytes}
	case shapeTime:
		return zeroTime
	case shapeDuration:
		return value{k: kDuration}
	case shapeList:
		return value{k: kList, s: emptyList, sh: sh}
	case shapeMap:
		return value{k: kMap, s: emptyMap, sh: sh}
	case shapeStruct:
		return value{k: kStruct, s: emptyMap, sh: sh}
	}
	return value{k: kNull}
}

// number converts the text of a JSON number.
func (sh *shape) number(text []byte, integer bool) value {
	switch sh.kind {
	case shapeInt, shapeDuration:
		i, err := strconv.ParseInt(viewString(text), 10, sh.typ.Bits())
		if !integer || err != nil {
			return errValue(errShape)
		}
		if sh.kind == shapeDuration {
			return durationValue(time.Duration(i))
		}
		return intValue(i)
	case shapeUint:
		u, err := strconv.ParseUint(viewString(text), 10, sh.typ.Bits())
		if !integer || err != nil {
			return errValue(errShape)
		}
		return uintValue(u)
	case shapeFloat:
		f, err := strconv.ParseFloat(viewString(text), sh.typ.Bits())
		if err != nil {
			return errValue(errShape)
		}
		return floatValue(f)
	case shapeDyn:
		return number(nil, text, integer)
	}
	return errValue(errShape)
}

// fromJSON converts a value read from JSON to a value of the shape, as decoding
// it into the Go type would. number has already converted numbers.
func (sh *shape) fromJSON(v value) value {
	if v.k == kNull {
		return sh.zero()
	}
	if v.failed() {
		return v
	}
	ok := false
	switch sh.kind {
	case shapeDyn:
		return v
	case shapeBool:
		ok = v.k == kBool
	case shapeInt:
		ok = v.k == kInt
	case shapeUint:
		ok = v.k == kUint
	case shapeFloat:
		ok = v.k == kDouble
	case shapeDuration:
		ok = v.k == kDuration
	case shapeString:
		ok = v.k == kString
	case shapeBytes:
		if v.k == kString {
			if b, err := base64.StdEncoding.DecodeString(v.s); err == nil {
				return value{k: kBytes, s: viewString(b)}
			}
		}
	case shapeTime:
		if v.k == kString {
			var t time.Time
			if err := t.UnmarshalText(viewBytes(v.s)); err == nil {
				return timeValue(t)
			}
		}
	case shapeList:
		ok = v.k == kList
		v.sh = sh
	case shapeMap:
		ok = v.k == kMap
		v.sh = sh
	case shapeStruct:
		ok = v.k == kMap
		v.k, v.sh = kStruct, sh
	}
	if !ok {
		return errValue(errShape)
	}
	return v
}

// fromGo converts a Go value of the shape's type, or of a pointer to it.
func (sh *shape) fromGo(rv reflect.Value) value {
	for rv.Kind() == reflect.Pointer {
		if rv.IsNil() {
			return sh.zero()
		}
		rv = rv.Elem()
	}
	switch sh.kind {
	case shapeBool:
		return boolValue(rv.Bool())
	case shapeInt:
		return intValue(rv.Int())
	case shapeDuration:
		return durationValue(time.Duration(rv.Int()))
	case shapeUint:
		return uintValue(rv.Uint())
	case shapeFloat:
		return floatValue(rv.Float())
	case shapeString:
		return stringValue(rv.String())
	case shapeBytes:
		return value{k: kBytes, s: viewString(rv.Bytes())}
	case shapeTime:
		if rv.CanAddr() {
			return timeValue(*rv.Addr().Interface().(*time.Time))
		}
		return timeValue(rv.Interface().(time.Time))
	case shapeList, shapeMap, shapeStruct:
		k := kStruct
		switch sh.kind {
		case shapeList:
			k = kList
		case shapeMap:
			k = kMap
		}
		if !rv.CanAddr() {
			p := reflect.New(sh.typ)
			p.Elem().Set(rv)
			rv = p.Elem()
		}
		return value{k: k, x: uint32(repGo), p: rv.Addr().Interface(), sh: sh}
	case shapeDyn:
		return dynFromGo(rv)
	}
	return errValue(errOverload)
}

// dynFromGo converts a Go value for which no type was declared to the value
// that its JSON form would have.
func dynFromGo(rv reflect.Value) value {
	var v any
	if rv.IsValid() {
		v = rv.Interface()
	}
	switch v := v.(type) {
	case nil:
		return value{k: kNull}
	case bool:
		return boolValue(v)
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return floatValue(v)
		}
	case int:
		return floatValue(float64(v))
	}
	text, err := json.Marshal(v)
	if err != nil {
		return errValue(errShape)
	}
	s := scanner{b: text, maxDepth: maxDecodeDepth, checkRange: true}
	return s.any()
}

// maxDecodeDepth is the nesting depth that encoding/json accepts.
const maxDecodeDepth = 10000

// isSet implements has(): a pointer is set unless it is nil, anything else
// unless it is zero. A struct is always set.
func (f *field) isSet(v *value, null bool) bool {
	if f.ptr {
		return !null
	}
	switch v.k {
	case kNull:
		return false
	case kBool, kInt, kUint, kDuration:
		return v.n != 0
	case kDouble:
		return v.float() != 0
	case kString, kBytes:
		return v.s != ""
	case kTimestamp:
		return v.n != zeroTime.n || v.x != 0
	case kList, kMap:
		if f.sh.kind == shapeDyn {
			return true
		}
		return !emptyContainer(v)
	}
	return true
}

// inner returns the field of the struct rv with pointers followed, or the zero
// reflect.Value if one of them is nil.
func (f *field) inner(rv reflect.Value) reflect.Value {
	for _, x := range f.index {
		rv = rv.Field(x)
		for rv.Kind() == reflect.Pointer {
			if rv.IsNil() {
				return reflect.Value{}
			}
			rv = rv.Elem()
		}
	}
	return rv
}

// goField reads a field of the struct rv. set is the answer of has().
func (f *field) goField(rv reflect.Value) (v value, set bool) {
	rv = f.inner(rv)
	if !rv.IsValid() {
		return f.sh.zero(), false
	}
	v = f.sh.fromGo(rv)
	return v, f.isSet(&v, false)
}
