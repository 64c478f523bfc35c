package filter

import (
	"math"
	"reflect"
)

// any reads the value at the position, for which no type is declared.
func (s *scanner) any() value { return s.shaped(nil) }

// shaped reads the value at the position as a value of the shape.
func (s *scanner) shaped(sh *shape) value {
	if s.i >= len(s.b) {
		return value{k: kBroken}
	}
	at := s.i
	var v value
	switch s.b[at] {
	case '"':
		s.i++
		start, end, flags, ok := s.stringEnd()
		if !ok {
			return value{k: kBroken}
		}
		v = stringValue(s.text(start, end, flags))
	case 't', 'f':
		v = boolValue(s.b[at] == 't')
		if !s.skipValue() {
			return value{k: kBroken}
		}
	case 'n', '{', '[':
		if !s.skipValue() {
			return value{k: kBroken}
		}
		switch v.s = viewString(s.b[at:s.i]); s.b[at] {
		case 'n':
			v = value{k: kNull}
		case '{':
			v.k = kMap
		default:
			v.k = kList
		}
	default:
		text, integer, ok := s.numberEnd()
		if !ok {
			return value{k: kBroken}
		}
		v = number(sh, text, integer)
	}
	if sh != nil {
		return sh.fromJSON(v)
	}
	return v
}

func (sh *shape) elemShape() *shape {
	if sh == nil {
		return nil
	}
	return sh.elem
}

// within points the evaluation's scanner at the text of a container, which has
// been checked before. It returns what is needed to restore the scanner.
func (c *evaluation) within(text string) (b []byte, i int) {
	b, i = c.b, c.i
	c.b, c.i = viewBytes(text), 1
	c.depth = 0
	return b, i
}

// member returns the value of a key of a map or of a field of a struct. Any
// other value has no members.
func (c *evaluation) member(v *value, key string) (value, bool) {
	if v.k != kMap && v.k != kStruct {
		return value{}, false
	}
	switch rep(v.x) {
	case repGo:
		rv := reflect.ValueOf(v.p).Elem()
		if v.k == kStruct {
			f := v.sh.byName[key]
			if f == nil {
				return value{}, false
			}
			m, set := f.goField(rv)
			m.set = set
			return m, true
		}
		m := rv.MapIndex(reflect.ValueOf(key).Convert(rv.Type().Key()))
		if !m.IsValid() {
			return value{}, false
		}
		return v.sh.elem.fromGo(m), true
	}
	b, i := c.within(v.s)
	defer func() { c.b, c.i = b, i }()
	var found value
	ok := false
	for first := true; ; first = false {
		start, end, flags, more, valid := c.key(first)
		if !valid || !more {
			break
		}
		name := viewString(c.b[start:end])
		if flags != 0 {
			name = c.text(start, end, flags)
		}
		var f *field
		if v.k == kStruct {
			f = v.sh.lookup(name)
		}
		if f != nil && f.name != key || f == nil && (v.k == kStruct || name != key) {
			c.skipValue()
			continue
		}
		ok = true
		if f != nil {
			null := c.b[c.i] == 'n'
			found = c.shaped(f.sh)
			found.set = !found.failed() && f.isSet(&found, null)
		} else {
			found = c.shaped(v.sh.elemShape())
		}
		if !c.whole {
			break
		}
	}
	if !ok && v.k == kStruct {
		f := v.sh.byName[key]
		if f == nil {
			return value{}, false
		}
		return f.sh.zero(), true
	}
	return found, ok
}

// emptyContainer reports whether a list or a map has no elements.
func emptyContainer(v *value) bool {
	switch rep(v.x) {
	case repGo:
		return reflect.ValueOf(v.p).Elem().Len() == 0
	case repList:
		return len(v.p.(*constList).elems) == 0
	}
	for i := 1; i < len(v.s); i++ {
		switch v.s[i] {
		case ' ', '\t', '\n', '\r':
		case ']', '}':
			return true
		default:
			return false
		}
	}
	return true
}

// size returns the number of elements of a list, or of keys of a map.
func (c *evaluation) size(v *value) int {
	switch rep(v.x) {
	case repGo:
		return reflect.ValueOf(v.p).Elem().Len()
	case repList:
		return len(v.p.(*constList).elems)
	}
	n := 0
	if v.k == kMap {
		c.keys(v, func(string) bool { n++; return true })
		return n
	}
	b, i := c.within(v.s)
	for first := true; ; first = false {
		if more, ok := c.nextElement(first); !ok || !more {
			break
		}
		c.skipValue()
		n++
	}
	c.b, c.i = b, i
	return n
}

// fewKeys is the number of keys of an object up to which repeated keys are
// found by comparing them one by one; with more keys a map is used.
const fewKeys = 16

// keys calls yield once for every distinct key of a map until yield returns
// false. The order is unspecified.
func (c *evaluation) keys(v *value, yield func(string) bool) {
	if rep(v.x) == repGo {
		it := reflect.ValueOf(v.p).Elem().MapRange()
		for it.Next() {
			if !yield(it.Key().String()) {
				return
			}
		}
		return
	}
	b, i := c.within(v.s)
	defer func() { c.b, c.i = b, i }()
	var few [fewKeys]string
	var many map[string]struct{}
	n := 0
next:
	for first := true; ; first = false {
		start, end, flags, more, ok := c.key(first)
		if !ok || !more {
			return
		}
		key := c.text(start, end, flags)
		c.skipValue()
		if n < fewKeys {
			for _, k := range few[:n] {
				if k == key {
					continue next
				}
			}
			few[n] = key
		} else {
			if many == nil {
				many = make(map[string]struct{}, 4*fewKeys)
				for _, k := range few {
					many[k] = struct{}{}
				}
			}
			if _, again := many[key]; again {
				continue
			}
			many[key] = struct{}{}
		}
		n++
		at, text := c.i, c.b
		if !yield(key) {
			return
		}
		c.i, c.b = at, text
	}
}

// elements stores the elements of a list in e, one after the other, and calls
// visit after each until visit returns false.
func (c *evaluation) elements(v, e *value, visit func() bool) {
	switch rep(v.x) {
	case repGo:
		rv := reflect.ValueOf(v.p).Elem()
		for i := range rv.Len() {
			*e = v.sh.elem.fromGo(rv.Index(i))
			if !visit() {
				return
			}
		}
		return
	case repList:
		for _, x := range v.p.(*constList).elems {
			*e = x
			if !visit() {
				return
			}
		}
		return
	}
	b, i := c.within(v.s)
	text := c.b
	for first := true; ; first = false {
		if more, ok := c.nextElement(first); !ok || !more {
			break
		}
		*e = c.shaped(v.sh.elemShape())
		at := c.i
		if !visit() {
			break
		}
		c.b, c.i = text, at
	}
	c.b, c.i = b, i
}

// element returns the element of a list at the given index.
func (c *evaluation) element(v *value, at int64) (value, bool) {
	if at < 0 {
		return value{}, false
	}
	switch rep(v.x) {
	case repGo:
		rv := reflect.ValueOf(v.p).Elem()
		if at >= int64(rv.Len()) {
			return value{}, false
		}
		return v.sh.elem.fromGo(rv.Index(int(at))), true
	case repList:
		l := v.p.(*constList)
		if at >= int64(len(l.elems)) {
			return value{}, false
		}
		return l.elems[at], true
	}
	b, i := c.within(v.s)
	defer func() { c.b, c.i = b, i }()
	for first := true; ; first = false {
		if more, ok := c.nextElement(first); !ok || !more {
			return value{}, false
		}
		if at == 0 {
			return c.shaped(v.sh.elemShape()), true
		}
		at--
		c.skipValue()
	}
}

// index evaluates v[key].
func (c *evaluation) index(v, key *value) (value, bool) {
	switch v.k {
	case kMap:
		if key.k != kString {
			return value{}, false
		}
		return c.member(v, key.s)
	case kList:
		at, ok := listIndex(key)
		if !ok {
			return value{}, false
		}
		return c.element(v, at)
	}
	return value{}, false
}

// listIndex converts a number to a list index if it is a whole number.
func listIndex(key *value) (int64, bool) {
	switch key.k {
	case kInt:
		return key.int(), true
	case kUint:
		return int64(key.n), key.n <= math.MaxInt64
	case kDouble:
		f := key.float()
		if !(f > math.MinInt64 && f < math.MaxInt64) || f != math.Trunc(f) {
			return 0, false
		}
		return int64(f), true
	}
	return 0, false
}
