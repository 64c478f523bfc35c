package filter

// lookIn finds the postings for the message's value of the field.
func (x *fieldIndex) lookIn(c *evaluation, h *hits) {
	switch x.ref.kind {
	case refSlot:
		x.look(c, c.slot(x.ref.slot), h)
	case refAttribute:
		v := stringValue(x.ref.attr.text(c.env))
		x.look(c, &v, h)
	case refHeader:
		if s, ok := c.env.Header(x.ref.header); ok {
			v := stringValue(s)
			x.look(c, &v, h)
		}
	}
}

// look finds the postings for a value and hands them over one by one.
func (x *fieldIndex) look(c *evaluation, v *value, h *hits) {
	if v.failed() {
		return
	}
	for _, p := range x.exists {
		h.add(p)
	}
	switch v.k {
	case kString:
		if x.text != nil {
			h.addAll(x.text[v.s])
		}
		for i := range x.prefixes {
			a := &x.prefixes[i]
			if a.n > len(v.s) {
				break
			}
			h.addAll(a.text[v.s[:a.n]])
		}
		for i := range x.suffixes {
			a := &x.suffixes[i]
			if a.n > len(v.s) {
				break
			}
			h.addAll(a.text[v.s[len(v.s)-a.n:]])
		}
		if x.contains != nil {
			x.contains.look(v.s, h)
		}
	case kList, kMap:
		if x.elements != nil {
			x.lookElements(c, v, h)
		}
	case kBool:
		h.addAll(x.bools[v.n])
	case kInt, kUint, kDouble:
		if x.number == nil && len(x.ranges.spans) == 0 {
			return
		}
		f := toFloat(v)
		if x.number != nil {
			h.addAll(x.number[f])
		}
		h.addSpans(x.ranges.spans, f)
	}
}

// lookElements finds the postings for the strings in a list or for the keys of
// a map. An element that occurs twice must not be counted twice.
func (x *fieldIndex) lookElements(c *evaluation, v *value, h *hits) {
	if v.k == kMap {
		c.keys(v, func(key string) bool { h.addAll(x.elements[key]); return true })
		return
	}
	var e value
	c.elements(v, &e, func() bool {
		if e.k == kString {
			h.addAll(x.elements[e.s])
		}
		return true
	})
}

// hits collects the candidates that an index yields for one message.
type hits struct {
	list []posting
	once bitset
}

func (h *hits) add(p posting) {
	if p.once >= 0 {
		if h.once.has(int(p.once)) {
			return
		}
		h.once.set(int(p.once))
	}
	h.list = append(h.list, p)
}

func (h *hits) addAll(ps []posting) {
	for _, p := range ps {
		h.add(p)
	}
}

func (h *hits) addSpans(s []span, f float64) {
	for len(s) > 0 {
		m := len(s) / 2
		if s[m].reach < f {
			return
		}
		h.addSpans(s[:m], f)
		if s[m].lo > f {
			return
		}
		if s[m].hi >= f {
			h.add(s[m].p)
		}
		s = s[m+1:]
	}
}

// reset makes room for n entries that must not be reported twice.
func (h *hits) reset(n int) {
	h.list = h.list[:0]
	words := (n + 63) / 64
	if cap(h.once) < words {
		h.once = make(bitset, words)
	}
	h.once = h.once[:words]
	clear(h.once)
}

// gram is the number of bytes that the gramIndex looks up at a time.
const gram = 3

// gramIndex finds which of many texts a string contains. It goes by the first
// bytes of each text; a bitmap rules out most positions of the string.
type gramIndex struct {
	bits  [1 << 13 / 64]uint64
	texts map[uint32][]gramText
}

type gramText struct {
	text string
	p    posting
}

func newGramIndex() *gramIndex { return &gramIndex{texts: make(map[uint32][]gramText)} }

func gramAt(s string, i int) uint32 {
	return uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16
}

// gramBit spreads the grams evenly over the bitmap.
func gramBit(g uint32) uint32 { return g * 0x9e3779b1 >> (32 - 13) }

func (x *gramIndex) add(text string, p posting) {
	g := gramAt(text, 0)
	bit := gramBit(g)
	x.bits[bit>>6] |= 1 << (bit & 63)
	x.texts[g] = append(x.texts[g], gramText{text, p})
}

func (x *gramIndex) look(s string, h *hits) {
	for i := 0; i+gram <= len(s); i++ {
		g := gramAt(s, i)
		bit := gramBit(g)
		if x.bits[bit>>6]>>(bit&63)&1 == 0 {
			continue
		}
		for _, t := range x.texts[g] {
			if len(s)-i >= len(t.text) && s[i:i+len(t.text)] == t.text {
				h.add(t.p)
			}
		}
	}
}
