package filter

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Fallback is a part of an expression that runs on cel-go's interpreter. Such a
// part gives the same answers, but it reads the whole payload into maps first.
type Fallback struct {
	Part   string // as source text
	Line   int
	Column int
	Why    string
}

// interpreter returns a program that evaluates only e.
func (k *compiler) interpreter(e ast.Expr, why error) (cel.Program, error) {
	part := ast.NewCheckedAST(ast.NewAST(e, k.ast.SourceInfo()), k.ast.TypeMap(), k.ast.ReferenceMap())
	p, err := k.f.env.PlanProgram(part, cel.CostLimit(costPerStep*uint64(k.f.opts.steps)))
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	text, err := cel.ExprToString(e, k.ast.SourceInfo())
	if err != nil {
		text = "the expression"
	}
	at := errorAt(k.f.text, k.ast, e, "")
	k.interp = append(k.interp, Fallback{Part: text, Line: at.Line, Column: at.Column, Why: why.Error()})
	return p, nil
}

// costPerStep converts the limit on steps to cel-go's limit on cost. It is
// generous, because its purpose is to stop runaway evaluations, not to price
// operations.
const costPerStep = 64

func (k *compiler) interpretTest(e ast.Expr, why error) (testFn, error) {
	p, err := k.interpreter(e, why)
	if err != nil {
		return nil, err
	}
	return testOfValue(interpreted(p)), nil
}

func (k *compiler) interpretValue(e ast.Expr, why error) (evalFn, error) {
	p, err := k.interpreter(e, why)
	if err != nil {
		return nil, err
	}
	return interpreted(p), nil
}

func interpreted(p cel.Program) evalFn {
	return func(c *evaluation) value {
		out, _, err := p.Eval(activation{c})
		if err != nil {
			kind := ErrType
			switch msg := err.Error(); {
			case strings.Contains(msg, "cost limit"):
				kind = ErrLimit
			case strings.Contains(msg, "no such key"), strings.Contains(msg, "no such field"), strings.Contains(msg, "index out of bounds"):
				kind = ErrNoSuchField
			case strings.Contains(msg, ErrMalformed.Error()):
				kind = ErrMalformed
			case strings.Contains(msg, ErrNoData.Error()):
				kind = ErrNoData
			case strings.Contains(msg, "overflow"), strings.Contains(msg, "by zero"), strings.Contains(msg, "invalid"), strings.Contains(msg, "conversion"):
				kind = ErrRange
			}
			return errValue(&evalError{kind, err.Error()})
		}
		return fromRef(out)
	}
}

// Explain describes how the filter is evaluated: which payload fields it reads,
// and which parts run on the interpreter.
func (f *Filter) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "expression: %s\n", f.text)
	if fields := f.Fields(); len(fields) > 0 {
		fmt.Fprintf(&b, "reads:      %s\n", strings.Join(fields, ", "))
	} else {
		b.WriteString("reads:      nothing of the payload by itself\n")
	}
	if len(f.interp) == 0 {
		b.WriteString("runs:       all of it as closures\n")
		return b.String()
	}
	b.WriteString("runs:       as closures, except on cel-go's interpreter, which reads the whole payload:\n")
	for _, p := range f.interp {
		fmt.Fprintf(&b, "  %d:%d  %s\n        because %s\n", p.Line, p.Column, p.Part, p.Why)
	}
	return b.String()
}

// Fallbacks returns the parts of the expression that run on cel-go's
// interpreter; none if the expression consists of closures only.
func (f *Filter) Fallbacks() []Fallback { return append([]Fallback(nil), f.interp...) }

// Explain compiles an expression and describes how it is evaluated.
func Explain(expr string, opts ...Option) (string, error) {
	f, err := Compile(expr, opts...)
	if err != nil {
		return "", err
	}
	return f.Explain(), nil
}
