package filter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// syntaxError converts cel-go's complaints about text that it cannot parse.
// Only the first counts, because the others follow from it.
func syntaxError(text string, issues *cel.Issues) *Error {
	all := issues.Errors()
	first := all[0]
	for _, issue := range all[1:] {
		if at, of := issue.Location, first.Location; at.Line() < of.Line() || at.Line() == of.Line() && at.Column() < of.Column() {
			first = issue
		}
	}
	said, _, _ := strings.Cut(first.Message, "\n")
	e := &Error{Expr: text, Line: max(first.Location.Line(), 1), Column: max(first.Location.Column(), 0) + 1}
	lines := strings.Split(text, "\n")
	line := []rune(lines[min(e.Line, len(lines))-1])
	at := min(e.Column-1, len(line))
	p := parseFailure{before: string(line[:at]), rest: string(line[at:]), said: said}
	back := 0
	e.Message, e.Hint, back = p.explain()
	e.Column -= back
	return e
}

// parseFailure is the place in a line where the parser stopped.
type parseFailure struct {
	before, rest string // of the line
	said         string // by the parser
}

// otherOperators are operators of other languages and common slips, the longer
// ones first.
var otherOperators = []struct{ written, meant string }{
	{"=~", `data.x.matches("pattern")`},
	{"=>", ">="},
	{"=<", "<="},
	{"=!", "!="},
	{"=", "=="},
	{"&", "&&"},
	{"|", "||"},
}

// otherWords are operators of other languages that are written as words.
var otherWords = map[string]string{
	"and": "&&", "or": "||", "is": "==", "eq": "==", "equals": "==", "ne": "!=", "not": "!",
	"like": `data.x.contains("text")`, "contains": `data.x.contains("text")`, "matches": `data.x.matches("pattern")`,
	"startswith": `data.x.startsWith("text")`, "endswith": `data.x.endsWith("text")`,
}

var (
	leadingWord  = regexp.MustCompile(`^[\pL_][\pL\pN_]*`)
	trailingWord = regexp.MustCompile(`([\pL_][\pL\pN_]*)\s+$`)
	listInParens = regexp.MustCompile(`\bin\s*\([^()]*$`)
	quotedInput  = regexp.MustCompile(`(?:input|at:?|missing) '(.*?)'(?: expecting| at|$)`)
)

// explain returns what is wrong, what to write instead, and how many characters
// before the parser's position the fault is.
func (p *parseFailure) explain() (message, hint string, back int) {
	noOperator := func(written, meant string) (string, string, int) {
		if len(meant) > 2 {
			return fmt.Sprintf("there is no operator %q", written), "write " + meant, 0
		}
		return fmt.Sprintf("there is no operator %q", written), fmt.Sprintf("did you mean %q?", meant), 0
	}
	switch {
	case strings.HasSuffix(p.before, "==") && strings.HasPrefix(p.rest, "="), strings.HasSuffix(p.before, "!=") && strings.HasPrefix(p.rest, "="):
		operator := p.before[len(p.before)-2:]
		message, hint, _ = noOperator(operator+"=", operator)
		return message, hint, 2
	case strings.HasSuffix(p.before, "<") && strings.HasPrefix(p.rest, ">"):
		message, hint, _ = noOperator("<>", "!=")
		return message, hint, 1
	}
	for _, o := range otherOperators {
		if after, ok := strings.CutPrefix(p.rest, o.written); ok && !strings.HasPrefix(after, o.written) {
			return noOperator(o.written, o.meant)
		}
	}
	if m := trailingWord.FindStringSubmatch(p.before); m != nil {
		if meant := otherWords[strings.ToLower(m[1])]; meant == "!" {
			message, hint, _ = noOperator(m[1], meant)
			return message, hint, len([]rune(m[0]))
		}
	}
	word := leadingWord.FindString(p.rest)
	if strings.EqualFold(word, "not") {
		return "\"not\" is not expected here", `write !(data.x in ["a"])`, 0
	}
	if meant := otherWords[strings.ToLower(word)]; meant != "" && meant != "!" {
		return noOperator(word, meant)
	}
	return p.explainCharacter(word)
}

// explainCharacter is explain for text that is not an operator.
func (p *parseFailure) explainCharacter(word string) (message, hint string, back int) {
	first := []rune(p.rest + "\x00")[0]
	switch {
	case strings.TrimSpace(p.rest) == "" && strings.HasPrefix(p.said, "Syntax error: missing ')'"):
		return `a ")" is missing`, "", 0
	case strings.TrimSpace(p.rest) == "" && strings.HasPrefix(p.said, "Syntax error: missing ']'"):
		return `a "]" is missing`, "", 0
	case strings.TrimSpace(p.rest) == "":
		return "the expression ends where a value, or something that closes it, is missing", "", 0
	case strings.ContainsRune("“”„‘’‚«»`´", first):
		return fmt.Sprintf("%q is no quote of a text", string(first)), `texts are written "x" or 'x'`, 0
	case (first == '"' || first == '\'') && strings.Contains(p.said, "token recognition"):
		if strings.Contains(p.rest[1:], string(first)) {
			return "a backslash in the text that begins here has no meaning", `a backslash is written \\`, 0
		}
		return "the text that begins here does not end in this line", "", 0
	case word != "" && (strings.HasSuffix(p.before, "'") || strings.HasSuffix(p.before, `"`)):
		quote := p.before[len(p.before)-1:]
		return "the text ends before this", fmt.Sprintf(`a quote in a text is written \%s`, quote), 0
	case first == ',' && listInParens.MatchString(p.before):
		return "a list is not written in parentheses", `write ["a", "b"]`, 0
	case first == ',' && strings.HasSuffix(strings.TrimRightFunc(p.before, unicode.IsDigit), " ") && leadingDigit(p.rest[1:]):
		return "a number has no commas", "", 0
	case first == '#':
		return `"#" has no meaning in a filter`, "a comment begins with //", 0
	case first == '$':
		return `"$" has no meaning in a filter`, "fields of the payload are data.x", 0
	case strings.Contains(p.said, "token recognition"):
		return fmt.Sprintf("%q has no meaning in a filter", string(first)), "", 0
	case strings.HasPrefix(p.said, "reserved identifier"):
		return fmt.Sprintf("%q is a reserved word", word), "", 0
	}
	m := quotedInput.FindStringSubmatch(p.said)
	switch {
	case m == nil:
		return strings.TrimPrefix(p.said, "Syntax error: "), "", 0
	case strings.ContainsAny(m[1], ")]}") && strings.Contains(p.said, "expecting <EOF>"):
		return fmt.Sprintf("nothing before this opens %q", m[1]), "", 0
	case strings.Contains(p.said, "expecting {"):
		return fmt.Sprintf("a value is missing before %q", m[1]), "", 0
	case strings.HasPrefix(p.said, "Syntax error: missing"):
		return fmt.Sprintf("%q is missing", m[1]), "", 0
	}
	if word != "" && strings.HasSuffix(p.before, " ") {
		hint = "between two conditions stands && or ||"
	}
	return fmt.Sprintf("%q is not expected here", m[1]), hint, 0
}

func leadingDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// otherNames maps names used in other languages to their equivalents here.
var otherNames = map[string]string{
	"nil": "null", "none": "null", "undefined": "null", "null": "null", "true": "true", "false": "false",
	"payload": "data", "body": "data", "header": "headers",
}

// suggestWriting returns what to write instead of an unknown name, or "" if the
// context does not make that clear.
func suggestWriting(name string, text string, line, column int, parsed *ast.AST, id int64) string {
	if meant := otherNames[strings.ToLower(name)]; meant != "" {
		return fmt.Sprintf("did you mean %s?", meant)
	}
	if hint := suggestDash(text, line, column, name); hint != "" {
		return hint
	}
	if parsed != nil && comparedWith(parsed.Expr(), id) {
		return fmt.Sprintf("a text is written %q, a field of the payload data.%s", name, name)
	}
	return ""
}

// suggestDash returns how to write a name with a dash, if the name at this
// place is the second part of one.
func suggestDash(text string, line, column int, name string) string {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	runes := []rune(lines[line-1])
	before := string(runes[:min(max(column-1, 0), len(runes))])
	if m := dashedName.FindStringSubmatch(before); m != nil {
		return fmt.Sprintf("a name with a dash in it is written %s[%q]", m[1], m[2]+"-"+name)
	}
	return ""
}

// dashedName matches what precedes the second part of a name with a dash.
var dashedName = regexp.MustCompile(`(\b(?:data|headers)(?:\.[\pL\pN_]+)*)\.([\pL_][\pL\pN_]*)-$`)

// comparedWith reports whether the part of an expression with the given id is
// the right side of a comparison or an element of a list.
func comparedWith(root ast.Expr, id int64) (found bool) {
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			args := e.AsCall().Args()
			comparison := slices.Contains([]string{operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals}, e.AsCall().FunctionName())
			found = found || comparison && len(args) == 2 && args[1].ID() == id
		case ast.ListKind:
			for _, x := range e.AsList().Elements() {
				found = found || x.ID() == id
			}
		}
	}))
	return found
}
