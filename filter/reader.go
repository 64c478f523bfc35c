package filter

// reader fills the slots of a table from one document in one pass.
type reader struct {
	scanner
	table *fieldTable
	slots []value
	seen  bitset // nodes met in the object being read, by id
	left  int    // slots not read yet
	// whole makes the reader read to the end of the text and use the last of
	// several members with the same name, as encoding/json does. Otherwise the
	// first one counts, and reading stops when every slot is filled.
	whole bool
}

type bitset []uint64

func (s bitset) has(i int) bool { return s[i>>6]>>(i&63)&1 != 0 }
func (s bitset) set(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s bitset) drop(i int)     { s[i>>6] &^= 1 << (i & 63) }

// read fills every slot with a value, or with the reason why there is none.
func (r *reader) read(text []byte) {
	r.b, r.i, r.depth, r.tooDeep = text, 0, 0, false
	r.left = len(r.slots)
	r.skipSpace()
	ok := r.value(r.table.root)
	if ok && r.whole {
		r.skipSpace()
		ok = r.i == len(text)
	}
	if ok {
		return
	}
	broken := value{k: kBroken}
	if r.tooDeep {
		broken = errValue(errDepth)
	}
	for i := range r.slots {
		if r.whole || r.slots[i].k == kUnread {
			r.slots[i] = broken
		}
	}
}

// done reports whether the rest of the text does not matter.
func (r *reader) done() bool { return r.left == 0 && !r.whole }

// value reads the value at the position into the slots of n and of the nodes
// below it. It moves past the value unless the reader is done.
func (r *reader) value(n *fieldNode) bool {
	if r.i >= len(r.b) {
		return false
	}
	at := r.i
	var v value
	switch r.b[r.i] {
	case '"':
		r.i++
		start, end, flags, ok := r.stringEnd()
		if !ok {
			return false
		}
		if n.plain() {
			r.put(n.slot, value{k: kString, s: r.text(start, end, flags)})
			return true
		}
		v.k = kString
		if n.slot >= 0 {
			v.s = r.text(start, end, flags)
		}
	case '{':
		r.i++
		if !r.enter() {
			return false
		}
		if len(n.children) > 0 {
			if !r.members(n) {
				return false
			}
			if n.slot >= 0 {
				r.store(n, value{k: kMap, s: viewString(r.b[at:r.i])})
			}
			return true
		}
		if !r.skipMembers(true) {
			return false
		}
		v = value{k: kMap, s: viewString(r.b[at:r.i])}
	case '[':
		r.i++
		if !r.enter() || !r.skipElements() {
			return false
		}
		v = value{k: kList, s: viewString(r.b[at:r.i])}
	case 't':
		if !r.literal("true") {
			return false
		}
		v = boolValue(true)
	case 'f':
		if !r.literal("false") {
			return false
		}
		v = boolValue(false)
	case 'n':
		if !r.literal("null") {
			return false
		}
		v = value{k: kNull}
	default:
		text, integer, ok := r.numberEnd()
		if !ok {
			return false
		}
		if n.plain() {
			if f, ok := parseFloat(text); ok {
				r.put(n.slot, floatValue(f))
				return true
			}
		}
		v.k = kDouble
		if n.slot >= 0 {
			v = number(n.sh, text, integer)
		}
	}
	if n.slot >= 0 {
		r.store(n, v)
	}
	if len(n.children) > 0 {
		r.noChildren(n, v.k)
	}
	return true
}

// plain reports whether a string or a number at n becomes the value of a slot
// without any other check.
func (n *fieldNode) plain() bool { return n.slot >= 0 && n.sh == nil && len(n.children) == 0 }

// number converts the text of a number to the type that the shape asks for.
func number(sh *shape, text []byte, integer bool) value {
	if sh != nil && sh.kind != shapeDyn {
		return sh.number(text, integer)
	}
	f, ok := parseFloat(text)
	if !ok {
		return value{k: kBroken}
	}
	return floatValue(f)
}

func (r *reader) store(n *fieldNode, v value) {
	if n.sh != nil {
		null := v.k == kNull
		v = n.sh.fromJSON(v)
		if n.decl != nil && !v.failed() {
			v.set = n.decl.isSet(&v, null)
		}
	}
	r.put(n.slot, v)
}

func (r *reader) put(slot int, v value) {
	p := &r.slots[slot]
	if p.k == kUnread {
		r.left--
	}
	*p = v
}

// noChildren settles the fields below a node whose value is not an object.
func (r *reader) noChildren(n *fieldNode, k kind) {
	state, below := value{k: kNoParent}, value{k: kNoParent}
	switch {
	case n.sh != nil && k == kNull:
		// In place of a struct, null leaves the struct's fields unchanged.
		state.k, below.k = kMissing, kMissing
	case n.sh != nil:
		state, below = errValue(errShape), errValue(errShape)
	case k != kList:
		// has(x.y) is false if x cannot have fields. It fails if x is a list,
		// which has elements.
		state.k = kMissing
	}
	for _, c := range n.children {
		r.settle(c, state, below)
	}
}

// settle sets n to state, and everything below it to below.
func (r *reader) settle(n *fieldNode, state, below value) {
	if n.slot >= 0 {
		v := state
		if v.k == kMissing && n.sh != nil {
			v = n.sh.zero()
		}
		r.put(n.slot, v)
	}
	for _, c := range n.children {
		r.settle(c, below, below)
	}
}

// members reads the members of the object at n, whose opening brace has been
// read.
func (r *reader) members(n *fieldNode) bool {
	for _, c := range n.children {
		r.seen.drop(c.id)
	}
	left := len(n.children)
	for first := true; ; first = false {
		start, end, flags, more, ok := r.key(first)
		if !ok {
			return false
		}
		if !more {
			break
		}
		var c *fieldNode
		// Most names have a length that no child's name has.
		if flags != 0 || n.lengths>>(uint(end-start)&63)&1 != 0 || r.table.typed && !n.ascii {
			c = r.find(n, start, end, flags)
		}
		if c == nil || !r.whole && r.seen.has(c.id) {
			if !r.skipValue() {
				return false
			}
			continue
		}
		if !r.seen.has(c.id) {
			r.seen.set(c.id)
			left--
		}
		if !r.value(c) {
			return false
		}
		if r.done() {
			return true
		}
		if left == 0 && !r.whole {
			return r.skipMembers(false)
		}
	}
	if left > 0 {
		missing, below := value{k: kMissing}, value{k: kNoParent}
		if n.sh != nil {
			below.k = kMissing
		}
		for _, c := range n.children {
			if !r.seen.has(c.id) {
				r.settle(c, missing, below)
			}
		}
	}
	return true
}

func (r *reader) find(n *fieldNode, start, end int, flags textFlags) *fieldNode {
	name := r.b[start:end]
	if flags == 0 && !r.table.typed {
		return n.child(name)
	}
	var c *fieldNode
	at := len(r.scratch)
	if flags != 0 {
		name = viewBytes(r.text(start, end, flags))
	}
	if r.table.typed {
		c = n.foldedChild(name, flags)
	} else {
		c = n.child(name)
	}
	r.scratch = r.scratch[:at]
	return c
}
