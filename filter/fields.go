package filter

import (
	"strings"
	"unicode/utf8"
)

// fieldTable lists the payload fields that a program reads, and gives each a
// slot in the evaluation. It is a tree, which the reader follows as it reads a
// document.
type fieldTable struct {
	root  *fieldNode
	paths []fieldPath // by slot
	nodes int
	typed bool // names match as encoding/json matches them to struct fields
}

type fieldPath struct {
	names  []string
	fields []*field // the fields of the payload's declared type that the names stand for
	sh     *shape   // the declared shape of the last field; nil if unknown
}

func (p fieldPath) String() string {
	if len(p.names) == 0 {
		return "data"
	}
	return "data." + strings.Join(p.names, ".")
}

// fieldNode is a place in the document. The slots of a node and of everything
// below it are contiguous only in small programs, so each node keeps lists.
type fieldNode struct {
	id       int
	name     string
	slot     int // -1 if only its children are read
	sh       *shape
	children []*fieldNode
	byName   map[string]*fieldNode // used when there are many children
	lengths  uint64                // bit n is set if the name of a child has n bytes (mod 64)
	ascii    bool                  // whether the names of all children are
	decl     *field                // in a typed table, the struct field
}

// manyChildren is the number of children from which a map look-up is faster
// than comparing names one by one.
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

// slot returns the slot of the field at the path, adding it if it is new.
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

// clone copies the table, so that the copy can grow while others read the
// original.
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

// foldedChild returns the child in which encoding/json would store a member
// with this name: the one with exactly this name, or else one whose name
// differs only in case.
func (n *fieldNode) foldedChild(name []byte, flags textFlags) *fieldNode {
	if c := n.child(name); c != nil {
		return c
	}
	// Outside ASCII, case folding can change the length of a name in bytes.
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
