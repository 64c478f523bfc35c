package filter

import (
	"encoding/json"
	"errors"
	"reflect"

	"cel.dev/cel-go/cel"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// errInterpreter is the kind of the errors that occur inside cel-go's
// interpreter.
var errInterpreter = errors.New("evaluation failed")

// native converts a Go value to a form that cel-go works on, by the same rules
// as fromGo.
func (sh *shape) native(rv reflect.Value) any {
	v := sh.fromGo(rv)
	switch v.k {
	case kList, kMap, kStruct:
		if v.sh != nil && rep(v.x) == repGo {
			return v.sh.nativeContainer(reflect.ValueOf(v.p).Elem())
		}
		if v.sh != nil { // a zero container
			return v.sh.nativeContainer(reflect.New(v.sh.typ).Elem())
		}
		var a any
		if err := json.Unmarshal(viewBytes(v.s), &a); err != nil {
			return types.WrapErr(err)
		}
		return a
	}
	if v.failed() {
		return types.NewErr("%v", v.reason(errOverload).p)
	}
	var c evaluation
	return c.toRef(&v)
}

func (sh *shape) nativeContainer(rv reflect.Value) any {
	switch sh.kind {
	case shapeList:
		list := make([]any, rv.Len())
		for i := range list {
			list[i] = sh.elem.native(rv.Index(i))
		}
		return list
	case shapeMap:
		m := make(map[string]any, rv.Len())
		for it := rv.MapRange(); it.Next(); {
			m[it.Key().String()] = sh.elem.native(it.Value())
		}
		return m
	}
	return &object{sh, rv}
}

// object presents a Go struct as a value of cel-go.
type object struct {
	sh *shape
	rv reflect.Value
}

func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	if o.rv.Type().AssignableTo(t) {
		return o.rv.Interface(), nil
	}
	return nil, errors.New("filter: a struct converts to its own type only")
}

func (o *object) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.sh.cel
	}
	return types.NewErr("type conversion error from '%s' to '%s'", o.sh.name, t.TypeName())
}

func (o *object) Equal(other ref.Val) ref.Val {
	p, ok := other.(*object)
	if !ok || p.sh != o.sh {
		return types.False
	}
	for _, f := range o.sh.fields {
		// A nil pointer equals only another nil pointer. Following nil pointers
		// as zero values might not terminate, since a type may contain itself.
		if x, y := f.inner(o.rv).IsValid(), f.inner(p.rv).IsValid(); !x || !y {
			if x != y {
				return types.False
			}
			continue
		}
		a, b := o.Get(types.String(f.name)), p.Get(types.String(f.name))
		if types.Equal(a, b) != types.True {
			return types.False
		}
	}
	return types.True
}

func (o *object) Type() ref.Type { return o.sh.cel }
func (o *object) Value() any     { return o }

// Get implements traits.Indexer.
func (o *object) Get(name ref.Val) ref.Val {
	s, _ := name.(types.String)
	f := o.sh.byName[string(s)]
	if f == nil {
		return types.NewErr("no such field '%v'", name)
	}
	return types.DefaultTypeAdapter.NativeToValue(f.native(o.rv))
}

// IsSet implements traits.FieldTester.
func (o *object) IsSet(name ref.Val) ref.Val {
	s, _ := name.(types.String)
	f := o.sh.byName[string(s)]
	if f == nil {
		return types.NewErr("no such field '%v'", name)
	}
	_, set := f.goField(o.rv)
	return types.Bool(set)
}

var _ interface {
	traits.Indexer
	traits.FieldTester
} = (*object)(nil)

func (f *field) native(rv reflect.Value) any {
	in := f.inner(rv)
	if !in.IsValid() {
		in = reflect.New(f.sh.typ).Elem()
		if f.sh.kind == shapeDyn {
			return types.NullValue
		}
	}
	return f.sh.native(in)
}

// provider describes Go structs to cel-go's checker and interpreter.
type provider struct{ types.Provider }

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if sh := structShape(name); sh != nil {
		return types.NewTypeTypeWithParam(sh.cel), true
	}
	return p.Provider.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if sh := structShape(name); sh != nil {
		return sh.fieldNames(), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, fieldName string) (*types.FieldType, bool) {
	sh := structShape(name)
	if sh == nil {
		return p.Provider.FindStructFieldType(name, fieldName)
	}
	f := sh.byName[fieldName]
	if f == nil {
		return nil, false
	}
	return &types.FieldType{
		Type: f.sh.cel,
		IsSet: func(target any) bool {
			o, ok := target.(*object)
			if !ok {
				return false
			}
			_, set := f.goField(o.rv)
			return set
		},
		GetFrom: func(target any) (any, error) {
			o, ok := target.(*object)
			if !ok {
				return nil, errors.New("filter: there is no struct whose field could be read")
			}
			return f.native(o.rv), nil
		},
	}, true
}

// headerMap is the variable headers for cel-go's interpreter. The checks at
// compile time admit only look-ups by name.
type headerMap struct {
	traits.Mapper
	env Envelope
}

func newHeaderMap(m Envelope) headerMap {
	return headerMap{types.NewStringStringMap(types.DefaultTypeAdapter, nil), m}
}

// FindStringKey implements look-ups by a constant name.
func (h headerMap) FindStringKey(name string) (any, bool) {
	v, ok := h.env.Header(name)
	return v, ok
}

func (h headerMap) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v, ok := h.env.Header(string(name))
	return types.String(v), ok
}

func (h headerMap) Contains(key ref.Val) ref.Val {
	_, ok := h.Find(key)
	return types.Bool(ok)
}

func (h headerMap) Get(key ref.Val) ref.Val {
	v, ok := h.Find(key)
	if !ok {
		return types.NewErr("no such key: %v", key)
	}
	return v
}

func (h headerMap) Value() any { return h }

// fallbackData is the payload as the interpreter sees it, made once per
// message.
type fallbackData struct {
	val any
	ok  bool
}

// activation presents an evaluation as the interpreter's source of variables.
type activation struct{ c *evaluation }

// Parent implements cel.Activation.
func (activation) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (v activation) ResolveName(name string) (any, bool) {
	c := v.c
	switch a, ok := attributes[name]; {
	case name == "data":
		if !c.fallback.ok {
			c.fallback = fallbackData{c.wholeData(), true}
		}
		return c.fallback.val, true
	case name == "headers":
		return newHeaderMap(c.env), true
	case !ok:
		return nil, false
	case a == attrTime:
		return c.env.Time(), true
	default:
		return a.text(c.env), true
	}
}

// wholeData returns the whole payload, or the error that reading it caused.
func (c *evaluation) wholeData() any {
	data := payload(c.env)
	text, ok := jsonText(data)
	if c.sh == nil {
		if !ok {
			if data == nil {
				return types.WrapErr(errNoData)
			}
			var err error
			if text, err = json.Marshal(data); err != nil {
				return types.WrapErr(errNoData)
			}
		}
		var v any
		if err := c.decode(text, &v); err != nil {
			return types.WrapErr(err)
		}
		return v
	}
	if !ok {
		rv := reflect.ValueOf(data)
		for rv.Kind() == reflect.Pointer && !rv.IsNil() {
			rv = rv.Elem()
		}
		if !rv.IsValid() || rv.Type() != c.sh.typ {
			return types.WrapErr(errNoData)
		}
		return c.sh.native(rv)
	}
	rv := reflect.New(c.sh.typ)
	if err := c.decode(text, rv.Interface()); err != nil {
		return types.WrapErr(err)
	}
	return c.sh.native(rv.Elem())
}

// decode reads all of the text, with the same limits and the same rule for
// repeated names as for the fields.
func (c *evaluation) decode(text []byte, into any) error {
	s := scanner{b: text, maxDepth: c.maxDepth}
	s.skipSpace()
	if !s.skipValue() {
		if s.tooDeep {
			return errDepth
		}
		return errBroken
	}
	if !c.whole {
		text = firstMembers(text[:s.i])
	}
	if err := json.Unmarshal(text, into); err != nil {
		return errBroken
	}
	return nil
}

// containerRef converts a list, a map or a struct to a value of cel-go.
func (c *evaluation) containerRef(v *value) ref.Val {
	adapt := types.DefaultTypeAdapter.NativeToValue
	switch rep(v.x) {
	case repList:
		return v.p.(*constList).list
	case repGo:
		return adapt(v.sh.nativeContainer(reflect.ValueOf(v.p).Elem()))
	}
	if v.sh == nil || v.sh.kind == shapeDyn {
		var a any
		if err := c.decode(viewBytes(v.s), &a); err != nil {
			return types.WrapErr(err)
		}
		return adapt(a)
	}
	rv := reflect.New(v.sh.typ)
	if err := c.decode(viewBytes(v.s), rv.Interface()); err != nil {
		return types.WrapErr(err)
	}
	return adapt(v.sh.native(rv.Elem()))
}
