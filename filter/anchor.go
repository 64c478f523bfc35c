package filter

import (
	"math"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// fieldRef is a field, attribute or header that the filters of a Set look up
// only once between them.
type fieldRef struct {
	kind   refKind
	slot   int       // refSlot
	attr   attribute // refAttribute
	header string    // refHeader
}

type refKind uint8

const (
	refSlot refKind = iota
	refAttribute
	refHeader
)

// atomKind is the question that an atom asks about its field.
type atomKind uint8

const (
	atomText     atomKind = iota // equals text
	atomNumber                   // equals lo
	atomBool                     // equals lo != 0
	atomPrefix                   // starts with text
	atomSuffix                   // ends with text
	atomRange                    // a number from lo to hi, both included
	atomContains                 // contains text, which has at least three bytes
	atomElement                  // is a list with the element text, or a map with that key
	atomExists                   // has a value
)

// atom is a question about one field that an index can answer for many filters
// at once.
type atom struct {
	ref    fieldRef
	kind   atomKind
	text   string
	lo, hi float64
}

// anchor is a set of atoms. Whenever the filter matches, at least one is true.
type anchor struct {
	atoms []atom
	// terms is a bit set of the terms of the filter's conjunction that are true
	// exactly when one of the atoms is. It never includes a term beyond the
	// 64th.
	terms uint64
}

// terms splits an expression into the terms of its conjunction and returns the
// anchors that they offer.
func (k *compiler) terms() (tests []testFn, anchors []anchor, err error) {
	exprs := flatten(k.ast.Expr(), operators.LogicalAnd, nil)
	ranges := make(map[fieldRef]int)
	for i, e := range exprs {
		t, err := k.test(e)
		if err != nil {
			return nil, nil, err
		}
		tests = append(tests, t)
		atoms, exact := k.atoms(e)
		if len(atoms) == 0 {
			continue
		}
		a := anchor{atoms: atoms}
		if exact && i < 64 {
			a.terms = 1 << i
		}
		// Several bounds on one field make one range.
		if len(atoms) == 1 && atoms[0].kind == atomRange {
			if at, again := ranges[atoms[0].ref]; again {
				both := &anchors[at]
				both.atoms[0].lo = max(both.atoms[0].lo, atoms[0].lo)
				both.atoms[0].hi = min(both.atoms[0].hi, atoms[0].hi)
				both.terms |= a.terms
				continue
			}
			ranges[atoms[0].ref] = len(anchors)
		}
		anchors = append(anchors, a)
	}
	return tests, anchors, nil
}

// maxAtoms limits how many times one filter is entered in an index.
const maxAtoms = 256

// atoms returns a set of atoms, at least one of which is true whenever e is, or
// nil if there is no such set. exact reports whether the converse also holds: e
// is true whenever one of the atoms is.
func (k *compiler) atoms(e ast.Expr) (atoms []atom, exact bool) {
	if ref, ok := k.ref(e); ok {
		return []atom{{ref: ref, kind: atomBool, lo: 1}}, true
	}
	switch e.Kind() {
	case ast.SelectKind:
		return k.existsAtom(e.AsSelect())
	case ast.ComprehensionKind:
		return k.elementAtoms(e.AsComprehension())
	case ast.CallKind:
		c := e.AsCall()
		args := c.Args()
		switch fn := c.FunctionName(); fn {
		case operators.LogicalOr:
			return k.anyAtoms(flatten(e, fn, nil))
		case operators.Conditional:
			// Whatever the condition is, one of the branches must be true.
			atoms, _ = k.anyAtoms(args[1:])
			return atoms, false
		case operators.LogicalAnd:
			var best []atom
			for _, x := range flatten(e, fn, nil) {
				if a, _ := k.atoms(x); len(a) > 0 && (best == nil || rank(a) < rank(best)) {
					best = a
				}
			}
			return best, false
		case operators.LogicalNot:
			if ref, ok := k.ref(args[0]); ok {
				return []atom{{ref: ref, kind: atomBool, lo: 0}}, true
			}
		case operators.Equals:
			if a, exact, ok := k.equalAtom(args[0], args[1]); ok {
				return []atom{a}, exact
			}
			if a, exact, ok := k.equalAtom(args[1], args[0]); ok {
				return []atom{a}, exact
			}
		case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
			return k.rangeAtom(fn, args[0], args[1])
		case operators.In:
			return k.inAtoms(args[0], args[1])
		case "startsWith", "endsWith", "contains":
			ref, ok := k.ref(c.Target())
			text, isConst := constString(args[0])
			if !ok || !isConst {
				break
			}
			switch fn {
			case "startsWith":
				return []atom{{ref: ref, kind: atomPrefix, text: text}}, true
			case "endsWith":
				return []atom{{ref: ref, kind: atomSuffix, text: text}}, true
			}
			if len(text) >= gram {
				return []atom{{ref: ref, kind: atomContains, text: text}}, true
			}
		}
	}
	return nil, false
}

// rank orders anchors by how rarely they are true, as found by experience.
func rank(atoms []atom) float64 {
	sum := 0.0
	for _, a := range atoms {
		switch a.kind {
		case atomText, atomNumber:
			sum += 0.01
		case atomPrefix, atomSuffix, atomContains, atomElement:
			sum += 0.05
		case atomRange:
			sum += 0.3
		default:
			sum += 0.5
		}
	}
	return sum
}

// ref returns the field, attribute or header that e reads.
func (k *compiler) ref(e ast.Expr) (fieldRef, bool) {
	if names, ok := k.path(e); ok {
		return fieldRef{kind: refSlot, slot: k.table.slot(names)}, true
	}
	switch e.Kind() {
	case ast.IdentKind:
		if a, ok := attributes[e.AsIdent()]; ok && a != attrTime {
			return fieldRef{kind: refAttribute, attr: a}, true
		}
	case ast.SelectKind:
		if s := e.AsSelect(); !s.IsTestOnly() && k.headers(s.Operand()) {
			return fieldRef{kind: refHeader, header: s.FieldName()}, true
		}
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() == operators.Index && k.headers(c.Args()[0]) {
			if name, ok := constString(c.Args()[1]); ok {
				return fieldRef{kind: refHeader, header: name}, true
			}
		}
	}
	return fieldRef{}, false
}

func (k *compiler) existsAtom(s ast.SelectExpr) ([]atom, bool) {
	if !s.IsTestOnly() {
		return nil, false
	}
	if k.headers(s.Operand()) {
		return []atom{{ref: fieldRef{kind: refHeader, header: s.FieldName()}, kind: atomExists}}, true
	}
	names, ok := k.path(s.Operand())
	if !ok || !k.inner(names) {
		return nil, false
	}
	names = append(append([]string(nil), names...), s.FieldName())
	// In a declared type, a field that is not set still has a value, so the
	// index can only narrow the choice.
	return []atom{{ref: fieldRef{kind: refSlot, slot: k.table.slot(names)}, kind: atomExists}}, k.f.opts.sh == nil
}

func (k *compiler) anyAtoms(terms []ast.Expr) (atoms []atom, exact bool) {
	exact = true
	for _, e := range terms {
		a, ex := k.atoms(e)
		if len(a) == 0 || len(atoms)+len(a) > maxAtoms {
			return nil, false
		}
		atoms, exact = append(atoms, a...), exact && ex
	}
	return atoms, exact
}

func (k *compiler) equalAtom(field, constant ast.Expr) (a atom, exact, ok bool) {
	v, isConst := k.constant(constant)
	if !isConst {
		return atom{}, false, false
	}
	ref, ok := k.ref(field)
	if !ok {
		return atom{}, false, false
	}
	a, exact, ok = constantAtom(ref, &v)
	return a, exact, ok
}

// constantAtom returns the atom that tests for equality with v.
func constantAtom(ref fieldRef, v *value) (a atom, exact, ok bool) {
	switch v.k {
	case kString:
		return atom{ref: ref, kind: atomText, text: v.s}, true, true
	case kBool:
		return atom{ref: ref, kind: atomBool, lo: float64(v.n)}, true, true
	case kInt, kUint, kDouble:
		f := toFloat(v)
		return atom{ref: ref, kind: atomNumber, lo: f}, isExact(f), !math.IsNaN(f)
	}
	return atom{}, false, false
}

func (k *compiler) inAtoms(field, list ast.Expr) (atoms []atom, exact bool) {
	if k.headers(list) {
		if name, ok := constString(field); ok {
			return []atom{{ref: fieldRef{kind: refHeader, header: name}, kind: atomExists}}, true
		}
		return nil, false
	}
	v, ok := k.constant(list)
	if !ok {
		text, isConst := constString(field)
		if ref, ok := k.ref(list); ok && isConst {
			return []atom{{ref: ref, kind: atomElement, text: text}}, true
		}
		return nil, false
	}
	if v.k != kList {
		return nil, false
	}
	ref, ok := k.ref(field)
	elems := v.p.(*constList).elems
	if !ok || len(elems) > maxAtoms {
		return nil, false
	}
	exact = true
	for i := range elems {
		a, ex, ok := constantAtom(ref, &elems[i])
		if !ok {
			return nil, false
		}
		atoms, exact = append(atoms, a), exact && ex
	}
	return atoms, exact
}

// elementAtoms recognizes list.exists(x, x == "text").
func (k *compiler) elementAtoms(x ast.ComprehensionExpr) (atoms []atom, exact bool) {
	q, pred, ok := quantified(x)
	if !ok || q != quantExists {
		return nil, false
	}
	ref, ok := k.ref(x.IterRange())
	if !ok {
		return nil, false
	}
	for _, e := range flatten(pred, operators.LogicalOr, nil) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Equals {
			return nil, false
		}
		args := e.AsCall().Args()
		text, isConst := constString(args[1])
		if args[0].Kind() != ast.IdentKind || args[0].AsIdent() != x.IterVar() || !isConst || len(atoms) == maxAtoms {
			return nil, false
		}
		atoms = append(atoms, atom{ref: ref, kind: atomElement, text: text})
	}
	return atoms, true
}

func (k *compiler) rangeAtom(op string, a, b ast.Expr) ([]atom, bool) {
	v, isConst := k.constant(b)
	ref, ok := k.ref(a)
	if !isConst || !ok {
		if v, isConst = k.constant(a); !isConst {
			return nil, false
		}
		if ref, ok = k.ref(b); !ok {
			return nil, false
		}
		op = mirrored[op]
	}
	if !isNumber(v.k) || isNaN(&v) {
		return nil, false
	}
	f := toFloat(&v)
	x := atom{ref: ref, kind: atomRange, lo: math.Inf(-1), hi: math.Inf(1)}
	switch op {
	case operators.Less:
		x.hi = f
		if isExact(f) {
			x.hi = math.Nextafter(f, math.Inf(-1))
		}
	case operators.LessEquals:
		x.hi = f
	case operators.Greater:
		x.lo = f
		if isExact(f) {
			x.lo = math.Nextafter(f, math.Inf(1))
		}
	case operators.GreaterEquals:
		x.lo = f
	}
	return []atom{x}, isExact(f)
}

var mirrored = map[string]string{
	operators.Less: operators.Greater, operators.LessEquals: operators.GreaterEquals,
	operators.Greater: operators.Less, operators.GreaterEquals: operators.LessEquals,
}

// isExact reports whether f is the conversion of only one number of any type.
func isExact(f float64) bool { return math.Abs(f) < 1<<53 }

func toFloat(v *value) float64 {
	switch v.k {
	case kInt:
		return float64(v.int())
	case kUint:
		return float64(v.n)
	}
	return v.float()
}
