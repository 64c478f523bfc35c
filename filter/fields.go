package filter

import (
	"strings"
	"unicode/utf8"
)

// fieldTable lists the payload fields that a program reads, each with a slot in
// the evaluation's context, as a tree that a document is read against.
type fieldTable struct {
	root  *fieldNode
	paths []fieldPath // by slot
	nodes int
	typed bool // names match as encoding/json matches them to struct fields
}

type fieldPath struct {
	names  []string
	fields []*field // what they are in the payload's declared type
	sh     *shape   // what the last one is declared as; nil when unknown
}

func (p fieldPath) String() string {
	if len(p.names) == 0 {
		return "data"
	}
	return "data." + strings.Join(p.names, ".")
}

// fieldNode is a place in the document. The slots of a node and of everything
// below it are contiguous only in small programs, so nodes keep lists.
type fieldNode struct {
	id       int
	name     string
	slot     int // -1 when only its children are read
	sh       *shape
	children []*fieldNode
	byName   map[string]*fieldNode // when there are many children
	lengths  uint64                // bit n: a child has a name of n bytes (mod 64)
	ascii    bool                  // all children's names are
	decl     *field                // in a typed table, the struct field
}

// manyChildren is where a map look-up overtakes comparing names one by one.
const manyChildren = 9

func newFieldTable(sh *shape) *fieldTable {
	t := &fieldTable{typed: sh != nil}
	t.root = t.newNode("", sh)
	return t
}

func (t *fieldTable) newNode(name string, sh *shape) *fieldNode {
	n := &fieldNode{id: t.nodes, name: name, slot: -1, sh: sh}
	t.nodes++
	return n
}

// slot returns the slot of the field at the path, which it adds if it is new.
func (t *fieldTable) slot(names []string) int {
	n := t.root
	var fields []*field
	for _, name := range names {
		n = n.grow(t, name)
		if n.decl != nil {
			fields = append(fields, n.decl)
		}
	}
	if n.slot < 0 {
		n.slot = len(t.paths)
		t.paths = append(t.paths, fieldPath{names: names, fields: fields, sh: n.sh})
	}
	return n.slot
}

func (n *fieldNode) grow(t *fieldTable, name string) *fieldNode {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	c := t.newNode(name, nil)
	if n.sh != nil && n.sh.kind == shapeStruct {
		c.decl = n.sh.byName[name]
		c.sh = c.decl.sh
	}
	n.ascii = (n.ascii || len(n.children) == 0) && isASCII(viewBytes(name))
	n.children = append(n.children, c)
	n.lengths |= 1 << (len(name) & 63)
	if len(n.children) == manyChildren {
		n.byName = make(map[string]*fieldNode, 2*manyChildren)
		for _, c := range n.children {
			n.byName[c.name] = c
		}
	} else if n.byName != nil {
		n.byName[name] = c
	}
	return c
}

// clone copies the table, so that a copy can grow while the original is read.
func (t *fieldTable) clone() *fieldTable {
	c := *t
	c.paths = append([]fieldPath(nil), t.paths...)
	c.root = t.root.clone()
	return &c
}

func (n *fieldNode) clone() *fieldNode {
	c := *n
	c.children = make([]*fieldNode, len(n.children))
	if n.byName != nil {
		c.byName = make(map[string]*fieldNode, len(n.byName))
	}
	for i, child := range n.children {
		c.children[i] = child.clone()
		if c.byName != nil {
			c.byName[child.name] = c.children[i]
		}
	}
	return &c
}

func (n *fieldNode) child(name []byte) *fieldNode {
	if n.lengths>>(len(name)&63)&1 == 0 {
		return nil
	}
	if n.byName != nil {
		return n.byName[string(name)]
	}
	for _, c := range n.children {
		if c.name == string(name) {
			return c
		}
	}
	return nil
}

// foldedChild finds the child that encoding/json would store a member of that
// name in: the exact one, or else one that differs in case only.
func (n *fieldNode) foldedChild(name []byte, flags textFlags) *fieldNode {
	if c := n.child(name); c != nil {
		return c
	}
	// Outside ASCII, case folding changes how many bytes a name has.
	ascii := flags&textNonASCII == 0 && n.ascii
	if ascii && n.lengths>>(len(name)&63)&1 == 0 {
		return nil
	}
	for _, c := range n.children {
		if ascii && (len(c.name) != len(name) || len(name) > 0 && (c.name[0]^name[0])&^0x20 != 0) {
			continue
		}
		if strings.EqualFold(c.name, viewString(name)) && n.sh.lookup(viewString(name)) == c.decl {
			return c
		}
	}
	return nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
