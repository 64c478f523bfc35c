package filter

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

var variableNames = []string{"id", "source", "type", "subject", "time", "topic", "key", "headers", "data"}

// environments caches the CEL environment of each declared type of data.
var environments sync.Map // *shape (nil for none) to *cel.Env

func environmentFor(sh *shape) (*cel.Env, error) {
	if env, ok := environments.Load(sh); ok {
		return env.(*cel.Env), nil
	}
	data := cel.DynType
	if sh != nil {
		data = sh.cel
	}
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	env, err := cel.NewEnv(
		cel.CustomTypeProvider(provider{registry}),
		cel.CustomTypeAdapter(registry),
		ext.Strings(),
		cel.EnableMacroCallTracking(),
		cel.Variable("id", cel.StringType),
		cel.Variable("source", cel.StringType),
		cel.Variable("type", cel.StringType),
		cel.Variable("subject", cel.StringType),
		cel.Variable("topic", cel.StringType),
		cel.Variable("key", cel.StringType),
		cel.Variable("time", cel.TimestampType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("data", data),
	)
	if err != nil {
		return nil, err
	}
	environments.Store(sh, env)
	return env, nil
}

// parse parses and checks text.
func parse(text string, o *settings) (*cel.Env, *ast.AST, error) {
	if len(text) > o.length {
		return nil, nil, &Error{
			Expr: "", Line: 1, Column: 1,
			Message: fmt.Sprintf("the expression has %d bytes, more than the %d allowed", len(text), o.length),
		}
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil, &Error{Expr: text, Line: 1, Column: 1, Message: "the expression is empty"}
	}
	env, err := environmentFor(o.sh)
	if err != nil {
		return nil, nil, fmt.Errorf("filter: %w", err)
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, nil, syntaxError(text, issues)
	}
	if h := ast.Heights(parsed.NativeRep())[parsed.NativeRep().Expr().ID()]; h > o.nesting {
		return nil, nil, &Error{
			Expr: text, Line: 1, Column: 1,
			Message: fmt.Sprintf("the expression nests %d levels deep, more than the %d allowed", h, o.nesting),
		}
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, nil, fromIssues(text, issues, parsed.NativeRep(), env, o)
	}
	native := checked.NativeRep()
	if out := checked.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, nil, &Error{
			Expr: text, Line: 1, Column: 1,
			Message: fmt.Sprintf("a filter is true or false, but this is of type %s", out),
		}
	}
	return env, native, nil
}

var (
	undeclared  = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	undefined   = regexp.MustCompile(`^undefined field '([^']*)'`)
	noOverload  = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	operatorRef = strings.NewReplacer("_==_", "==", "_!=_", "!=", "_<=_", "<=", "_>=_", ">=", "_<_", "<", "_>_", ">",
		"_&&_", "&&", "_||_", "||", "_?_:_", "?:", "_+_", "+", "_-_", "-", "_*_", "*", "_/_", "/", "_%_", "%",
		"@in", "in", "!_", "!", "-_", "-", "_[_]", "[]")
)

// fromIssues converts cel-go's complaints about an expression that it could
// parse.
func fromIssues(text string, issues *cel.Issues, parsed *ast.AST, env *cel.Env, o *settings) error {
	var out Errors
	for _, issue := range issues.Errors() {
		e := &Error{Expr: text, Line: issue.Location.Line(), Column: issue.Location.Column() + 1}
		e.Message, _, _ = strings.Cut(issue.Message, "\n")
		switch {
		case undeclared.MatchString(e.Message):
			name := undeclared.FindStringSubmatch(e.Message)[1]
			e.Message = fmt.Sprintf("there is no %q", name)
			if e.Hint = suggestWriting(name, text, e.Line, e.Column, parsed, issue.ExprID); e.Hint == "" {
				e.Hint = suggestName(name, parsed, issue.ExprID, env)
			}
		case undefined.MatchString(e.Message):
			name := undefined.FindStringSubmatch(e.Message)[1]
			e.Message = fmt.Sprintf("there is no field %q", name)
			if sh := operandShape(parsed, issue.ExprID, o.sh); sh != nil {
				if sh.typ.Name() != "" {
					e.Message += " in " + sh.typ.String()
				}
				if near := nearest(name, sh.fieldNames()); near != "" {
					e.Hint = fmt.Sprintf("did you mean %q?", near)
				}
			}
			e.Column++ // cel-go reports the position of the dot
		case noOverload.MatchString(e.Message):
			m := noOverload.FindStringSubmatch(e.Message)
			e.Message = fmt.Sprintf("%s is not defined for %s", operatorRef.Replace(m[1]), m[2])
		}
		out = append(out, e)
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Line != out[j].Line {
			return out[i].Line < out[j].Line
		}
		return out[i].Column < out[j].Column
	})
	if len(out) == 1 {
		return out[0]
	}
	return out
}

func suggestName(name string, parsed *ast.AST, id int64, env *cel.Env) string {
	candidates := variableNames
	call := false
	if parsed != nil {
		call = findExpr(parsed.Expr(), id).Kind() == ast.CallKind
	}
	if call {
		candidates = []string{"has", "exists", "all", "exists_one", "filter", "map"}
		for f := range env.Functions() {
			if f[0] >= 'A' && !strings.ContainsAny(f, "_@") {
				candidates = append(candidates, f)
			}
		}
		sort.Strings(candidates)
	}
	if near := nearest(name, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if !call {
		return "the payload's fields are under data: data." + name
	}
	return ""
}

// operandShape returns the shape of the operand of the selection with the given
// id.
func operandShape(parsed *ast.AST, id int64, root *shape) *shape {
	if parsed == nil || root == nil {
		return nil
	}
	var of func(e ast.Expr) *shape
	of = func(e ast.Expr) *shape {
		switch e.Kind() {
		case ast.IdentKind:
			if e.AsIdent() == "data" {
				return root
			}
		case ast.SelectKind:
			if sh := of(e.AsSelect().Operand()); sh != nil && sh.kind == shapeStruct {
				if f := sh.byName[e.AsSelect().FieldName()]; f != nil {
					return f.sh
				}
			}
		}
		return nil
	}
	e := findExpr(parsed.Expr(), id)
	if e.Kind() != ast.SelectKind {
		return nil
	}
	sh := of(e.AsSelect().Operand())
	if sh == nil || sh.kind != shapeStruct {
		return nil
	}
	return sh
}

// findExpr returns the part of an expression with the given id.
func findExpr(root ast.Expr, id int64) ast.Expr {
	found := root
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() == id {
			found = e
		}
	}))
	return found
}
