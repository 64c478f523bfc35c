package filter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
)

// generator generates expressions about one document: about its fields, about
// similar fields, and about fields that it does not have.
type generator struct {
	r      *rand.Rand
	places []place
	vars   []string
}

type place struct {
	expr string
	val  any
}

func newGenerator(seed uint64, doc any) *generator {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0))}
	g.collect("data", doc, 0)
	return g
}

func isName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	switch s {
	case "", "in", "true", "false", "null", "as", "break", "const", "continue", "else", "for", "function", "if",
		"import", "let", "loop", "package", "namespace", "return", "var", "void", "while":
		return false
	}
	return true
}

func sub(expr, name string) string {
	if isName(name) {
		return expr + "." + name
	}
	return expr + "[" + quote(name) + "]"
}

// quote returns s as a CEL string literal.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (g *generator) collect(expr string, v any, depth int) {
	if len(g.places) > 2000 || depth > 12 {
		return
	}
	g.places = append(g.places, place{expr, v})
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			g.collect(sub(expr, name), v[name], depth+1)
		}
	case []any:
		for i, e := range v {
			if i == 4 {
				break
			}
			g.collect(fmt.Sprintf("%s[%d]", expr, i), e, depth+1)
		}
	}
}

func pick[T any](g *generator, of ...T) T { return of[g.r.IntN(len(of))] }

func (g *generator) place() place { return g.places[g.r.IntN(len(g.places))] }

// placeWhere prefers a place whose value satisfies want.
func (g *generator) placeWhere(want func(any) bool) place {
	for range 20 {
		if p := g.place(); want(p.val) {
			return p
		}
	}
	return g.place()
}

func isList(v any) bool   { _, ok := v.([]any); return ok }
func isString(v any) bool { _, ok := v.(string); return ok }

func (g *generator) path() string {
	p := g.place().expr
	switch g.r.IntN(12) {
	case 0:
		p = sub(p, pick(g, "nope", "id", "name", "login", "a b", "Id", ""))
	case 1:
		if len(g.vars) > 0 {
			return g.variable()
		}
	case 2:
		p += pick(g, "[0]", "[1]", "[-1]", "[99]", "[1.0]", "[0.5]", "[0u]", `["id"]`, "[true]", "[data.id]", "[key]")
	}
	return p
}

func (g *generator) variable() string {
	v := pick(g, g.vars...)
	switch g.r.IntN(4) {
	case 0:
		return v
	case 1:
		return sub(v, pick(g, "id", "name", "login", "url", "color", "nope", "user", "default"))
	case 2:
		return sub(sub(v, pick(g, "user", "owner", "author", "nope")), pick(g, "login", "id"))
	}
	return pick(g, v, sub(v, "id"), v+"[0]", sub(g.place().expr, "x")+"["+v+"]", "data["+v+"]")
}

func (g *generator) literal() string {
	if g.r.IntN(3) == 0 {
		switch v := g.place().val.(type) {
		case string:
			if g.r.IntN(3) == 0 && v != "" {
				cut := g.r.IntN(len(v) + 1)
				v = strings.ToValidUTF8(v[:cut], "")
			}
			return quote(v)
		case float64:
			return g.number(v)
		case bool:
			return strconv.FormatBool(v)
		}
	}
	return pick(g, `""`, `"a"`, `"octo"`, `"Codertocat"`, "0", "1", "2", "-1", "5u", "0u", "1.5", "0.0", "-0.0", "1e3", "true",
		"false", "null", "9223372036854775807", "-9223372036854775808", "18446744073709551615u", "9007199254740993", "1e308", `b"a"`,
		`"é"`, `"\u0000"`, "[]", "[1, 2.0, \"a\"]", "186853002", `timestamp("2019-05-15T15:20:00Z")`, `duration("90m")`)
}

func (g *generator) number(v float64) string {
	switch {
	case v == float64(int64(v)) && v > -1e15 && v < 1e15:
		return fmt.Sprint(pick(g, "", "", "-")) + fmt.Sprintf(pick(g, "%d", "%d.0", "%d"), abs(int64(v)+int64(g.r.IntN(3)/2)))
	}
	s := strconv.FormatFloat(v, 'e', -1, 64)
	return s
}

func abs(i int64) int64 {
	if i < 0 {
		return -i
	}
	return i
}

// value generates an expression of any type.
func (g *generator) value(depth int) string {
	if depth <= 0 {
		if g.r.IntN(3) == 0 {
			return g.literal()
		}
		return g.path()
	}
	switch g.r.IntN(22) {
	case 0, 1, 2, 3, 4, 5, 6:
		return g.path()
	case 7, 8:
		return g.literal()
	case 9, 10:
		return "(" + g.value(depth-1) + " " + pick(g, "+", "-", "*", "/", "%") + " " + g.value(depth-1) + ")"
	case 11:
		return pick(g, "size(%s)", "%s.size()")[:0] + "size(" + g.value(depth-1) + ")"
	case 12:
		return "(" + g.bool(depth-1) + " ? " + g.value(depth-1) + " : " + g.value(depth-1) + ")"
	case 13:
		return pick(g, "int", "uint", "double", "string", "bool", "timestamp", "duration", "bytes") + "(" + g.value(depth-1) + ")"
	case 14:
		return g.placeWhere(isString).expr + pick(g, ".lowerAscii()", ".upperAscii()", ".size()", ".trim()", `.split("/")`, `.replace("o", "0")`)
	case 15:
		return pick(g, "id", "source", "type", "subject", "topic", "key", `headers["region"]`, "headers.tenant", "headers.nope", "headers[key]")
	case 16:
		return "timestamp(" + g.placeWhere(isTime).expr + ")" + pick(g, "", ".getFullYear()", ".getMonth()", ".getHours()", `.getHours("+02:00")`,
			`.getDayOfWeek("America/New_York")`, ".getDate()", ".getMilliseconds()", " + duration(\"1h\")", " - time", " - duration(\"1h\")")
	case 17:
		return pick(g, "time", "time.getSeconds()", "(time - timestamp(\"2024-01-01T00:00:00Z\")).getHours()", "duration(\"3s\").getSeconds()", "-duration(\"1h\")")
	case 18:
		return "-" + g.value(depth-1)
	case 19:
		return g.placeWhere(isList).expr + pick(g, ".filter(z, z == 1)", ".map(z, z)", ".map(z, z.name)", "[0]")
	case 20:
		return g.bool(depth - 1)
	}
	return "[" + g.value(depth-1) + ", " + g.value(depth-1) + "]"
}

func isTime(v any) bool {
	s, ok := v.(string)
	return ok && len(s) >= 19 && s[4] == '-' && s[10] == 'T'
}

// bool generates an expression that is true, false or an error.
func (g *generator) bool(depth int) string {
	if depth <= 0 {
		if g.r.IntN(3) == 0 {
			return "has(" + sub(g.path(), pick(g, "id", "name", "nope", "login")) + ")"
		}
		return g.compareField()
	}
	switch g.r.IntN(20) {
	case 0, 1, 2, 3:
		return "(" + g.bool(depth-1) + pick(g, " && ", " || ") + g.bool(depth-1) + ")"
	case 4:
		return "!(" + g.bool(depth-1) + ")"
	case 5:
		return "(" + g.bool(depth-1) + " ? " + g.bool(depth-1) + " : " + g.bool(depth-1) + ")"
	case 6, 7, 8:
		return g.compareField()
	case 9, 10:
		return "(" + g.value(depth-1) + pick(g, " == ", " != ", " < ", " <= ", " > ", " >= ") + g.value(depth-1) + ")"
	case 11:
		return "(" + g.value(depth-1) + " in " + pick(g, g.path(), "["+g.literal()+", "+g.literal()+"]", "["+g.value(depth-1)+", "+g.literal()+"]",
			g.placeWhere(isList).expr, "headers") + ")"
	case 12:
		return "has(" + sub(g.path(), pick(g, "id", "name", "nope", "login", "url")) + ")"
	case 13, 14:
		p := g.placeWhere(isString)
		return p.expr + pick(g, ".startsWith(", ".endsWith(", ".contains(") + pick(g, g.literal(), g.value(depth-1), quote(g.piece(p.val))) + ")"
	case 15:
		return g.placeWhere(isString).expr + ".matches(" + pick(g, `"^https://"`, `"[0-9]+"`, `"^octo$"`, `"(?i)CODER"`, `"é|."`, `"^$"`, `"oc.o"`, `"cat$"`) + ")"
	case 16, 17:
		name := pick(g, "x", "y", "e", "type")
		over := g.placeWhere(isList).expr
		if g.r.IntN(3) == 0 {
			over = pick(g, g.path(), "data", "[1, 2, 3]", `["id", "name"]`)
		}
		g.vars = append(g.vars, name)
		body := g.bool(depth - 1)
		g.vars = g.vars[:len(g.vars)-1]
		return over + pick(g, ".exists(", ".all(", ".exists_one(") + name + ", " + body + ")"
	case 18:
		return pick(g, "true", "false", "has(headers.region)", "has(headers.nope)", `"region" in headers`, "headers.region == \"eu\"", `type == "push"`, `topic.startsWith("hooks.")`)
	}
	return g.path()
}

func (g *generator) piece(v any) string {
	s, _ := v.(string)
	if s == "" {
		return "x"
	}
	a := g.r.IntN(len(s))
	b := a + g.r.IntN(len(s)-a) + 1
	return strings.ToValidUTF8(pick(g, s[:b], s[a:b], s[a:]), "")
}

// compareField generates a comparison of a field with something like its value.
func (g *generator) compareField() string {
	if len(g.vars) > 0 && g.r.IntN(2) == 0 {
		return "(" + g.variable() + pick(g, " == ", " != ", " < ", " > ") + g.literal() + ")"
	}
	p := g.place()
	op := pick(g, " == ", " == ", " == ", " != ", " < ", " <= ", " > ", " >= ")
	switch v := p.val.(type) {
	case string:
		return "(" + p.expr + op + quote(v) + ")"
	case float64:
		return "(" + p.expr + op + g.number(v) + ")"
	case bool:
		return "(" + p.expr + op + pick(g, "true", "false") + ")"
	case nil:
		return "(" + p.expr + pick(g, " == ", " != ") + "null)"
	}
	return "(" + p.expr + op + g.literal() + ")"
}

// decodeAny decodes a document with encoding/json. It returns nil if the
// document is damaged.
func decodeAny(doc []byte) any {
	var v any
	if json.Unmarshal(doc, &v) != nil {
		return nil
	}
	return v
}
