package filter

import (
	"errors"
	"strings"
	"testing"
)

func TestCompileErrors(t *testing.T) {
	typed := []Option{For[order]()}
	tests := []struct {
		name, expr string
		opts       []Option
		want       string
	}{
		{"unknown name", `subjct == "x"`, nil, `filter: 1:1: there is no "subjct" (did you mean "subject"?)
    subjct == "x"
    ^`},
		{"field without data", `total > 5`, nil, `filter: 1:1: there is no "total" (the payload's fields are under data: data.total)
    total > 5
    ^`},
		{"second line", "type == \"a\" &&\n\tdata.x == 1 &&\n\ttopik == \"b\"", nil, `filter: 3:2: there is no "topik" (did you mean "topic"?)
    	topik == "b"
    	^`},
		{"behind characters of several bytes", `type == "äöü" && nope`, nil, `filter: 1:18: there is no "nope" (the payload's fields are under data: data.nope)
    type == "äöü" && nope
                     ^`},
		{"unknown field", `data.customer.nmae == "x"`, typed, `filter: 1:15: there is no field "nmae" (did you mean "name"?)
    data.customer.nmae == "x"
                  ^`},
		{"field of wrong case", `data.Total > 1`, typed, `filter: 1:6: there is no field "Total" in filter.order (did you mean "total"?)
    data.Total > 1
         ^`},
		{"unknown function", `type.startWith("a")`, nil, `filter: 1:15: there is no "startWith" (did you mean "startsWith"?)
    type.startWith("a")
                  ^`},
		{"type mismatch", `data.total == "5"`, typed, `filter: 1:12: == is not defined for (int, string)
    data.total == "5"
               ^`},
		{"syntax", `data.x ==`, nil, `filter: 1:10: the expression ends where a value, or something that closes it, is missing
    data.x ==
             ^`},
		{"empty", "  ", nil, `filter: 1:1: the expression is empty
      
    ^`},
		{"not a bool", `size(type)`, nil, `filter: 1:1: a filter is true or false, but this is of type int
    size(type)
    ^`},
		{"pattern from the message", `type.matches(data.p)`, nil, `filter: 1:18: the pattern of matches must be a string constant
    type.matches(data.p)
                     ^`},
		{"bad pattern", `type.matches("a(")`, nil, "filter: 1:14: error parsing regexp: missing closing ): `a(`" + `
    type.matches("a(")
                 ^`},
		{"huge pattern", `type.matches("(a{100}){10}")`, nil, `filter: 1:14: the regular expression compiles to 1022 instructions, more than the 1000 allowed
    type.matches("(a{100}){10}")
                 ^`},
		{"all headers", `headers.exists(h, h == "x")`, nil, `filter: 1:1: headers can only be looked up by name: headers["x"], has(headers.x), "x" in headers
    headers.exists(h, h == "x")
    ^`},
		{"nested macros", `data.a.all(x, x.all(y, y.all(z, z == 1)))`, nil, `filter: 1:29: more than 2 macros nested in each other
    data.a.all(x, x.all(y, y.all(z, z == 1)))
                                ^`},
		{"making a struct", `filter.order{} == data`, typed, `filter: 1:13: a filter cannot make a filter.order
    filter.order{} == data
                ^`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(tt.expr, tt.opts...)
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("the error is a %T, want an *Error", err)
			}
		})
	}
}

func TestSeveralErrors(t *testing.T) {
	_, err := Compile(`a == 1 && b == 2`)
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 || all[0].Column != 1 || all[1].Column != 11 {
		t.Errorf("got %v, want two errors at columns 1 and 11", err)
	}
}

func TestLimits(t *testing.T) {
	deep := strings.Repeat("!(", 80) + "true" + strings.Repeat(")", 80)
	tests := []struct {
		name, expr string
		opts       []Option
		want       string
	}{
		{"length", `type == "` + strings.Repeat("x", DefaultMaxLength) + `"`, nil, "more than the 4096 allowed"},
		{"shorter length", `type == "x"`, []Option{MaxLength(10)}, "more than the 10 allowed"},
		{"nesting", deep, nil, "more than the 64 allowed"},
		{"a limit of none", "true", []Option{MaxNesting(0)}, "must be positive"},
		{"macros", `data.all(x, data.all(y, x == y))`, []Option{MaxMacroNesting(1)}, "more than 1 macros"},
	}
	for _, tt := range tests {
		if _, err := Compile(tt.expr, tt.opts...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	mustCompile(t, deep, MaxNesting(200))
	mustCompile(t, `type.matches("(a{100}){10}")`, MaxRegexp(2000))

	long := []byte(`{"l":[` + strings.Repeat("1,", 999) + `1]}`)
	if ok, err := mustCompile(t, `data.l.all(x, x == 1)`, MaxSteps(1000)).Eval(newMessage(long)); !ok || err != nil {
		t.Errorf("1000 steps of 1000: got %v, %v", ok, err)
	}
	if _, err := mustCompile(t, `data.l.all(x, x == 1)`, MaxSteps(999)).Eval(newMessage(long)); !errors.Is(err, ErrLimit) {
		t.Errorf("1000 steps of 999: got error %v, want ErrLimit", err)
	}
	if _, err := mustCompile(t, `data.l.map(x, data.l.map(y, x)).size() == 1`, MaxSteps(1000)).Eval(newMessage(long)); !errors.Is(err, ErrLimit) {
		t.Errorf("a million steps on the interpreter: got error %v, want ErrLimit", err)
	}
	nested := []byte(`{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `,"b":1}`)
	if ok, err := mustCompile(t, `data.b == 1`, MaxPayloadDepth(21)).Eval(newMessage(nested)); !ok || err != nil {
		t.Errorf("depth 21 of 21: got %v, %v", ok, err)
	}
	if _, err := mustCompile(t, `data.b == 1`, MaxPayloadDepth(20)).Eval(newMessage(nested)); !errors.Is(err, ErrLimit) {
		t.Errorf("depth 21 of 20: got error %v, want ErrLimit", err)
	}
	abyss := []byte(strings.Repeat(`{"a":[`, 1e5))
	if _, err := mustCompile(t, `data.b == 1`).Eval(newMessage(abyss)); !errors.Is(err, ErrLimit) {
		t.Errorf("bottomless: got error %v, want ErrLimit", err)
	}
}

func TestEvalErrors(t *testing.T) {
	doc := []byte(`{"a":1,"s":"x","l":[1,2],"o":{}}`)
	tests := []struct {
		expr string
		want error
	}{
		{`data.nope == 1`, ErrNoSuchField},
		{`data.o.nope == 1`, ErrNoSuchField},
		{`data.l[5] == 1`, ErrNoSuchField},
		{`headers["nope"] == ""`, ErrNoSuchField},
		{`data.s < 5`, ErrType},
		{`data.s && true`, ErrType},
		{`data.a.startsWith("x")`, ErrType},
		{`data.a`, ErrType},
		{`int(data.s) == 1`, ErrRange},
		{`1 / int(data.a - 1.0) == 1`, ErrRange},
		{`timestamp(data.s) < time`, ErrRange},
		{`9223372036854775807 + int(data.a) == 0`, ErrRange},
		{`data.s.replace("x", "y") == data.nope`, ErrNoSuchField},
	}
	for _, tt := range tests {
		f := mustCompile(t, tt.expr)
		ok, err := f.Eval(newMessage(doc))
		if ok || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, %v; want error %v", tt.expr, ok, err, tt.want)
		}
		if f.Match(newMessage(doc)) {
			t.Errorf("%s: matches, though it fails", tt.expr)
		}
	}
	if _, err := mustCompile(t, `data.a == 1`).Eval(newMessage([]byte(`{"a"`))); !errors.Is(err, ErrMalformed) {
		t.Errorf("got error %v, want ErrMalformed", err)
	}
}

func TestExplain(t *testing.T) {
	tests := []struct {
		expr string
		want string
	}{
		{`data.a == 1 && type == "x"`, `expression: data.a == 1 && type == "x"
reads:      data.a
runs:       all of it as closures
`},
		{`type == "x" && data.l.filter(x, x > 1).size() == 2`, `expression: type == "x" && data.l.filter(x, x > 1).size() == 2
reads:      nothing of the payload by itself
runs:       as closures, except on cel-go's interpreter, which reads the whole payload:
  1:44  data.l.filter(x, x > 1).size()
        because a macro that makes a list runs on the interpreter
`},
	}
	for _, tt := range tests {
		got, err := Explain(tt.expr)
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}
