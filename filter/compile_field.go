package filter

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// path returns the names that lead from data to e, if e is a field of the
// payload that the reader can find.
func (k *compiler) path(e ast.Expr) ([]string, bool) {
	var operand ast.Expr
	var name string
	switch e.Kind() {
	case ast.IdentKind:
		if e.AsIdent() != "data" {
			return nil, false
		}
		if slices.Contains(k.scope, "data") {
			return nil, false
		}
		return nil, true
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return nil, false
		}
		operand, name = s.Operand(), s.FieldName()
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.Index {
			return nil, false
		}
		s, ok := constString(c.Args()[1])
		if !ok {
			return nil, false
		}
		operand, name = c.Args()[0], s
	default:
		return nil, false
	}
	names, ok := k.path(operand)
	if !ok || !k.inner(names) {
		return nil, false
	}
	// No one else has these names, so appending to them is safe.
	return append(append(make([]string, 0, len(names)+1), names...), name), true
}

// inner reports whether what lies below the path is read together with it:
// anything if no type is declared, otherwise only what lies below a struct.
func (k *compiler) inner(names []string) bool {
	sh := k.f.opts.sh
	if sh == nil {
		return true
	}
	for _, n := range names {
		f := sh.byName[n]
		if f == nil {
			return false
		}
		sh = f.sh
	}
	return sh.kind == shapeStruct
}

func pathName(names []string) string { return fieldPath{names: names}.String() }

// field compiles a read of a field of the payload.
func (k *compiler) field(names []string) evalFn {
	slot := k.table.slot(names)
	missing := k.missing(pathName(names))
	return func(c *evaluation) value {
		v := c.slot(slot)
		if v.failed() {
			return v.reason(missing)
		}
		return *v
	}
}

// has compiles has(e.name).
func (k *compiler) has(e ast.Expr) (testFn, error) {
	s := e.AsSelect()
	if k.headers(s.Operand()) {
		name := s.FieldName()
		return func(c *evaluation) verdict {
			_, ok := c.env.Header(name)
			return verdictOf(ok)
		}, nil
	}
	if names, ok := k.path(s.Operand()); ok && k.inner(names) {
		names = append(append([]string(nil), names...), s.FieldName())
		slot := k.table.slot(names)
		missing := k.missing(pathName(names[:len(names)-1]))
		declared := k.f.opts.sh != nil
		return func(c *evaluation) verdict {
			v := c.slot(slot)
			switch {
			case v.k == kMissing:
				return no
			case v.failed():
				x := v.reason(missing)
				return c.failWith(&x)
			case declared:
				return verdictOf(v.set)
			}
			return yes
		}, nil
	}
	operand, err := k.value(s.Operand())
	if err != nil {
		return nil, err
	}
	name := s.FieldName()
	declared := k.typeOf(s.Operand()).Kind() == types.StructKind
	notIndex := k.overload("has(list." + name + ")")
	return func(c *evaluation) verdict {
		v := operand(c)
		switch {
		case v.failed():
			return c.failWith(&v)
		case v.k == kList:
			c.fail = notIndex
			return failed
		case v.k == kOther:
			c.fail = errOverload
			return failed
		}
		m, ok := c.member(&v, name)
		if ok && m.failed() {
			x := m.reason(notIndex)
			return c.failWith(&x)
		}
		if declared {
			return verdictOf(ok && m.set)
		}
		return verdictOf(ok)
	}, nil
}

// selectMember compiles operand.name where the operand is not a path.
func (k *compiler) selectMember(e ast.Expr, name string) (evalFn, error) {
	operand, err := k.value(e)
	if err != nil {
		return nil, err
	}
	missing := k.missing(name)
	return func(c *evaluation) value {
		v := operand(c)
		if v.failed() {
			return v
		}
		m, ok := c.member(&v, name)
		if !ok {
			return errValue(missing)
		}
		if m.failed() {
			return m.reason(missing)
		}
		return m
	}, nil
}

// indexed compiles a[b] where it is not a path.
func (k *compiler) indexed(a, b ast.Expr) (evalFn, error) {
	if k.headers(a) {
		if name, ok := constString(b); ok {
			return k.header(name), nil
		}
		name, err := k.value(b)
		if err != nil {
			return nil, err
		}
		missing := k.missing("headers[]")
		return func(c *evaluation) value {
			v := name(c)
			if v.failed() {
				return v
			}
			if v.k == kString {
				if h, ok := c.env.Header(v.s); ok {
					return stringValue(h)
				}
			}
			return errValue(missing)
		}, nil
	}
	of, err := k.value(a)
	if err != nil {
		return nil, err
	}
	at, err := k.value(b)
	if err != nil {
		return nil, err
	}
	missing := k.missing("element")
	return func(c *evaluation) value {
		v := of(c)
		if v.failed() {
			return v
		}
		i := at(c)
		if i.failed() {
			return i
		}
		e, ok := c.index(&v, &i)
		if !ok {
			return errValue(missing)
		}
		if e.failed() {
			return e.reason(missing)
		}
		return e
	}, nil
}

// headers reports whether e is the variable headers.
func (k *compiler) headers(e ast.Expr) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == "headers" && !k.bound(e)
}

func (k *compiler) header(name string) evalFn {
	missing := k.missing("headers." + name)
	return func(c *evaluation) value {
		if h, ok := c.env.Header(name); ok {
			return stringValue(h)
		}
		return errValue(missing)
	}
}

// newConstList returns the value of a list of constants.
func newConstList(elems []value) value {
	var c evaluation
	refs := make([]ref.Val, len(elems))
	for i := range elems {
		refs[i] = c.toRef(&elems[i])
	}
	return value{k: kList, x: uint32(repList), p: &constList{
		elems: elems,
		list:  types.NewRefValList(types.DefaultTypeAdapter, refs),
		set:   newConstSet(elems),
	}}
}

// in compiles a in b.
func (k *compiler) in(a, b ast.Expr) (testFn, error) {
	v, err := k.value(a)
	if err != nil {
		return nil, err
	}
	if k.headers(b) {
		return func(c *evaluation) verdict {
			x := v(c)
			if x.failed() {
				return c.failWith(&x)
			}
			if x.k != kString {
				return no
			}
			_, ok := c.env.Header(x.s)
			return verdictOf(ok)
		}, nil
	}
	if list, ok := k.constant(b); ok && list.p.(*constList).set != nil {
		set := list.p.(*constList).set
		return func(c *evaluation) verdict {
			x := v(c)
			if x.failed() {
				return c.failWith(&x)
			}
			return verdictOf(set.has(&x))
		}, nil
	}
	if b.Kind() == ast.ListKind && len(b.AsList().OptionalIndices()) == 0 {
		return k.inList(v, b.AsList().Elements())
	}
	set, err := k.value(b)
	if err != nil {
		return nil, err
	}
	overload := k.overload("in")
	return func(c *evaluation) verdict {
		x := v(c)
		if x.failed() {
			return c.failWith(&x)
		}
		s := set(c)
		if s.failed() {
			return c.failWith(&s)
		}
		found, ok := c.contains(&s, &x)
		if !ok {
			c.fail = overload
			return failed
		}
		return verdictOf(found)
	}, nil
}

// inList compiles membership in a list with elements that are not constant. All
// elements are evaluated: if one fails, the list fails.
func (k *compiler) inList(v evalFn, elems []ast.Expr) (testFn, error) {
	fns := make([]evalFn, len(elems))
	for i, e := range elems {
		fn, err := k.value(e)
		if err != nil {
			return nil, err
		}
		fns[i] = fn
	}
	return func(c *evaluation) verdict {
		x := v(c)
		if x.failed() {
			return c.failWith(&x)
		}
		found := no
		for _, fn := range fns {
			e := fn(c)
			if e.failed() {
				return c.failWith(&e)
			}
			if found == no && c.equal(&x, &e) {
				found = yes
			}
		}
		return found
	}, nil
}
