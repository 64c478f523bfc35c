package filter

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/common/types"
)

type shapeKind uint8

const (
	shapeDyn shapeKind = iota
	shapeBool
	shapeInt
	shapeUint
	shapeFloat
	shapeString
	shapeBytes
	shapeTime
	shapeDuration
	shapeList
	shapeMap
	shapeStruct
	shapeOpaque // cannot be used in an expression; reason says why
)

// shape describes what an expression sees of a Go type: its fields by their
// JSON names, with pointers followed.
type shape struct {
	kind   shapeKind
	typ    reflect.Type // never a pointer
	elem   *shape       // of a list or a map
	fields []*field
	byName map[string]*field
	cel    *types.Type
	name   string // of a struct, in CEL
	reason string
}

// field is a member of a struct as encoding/json sees it.
type field struct {
	name  string
	index []int // through embedded structs
	sh    *shape
	ptr   bool // the field is a pointer, so "not set" differs from "zero"
	depth int
	tag   bool
}

var (
	typeTime      = reflect.TypeFor[time.Time]()
	typeDuration  = reflect.TypeFor[time.Duration]()
	typeRaw       = reflect.TypeFor[json.RawMessage]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	jsonReader    = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	textReader    = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// shapes caches the results of shapeOf for as long as the program runs. It has
// one entry for each type that a filter was compiled for.
var shapes struct {
	sync.Mutex
	byType map[reflect.Type]*shape
	byName map[string]*shape
}

// shapeOf returns the shape of a type. It is safe for concurrent use.
func shapeOf(t reflect.Type) *shape {
	shapes.Lock()
	defer shapes.Unlock()
	if shapes.byType == nil {
		shapes.byType = make(map[reflect.Type]*shape)
		shapes.byName = make(map[string]*shape)
	}
	return shapeOfLocked(t)
}

// structShape returns the shape of the struct that has this name in CEL.
func structShape(name string) *shape {
	shapes.Lock()
	defer shapes.Unlock()
	return shapes.byName[name]
}

func shapeOfLocked(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if sh := shapes.byType[t]; sh != nil {
		return sh
	}
	sh := &shape{typ: t, cel: types.DynType}
	shapes.byType[t] = sh // before its parts, because types may contain themselves
	opaque := func(format string, args ...any) *shape {
		sh.kind, sh.reason = shapeOpaque, fmt.Sprintf(format, args...)
		return sh
	}
	switch t {
	case typeTime:
		sh.kind, sh.cel = shapeTime, types.TimestampType
		return sh
	case typeDuration:
		sh.kind, sh.cel = shapeDuration, types.DurationType
		return sh
	case typeRaw:
		return sh
	}
	for _, i := range []reflect.Type{jsonMarshaler, jsonReader, textMarshaler, textReader} {
		if t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(i) {
			return opaque("%v has a text form of its own (%v)", t, i)
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		sh.kind, sh.cel = shapeBool, types.BoolType
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		sh.kind, sh.cel = shapeInt, types.IntType
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		sh.kind, sh.cel = shapeUint, types.UintType
	case reflect.Float32, reflect.Float64:
		sh.kind, sh.cel = shapeFloat, types.DoubleType
	case reflect.String:
		if t == reflect.TypeFor[json.Number]() {
			return opaque("json.Number is text or number, depending on the message")
		}
		sh.kind, sh.cel = shapeString, types.StringType
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return opaque("%v may hold anything", t)
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			sh.kind, sh.cel = shapeBytes, types.BytesType
			return sh
		}
		sh.elem = shapeOfLocked(t.Elem())
		if sh.elem.kind == shapeOpaque {
			return opaque("%s", sh.elem.reason)
		}
		sh.kind, sh.cel = shapeList, types.NewListType(sh.elem.cel)
	case reflect.Map:
		if t.Key().Kind() != reflect.String || t.Key().Implements(textMarshaler) {
			return opaque("%v has keys that are no strings", t)
		}
		sh.elem = shapeOfLocked(t.Elem())
		if sh.elem.kind == shapeOpaque {
			return opaque("%s", sh.elem.reason)
		}
		sh.kind, sh.cel = shapeMap, types.NewMapType(types.StringType, sh.elem.cel)
	case reflect.Struct:
		sh.kind = shapeStruct
		sh.name = uniqueNameLocked(t)
		shapes.byName[sh.name] = sh
		sh.cel = types.NewObjectType(sh.name)
		sh.addFieldsLocked()
	default:
		return opaque("%v has no JSON form that a filter can read", t)
	}
	return sh
}

// uniqueNameLocked returns a name for the type in CEL, where names are dotted
// identifiers.
func uniqueNameLocked(t reflect.Type) string {
	base := strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, t.String())
	if t.Name() == "" {
		base = "struct"
	}
	name := base
	for i := 2; shapes.byName[name] != nil; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

// addFieldsLocked collects the members by the rules of encoding/json: those of
// embedded structs are promoted; of several with the same name, the shallowest
// counts, then the tagged one, then none.
func (sh *shape) addFieldsLocked() {
	type level struct {
		t     reflect.Type
		index []int
	}
	var found []*field
	visited := map[reflect.Type]bool{}
	for depth, now := 0, []level{{t: sh.typ}}; len(now) > 0; depth++ {
		var next []level
		for _, l := range now {
			if visited[l.t] {
				continue
			}
			visited[l.t] = true
			for i := range l.t.NumField() {
				sf := l.t.Field(i)
				ft := sf.Type
				for ft.Kind() == reflect.Pointer {
					ft = ft.Elem()
				}
				if !sf.IsExported() && !(sf.Anonymous && ft.Kind() == reflect.Struct) {
					continue
				}
				tag := sf.Tag.Get("json")
				if tag == "-" {
					continue
				}
				name, opts, _ := strings.Cut(tag, ",")
				index := append(append([]int(nil), l.index...), i)
				if name == "" && sf.Anonymous && ft.Kind() == reflect.Struct && ft != typeTime {
					next = append(next, level{ft, index})
					continue
				}
				f := &field{name: name, index: index, depth: depth, tag: name != "", ptr: sf.Type.Kind() == reflect.Pointer}
				if name == "" {
					f.name = sf.Name
				}
				f.sh = shapeOfLocked(sf.Type)
				for opt := range strings.SplitSeq(opts, ",") {
					if opt == "string" {
						f.sh = &shape{kind: shapeOpaque, cel: types.DynType, typ: ft, reason: `its tag has the "string" option`}
					}
				}
				found = append(found, f)
			}
		}
		now = next
	}
	sh.byName = make(map[string]*field, len(found))
	for _, f := range found {
		old, clash := sh.byName[f.name]
		switch {
		case !clash:
			sh.byName[f.name] = f
		case old == nil || f.depth > old.depth || f.depth == old.depth && old.tag && !f.tag:
			// The older field hides this one, or the name is already ambiguous.
		case f.depth == old.depth && f.tag == old.tag:
			sh.byName[f.name] = nil
		default:
			sh.byName[f.name] = f
		}
	}
	for _, f := range found {
		if sh.byName[f.name] == f {
			sh.fields = append(sh.fields, f)
		}
	}
	for name, f := range sh.byName {
		if f == nil {
			delete(sh.byName, name)
		}
	}
}

// lookup returns the field in which encoding/json stores a member with this
// name.
func (sh *shape) lookup(name string) *field {
	if f := sh.byName[name]; f != nil {
		return f
	}
	for _, f := range sh.fields {
		if strings.EqualFold(f.name, name) {
			return f
		}
	}
	return nil
}

func (sh *shape) fieldNames() []string {
	names := make([]string, len(sh.fields))
	for i, f := range sh.fields {
		names[i] = f.name
	}
	return names
}
