package hark

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// FuncName returns the name under which RegisterFunc registers f, without the
// ID. Pass it to Notify to reach the listeners of f by a name that the compiler
// checks. The part before the # reaches everything of its type. For
//
//	a method        (*Counter).OnIncrement or c.OnIncrement    counter.Counter#OnIncrement
//	a function      OnIncrement                                counter#OnIncrement
//	a closure       made in (*Counter).Start                   counter.Counter#Start:func1
//
// The package is the last element of its import path that is not a major
// version; pointers and type arguments leave no trace. A method promoted from
// an embedded type belongs to that type, unless it is written as a method
// expression of the outer one. A closure is named by the compiler, after a
// function it was made in, or into which that was inlined: the name may change
// with any change to the program, so give a closure that is to be notified by
// name one of its own, with Register.
//
// If f is not a function, or was made by package reflect and so has no name,
// FuncName returns ErrInvalidOption.
func FuncName(f any) (string, error) {
	owner, member, err := funcName(f)
	if err != nil {
		return "", fail("name of function", "", err)
	}
	return join(owner, member), nil
}

func funcName(f any) (owner, member string, err error) {
	v := reflect.ValueOf(f)
	if !v.IsValid() || v.Kind() != reflect.Func || v.IsNil() {
		return "", "", fmt.Errorf("%w: %T: want a function", ErrInvalidOption, f)
	}
	symbol := runtime.FuncForPC(v.Pointer()).Name()
	if strings.HasPrefix(symbol, "reflect.makeFuncStub") || strings.HasPrefix(symbol, "reflect.methodValueCall") {
		return "", "", fmt.Errorf("%w: a function made by package reflect has no name; register it with Register", ErrInvalidOption)
	}
	owner, member = splitSymbol(symbol)
	if _, err := parseName(join(owner, member)); err != nil {
		return "", "", err
	}
	return owner, member, nil
}

// splitSymbol derives a name from the symbol of a function, such as
// github.com/x/counter.(*Counter[...]).OnIncrement-fm.
func splitSymbol(symbol string) (owner, member string) {
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
		owner += "." + strings.Trim(parts[typ], "(*)")
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
