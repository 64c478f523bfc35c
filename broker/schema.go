package broker

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// schema is a JSON schema, in the form of OpenAPI 3.1.
type schema map[string]any

// schemas makes schemas of Go types. It collects those of named structs, and refers
// to them.
type schemas map[string]schema

var (
	timeType  = reflect.TypeFor[time.Time]()
	rawType   = reflect.TypeFor[json.RawMessage]()
	bytesType = reflect.TypeFor[[]byte]()
	eventType = reflect.TypeFor[Event]()
)

// of returns the schema of a type, as package encoding/json encodes it.
func (s schemas) of(t reflect.Type) schema {
	switch t {
	case timeType:
		return schema{"type": "string", "format": "date-time"}
	case rawType:
		return schema{}
	case bytesType:
		return schema{"type": "string", "contentEncoding": "base64"}
	case eventType:
		return s.named("Event", reflect.TypeFor[eventJSON]())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Int, reflect.Int64, reflect.Int32:
		return schema{"type": "integer"}
	case reflect.Uint, reflect.Uint64, reflect.Uint32:
		return schema{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return schema{"type": "number"}
	case reflect.Slice:
		return schema{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.named(schemaName(t.Name()), t)
	case reflect.Interface:
		return schema{}
	}
	panic("there is no schema for " + t.String()) // TestOpenAPI makes all of them
}

// named returns a reference to the schema of a struct.
func (s schemas) named(name string, t reflect.Type) schema {
	if s[name] == nil {
		s[name] = schema{} // the struct may refer to itself
		s[name] = s.object(t)
	}
	return schema{"$ref": "#/components/schemas/" + name}
}

// schemaName returns the name of the schema of a type: topicView becomes TopicView,
// and page[broker.topicView] becomes PageOfTopicView.
func schemaName(name string) string {
	if outer, inner, ok := strings.Cut(strings.TrimSuffix(name, "]"), "["); ok {
		return schemaName(outer) + "Of" + schemaName(inner[strings.LastIndexByte(inner, '.')+1:])
	}
	return upperFirst(strings.TrimSuffix(name, "JSON"))
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// object returns the schema of a struct.
func (s schemas) object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	s.members(t, properties, &required)
	o := schema{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// members adds the fields of a struct, and those of embedded structs.
func (s schemas) members(t reflect.Type, properties schema, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			s.members(f.Type, properties, required)
			continue
		case !f.IsExported() || name == "-":
			continue
		}
		member := s.of(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			member["description"] = doc
		}
		if choices := f.Tag.Get("enum"); choices != "" {
			member["enum"] = strings.Fields(choices)
		}
		properties[name] = member
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
