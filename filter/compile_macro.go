package filter

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

type quantifier uint8

const (
	quantExists quantifier = iota
	quantAll
	quantOne
)

// quantified recognizes the expansion of the macros exists, all and exists_one.
func quantified(x ast.ComprehensionExpr) (quantifier, ast.Expr, bool) {
	if x.HasIterVar2() || x.AccuInit().Kind() != ast.LiteralKind || x.LoopStep().Kind() != ast.CallKind {
		return 0, nil, false
	}
	accu := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == x.AccuVar() }
	step := x.LoopStep().AsCall()
	args := step.Args()
	switch init := x.AccuInit().AsLiteral(); {
	case init == types.False && step.FunctionName() == operators.LogicalOr && len(args) == 2 && accu(args[0]):
		return quantExists, args[1], true
	case init == types.True && step.FunctionName() == operators.LogicalAnd && len(args) == 2 && accu(args[0]):
		return quantAll, args[1], true
	case init == types.Int(0) && step.FunctionName() == operators.Conditional && accu(args[2]):
		return quantOne, args[0], true
	}
	return 0, nil, false
}

// macro compiles exists, all and exists_one. The macros filter and map make
// lists and are left to the interpreter.
func (k *compiler) macro(e ast.Expr) (testFn, error) {
	x := e.AsComprehension()
	q, pred, ok := quantified(x)
	if !ok {
		return nil, unsupported("a macro that makes a list")
	}
	over, err := k.value(x.IterRange())
	if err != nil {
		return nil, err
	}
	at := len(k.scope)
	k.scope = append(k.scope, x.IterVar())
	k.deepest = max(k.deepest, len(k.scope))
	test, err := k.test(pred)
	k.scope = k.scope[:at]
	if err != nil {
		return nil, err
	}
	overload := k.overload("a macro over something that is no list or map")
	return func(c *evaluation) verdict {
		list := over(c)
		l := loop{c: c, q: q, at: at, test: test}
		switch {
		case list.failed():
			return c.failWith(&list)
		case list.k == kList:
			c.elements(&list, &c.vars[at], l.visit)
		case list.k == kMap:
			c.keys(&list, l.visitKey)
		case (list.k == kString || list.k == kBytes) && list.s == "":
			// cel-go checks the size before it checks the type.
		default:
			c.fail = overload
			return failed
		}
		return l.result()
	}, nil
}

// loop is one run of a macro.
type loop struct {
	c    *evaluation
	q    quantifier
	at   int
	test testFn
	hits int
	over bool // decided, whatever the remaining elements are
	fail *evalError
}

func (l *loop) visitKey(key string) bool {
	l.c.vars[l.at] = stringValue(key)
	return l.visit()
}

// visit evaluates the element that the loop's variable holds.
func (l *loop) visit() bool {
	c := l.c
	if !c.step() {
		l.fail = errSteps
		return false
	}
	if c.vars[l.at].failed() {
		if l.fail == nil {
			l.fail = errShape
		}
		return true
	}
	switch l.test(c) {
	case yes:
		l.hits++
		l.over = l.q == quantExists
	case no:
		l.over = l.q == quantAll
	default:
		if l.fail == nil {
			l.fail = c.fail
		}
	}
	return !l.over
}

func (l *loop) result() verdict {
	if l.over {
		return verdictOf(l.q == quantExists)
	}
	if l.fail != nil {
		l.c.fail = l.fail
		return failed
	}
	switch l.q {
	case quantExists:
		return no
	case quantAll:
		return yes
	}
	return verdictOf(l.hits == 1)
}
