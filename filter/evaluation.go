package filter

import (
	"encoding/json"
	"reflect"
	"sync"
)

// evaluation is the state needed to evaluate one message. It is reused.
type evaluation struct {
	reader
	env  Envelope
	opts *settings
	sh   *shape // of the payload's declared type

	loaded bool
	goData reflect.Value // the declared struct, if the payload is one

	vars  []value    // of the macros that enclose the place being evaluated
	steps int        // elements that macros may still visit
	fail  *evalError // why the last test failed

	fallback fallbackData
	hits     hits // of a Set
}

type verdict uint8

const (
	no verdict = iota
	yes
	failed
)

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

var evaluations = sync.Pool{New: func() any { return new(evaluation) }}

// begin returns an evaluation of the message for the table's fields.
func begin(m Envelope, t *fieldTable, o *settings, sh *shape, vars int) *evaluation {
	c := evaluations.Get().(*evaluation)
	c.env, c.table, c.opts, c.sh = m, t, o, sh
	n := len(t.paths)
	if cap(c.slots) < n {
		c.slots = make([]value, n)
	}
	c.slots = c.slots[:n]
	for i := range c.slots {
		c.slots[i].k = kUnread
	}
	if words := t.nodes>>6 + 1; len(c.seen) < words {
		c.seen = make(bitset, words)
	}
	if len(c.vars) < vars {
		c.vars = make([]value, vars)
	}
	c.loaded = false
	c.scratch = c.scratch[:0]
	c.maxDepth = o.payloadDepth
	c.checkRange = sh == nil
	c.whole = o.exact
	c.steps = o.steps
	return c
}

// maxScratch is the most memory for decoded strings that an idle evaluation
// keeps, in bytes.
const maxScratch = 64 << 10

// end returns the evaluation to the pool. Nothing of the message stays
// reachable from it.
func (c *evaluation) end() {
	clear(c.slots)
	clear(c.vars)
	if cap(c.scratch) > maxScratch {
		c.scratch = nil
	}
	c.env, c.b, c.goData, c.fail = nil, nil, reflect.Value{}, nil
	c.fallback = fallbackData{}
	evaluations.Put(c)
}

// slot returns a field of the payload.
func (c *evaluation) slot(i int) *value {
	v := &c.slots[i]
	if v.k == kUnread {
		c.fetch(i)
	}
	return v
}

// fetch fills the slot. If the payload is JSON text, it fills all the other
// slots too.
func (c *evaluation) fetch(i int) {
	if !c.loaded {
		c.loaded = true
		if !c.load() {
			return
		}
	}
	path := &c.table.paths[i]
	rv := c.goData
	v, set := value{}, true
	if len(path.fields) == 0 {
		v = c.sh.fromGo(rv)
	}
	for n, f := range path.fields {
		if n == len(path.fields)-1 {
			v, set = f.goField(rv)
			break
		}
		if rv = f.inner(rv); !rv.IsValid() {
			v, set = path.sh.zero(), false
			break
		}
	}
	v.set = set
	c.slots[i] = v
}

// load examines the payload. It returns true if fields are to be fetched from
// c.goData one by one; otherwise it has filled every slot.
func (c *evaluation) load() bool {
	data := payload(c.env)
	text, ok := jsonText(data)
	switch {
	case c.sh != nil && !ok:
		rv := reflect.ValueOf(data)
		for rv.Kind() == reflect.Pointer && !rv.IsNil() {
			rv = rv.Elem()
		}
		if !rv.IsValid() || rv.Type() != c.sh.typ {
			c.fill(errValue(errNoData))
			return false
		}
		c.goData = rv
		return true
	case c.sh != nil && c.whole:
		rv := reflect.New(c.sh.typ)
		if err := json.Unmarshal(text, rv.Interface()); err != nil {
			c.fill(value{k: kBroken})
			return false
		}
		c.goData = rv.Elem()
		return true
	case !ok:
		if data == nil {
			c.fill(errValue(errNoData))
			return false
		}
		var err error
		if text, err = json.Marshal(data); err != nil {
			c.fill(errValue(errNoData))
			return false
		}
	}
	c.read(text)
	return false
}

func (c *evaluation) fill(v value) {
	for i := range c.slots {
		c.slots[i] = v
	}
}

// payload returns the message's payload. In a subscription to values of any
// type, Data points to an interface, and the payload is the value in it.
func payload(m Envelope) any {
	data := m.Data()
	if p, ok := data.(*any); ok && p != nil {
		return *p
	}
	return data
}

// jsonText returns the payload if it is JSON text.
func jsonText(data any) ([]byte, bool) {
	switch d := data.(type) {
	case []byte:
		return d, true
	case json.RawMessage:
		return d, true
	case *[]byte:
		if d != nil {
			return *d, true
		}
	case *json.RawMessage:
		if d != nil {
			return *d, true
		}
	}
	return nil, false
}

// step counts an element visited by a macro.
func (c *evaluation) step() bool {
	c.steps--
	return c.steps >= 0
}

func (c *evaluation) failWith(v *value) verdict {
	if e, ok := v.p.(*evalError); ok && v.k == kError {
		c.fail = e
	} else {
		c.fail = errOverload
	}
	return failed
}
