// Package symbol reads the names that the linker gives to functions.
package symbol

import (
	"slices"
	"strconv"
	"strings"
)

// Split derives a name from the symbol of a function, such as
// github.com/x/counter.(*Counter[...]).OnIncrement-fm: counter.Counter and OnIncrement.
// The name is not checked, but what separates the parts of an address is not in them.
func Split(symbol string) (owner, member string) {
	symbol = withoutTypeArgs(strings.TrimSuffix(symbol, "-fm"))
	slash := strings.LastIndexByte(symbol, '/')
	elem, rest, _ := strings.Cut(symbol[slash+1:], ".")
	owner = packageName(symbol[:max(slash, 0)], elem)
	// Empty parts come from glob..func1; F-range1 is a loop body.
	parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '.' || r == '-' })
	if len(parts) == 0 {
		return owner, ""
	}
	// (*T).M comes last if enclosing functions come first.
	typ := -1
	for i, part := range parts[:len(parts)-1] {
		if strings.HasPrefix(part, "(") {
			typ = i
		}
	}
	if typ < 0 && len(parts) > 1 && !madeUp(parts[1]) {
		typ = 0 // T.M
	}
	if typ >= 0 {
		owner += "." + clean(strings.Trim(parts[typ], "(*)"))
		parts = parts[typ+1:]
	}
	return owner, clean(strings.Join(parts, ":"))
}

// madeUp reports whether the compiler made up a part of a symbol: a number,
// func1, gowrap1 and the like.
func madeUp(part string) bool {
	prefix := strings.TrimRight(part, "0123456789")
	return prefix != part && slices.Contains([]string{"", "func", "gowrap", "deferwrap", "range"}, prefix)
}

// packageName returns the package name for the import path dir/elem, as symbols
// spell it.
func packageName(dir, elem string) string {
	elem = unescape(elem)
	if isVersion(elem) && dir != "" {
		elem = unescape(dir[strings.LastIndexByte(dir, '/')+1:])
	}
	if dot := strings.LastIndexByte(elem, '.'); dot > 0 && isVersion(elem[dot+1:]) {
		elem = elem[:dot] // gopkg.in/yaml.v3
	}
	return clean(elem)
}

func isVersion(elem string) bool {
	digits, ok := strings.CutPrefix(elem, "v")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// clean replaces the characters that a token must not contain.
func clean(token string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '.' || r == '#' || r == '*' || r == '>' || r == '$' || r <= ' ' || r == 0x7f:
			return '_'
		}
		return r
	}, token)
}

// unescape resolves the %xx in symbols.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// withoutTypeArgs removes type arguments, which are in brackets.
func withoutTypeArgs(s string) string {
	if !strings.Contains(s, "[") {
		return s
	}
	depth := 0
	return strings.Map(func(r rune) rune {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		default:
			if depth == 0 {
				return r
			}
		}
		return -1
	}, s)
}
