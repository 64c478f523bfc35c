package filter

import (
	"errors"
	"strings"
	"testing"
)

// TestSlips checks the errors for slips and for operators of other languages:
// there is one error, at the right place, that says what to write instead in
// words that are not a parser's.
func TestSlips(t *testing.T) {
	tests := []struct{ expr, want string }{ // the fault is where the ^ is
		{`data.x ^= 1`, `there is no operator "=" (did you mean "=="?)`},
		{`1 ^= data.x`, `there is no operator "=" (did you mean "=="?)`},
		{`data.x ^=== 1`, `there is no operator "===" (did you mean "=="?)`},
		{`data.x ^!== 1`, `there is no operator "!==" (did you mean "!="?)`},
		{`data.x ^<> 1`, `there is no operator "<>" (did you mean "!="?)`},
		{`data.x ^=> 1`, `there is no operator "=>" (did you mean ">="?)`},
		{`data.x ^=< 1`, `there is no operator "=<" (did you mean "<="?)`},
		{`data.x ^=! 1`, `there is no operator "=!" (did you mean "!="?)`},
		{`data.x ^=~ "a"`, `there is no operator "=~" (write data.x.matches("pattern"))`},
		{`data.x == 1 ^& data.y == 2`, `there is no operator "&" (did you mean "&&"?)`},
		{`data.x == 1 ^| data.y == 2`, `there is no operator "|" (did you mean "||"?)`},
		{`data.x == 1 ^and data.y == 2`, `there is no operator "and" (did you mean "&&"?)`},
		{`data.x == 1 ^OR data.y == 2`, `there is no operator "OR" (did you mean "||"?)`},
		{`^not data.x`, `there is no operator "not" (did you mean "!"?)`},
		{`"ä" == key && ^not data.x`, `there is no operator "not" (did you mean "!"?)`},
		{`data.x ^not in ["a"]`, `"not" is not expected here (write !(data.x in ["a"]))`},
		{`data.x ^is null`, `there is no operator "is" (did you mean "=="?)`},
		{`data.x ^contains "a"`, `there is no operator "contains" (write data.x.contains("text"))`},
		{`data.x in ("a"^, "b")`, `a list is not written in parentheses (write ["a", "b"])`},
		{`data.x > 1^,000`, `a number has no commas`},
		{`data.x == ^“a”`, `"“" is no quote of a text (texts are written "x" or 'x')`},
		{`data.x == ^'a`, `the text that begins here does not end in this line`},
		{`data.x == ^'a\q'`, `a backslash in the text that begins here has no meaning (a backslash is written \\)`},
		{`data.x == 'it'^s'`, `the text ends before this (a quote in a text is written \')`},
		{`data.x == 1 ^# one`, `"#" has no meaning in a filter (a comment begins with //)`},
		{`^$data.x == 1`, `"$" has no meaning in a filter (fields of the payload are data.x)`},
		{`data.x == 1^;`, `";" has no meaning in a filter`},
		{`data.x == 1 ^data.y == 2`, `"data" is not expected here (between two conditions stands && or ||)`},
		{`(data.x == 1^`, `a ")" is missing`},
		{`data.x[0 == 1^`, `a "]" is missing`},
		{`data.x == 1^)`, `nothing before this opens ")"`},
		{`data.x == 1 &&^`, `the expression ends where a value, or something that closes it, is missing`},
		{`^&& data.x`, `a value is missing before "&&"`},
		{`^if data.x == 1`, `"if" is a reserved word`},
		{`data.x == ^eu`, `there is no "eu" (a text is written "eu", a field of the payload data.eu)`},
		{`data.x in ["a", ^eu]`, `there is no "eu" (a text is written "eu", a field of the payload data.eu)`},
		{`data.a.b-^c == 1`, `there is no "c" (a name with a dash in it is written data.a["b-c"])`},
		{`data.x == ^True`, `there is no "True" (did you mean true?)`},
		{`data.x != ^nil`, `there is no "nil" (did you mean null?)`},
		{`^payload.x == 1`, `there is no "payload" (did you mean data?)`},
	}
	for _, tt := range tests {
		before, after, _ := strings.Cut(tt.expr, "^")
		_, err := Compile(before + after)
		var e *Error
		var all Errors
		if !errors.As(err, &e) || errors.As(err, &all) {
			t.Errorf("%s: got %v, want one error", tt.expr, err)
			continue
		}
		got := e.Message
		if e.Hint != "" {
			got += " (" + e.Hint + ")"
		}
		if column := len([]rune(before)) + 1; got != tt.want || e.Column != column || e.Line != 1 {
			t.Errorf("%s: got %d:%d: %s, want 1:%d: %s", tt.expr, e.Line, e.Column, got, column, tt.want)
		}
	}
}
