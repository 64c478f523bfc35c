package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder reads a file into a Config. It goes on after faults, to find all of them.
type decoder struct {
	config   *Config
	anchors  map[string]ast.Node
	problems Problems
}

// decode parses the text of a file.
func (c *Config) decode(data []byte) Problems {
	data, fault := fromUTF8(data)
	if fault != "" {
		return Problems{{Where: c.file, Line: 1, Column: 1, Text: fault}}
	}
	c.lines = strings.Split(string(data), "\n")
	d := &decoder{config: c, anchors: map[string]ast.Node{}}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return Problems{c.syntaxProblem(err)}
	}
	docs := file.Docs
	docs = slices.DeleteFunc(docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(docs) > 1 {
		d.fault(docs[1].Body, "", "the file has a second YAML document; want only one")
	}
	if len(docs) > 0 {
		d.anchor(docs[0].Body)
		d.root(docs[0].Body)
	}
	return d.problems
}

// fault records what is wrong at a node.
func (d *decoder) fault(n ast.Node, key, format string, args ...any) {
	at := place(n)
	d.problems = append(d.problems, &Problem{Where: d.config.file, Line: at.line, Column: at.column, Key: key, Text: fmt.Sprintf(format, args...)})
}

// place returns where a node begins.
func place(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return place(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(n.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, max(t.Position.Column, 1)}
}

// anchor records the anchors below a node.
func (d *decoder) anchor(n ast.Node) {
	ast.Walk(visitor(func(n ast.Node) {
		if a, ok := n.(*ast.AnchorNode); ok {
			d.anchors[a.Name.GetToken().Value] = a.Value
		}
	}), n)
}

type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor { v(n); return v }

// resolve returns the node that an alias or an anchor stands for.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for range 10 {
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.AliasNode:
			target := d.anchors[x.Value.GetToken().Value]
			if target == nil {
				d.fault(n, "", `*%s refers to nothing; a pattern that begins with * needs quotes: "*.created"`, x.Value.GetToken().Value)
				return nil
			}
			n = target
		case *ast.TagNode:
			d.fault(n, "", "tags such as %[1]s are not supported; text that begins with ! needs quotes: \"%[1]s\"", x.GetToken().Value)
			return nil
		default:
			return n
		}
	}
	d.fault(n, "", "an alias refers to itself")
	return nil
}

// pairs returns the entries of a mapping, or nil if the node is not a mapping.
func (d *decoder) pairs(n ast.Node, key, want string) []*ast.MappingValueNode {
	switch m := d.resolve(n).(type) {
	case nil:
	case *ast.NullNode: // a key without a value
	case *ast.MappingNode:
		return m.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}
	default:
		d.fault(n, key, "got %s, want %s", described(m), want)
	}
	return nil
}

func described(n ast.Node) string {
	switch n := n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.NullNode:
		return "nothing"
	default:
		s, _ := scalarText(n)
		return fmt.Sprintf("%q", s)
	}
}

// scalarText returns the text of a scalar as written.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// each calls f for each key of a mapping, and records its place. f returns false
// for an unknown key.
func (d *decoder) each(n ast.Node, path, want string, known []string, f func(key, path string, v ast.Node) bool) {
	seen := map[string]bool{}
	for _, pair := range d.pairs(n, path, want) {
		key := pair.Key.GetToken().Value
		at := key
		if path != "" {
			at = path + "." + key
		}
		d.config.places[at] = place(pair.Value)
		switch {
		case seen[key]:
			d.fault(pair.Key, path, "%s is given twice", key)
		case key == "<<":
			d.fault(pair.Key, path, "merge keys (<<) are not supported; write the keys in full")
		case !f(key, at, pair.Value):
			d.fault(pair.Key, path, "unknown key %q%s", key, orKnown(key, known))
		}
		seen[key] = true
	}
}

// orKnown suggests a key, or lists the known ones.
func orKnown(key string, known []string) string {
	if s := didYouMean(key, known); s != "" {
		return s
	}
	return "; there are " + strings.Join(known, ", ")
}

// root decodes the whole file.
func (d *decoder) root(n ast.Node) {
	c := d.config
	sections := map[string][]string{}
	known := []string{"users", "topics", "routes", "webhooks"}
	for _, f := range settings {
		section, rest, nested := strings.Cut(f.key, ".")
		if nested {
			sections[section] = append(sections[section], rest)
		} else {
			known = append(known, f.key)
		}
	}
	known = append(known, slices.Sorted(maps.Keys(sections))...)
	set := func(path string, v ast.Node) bool {
		i := slices.IndexFunc(settings, func(f field[Config]) bool { return f.key == path })
		if i < 0 {
			return false
		}
		setField(d, c, &settings[i], path, v)
		return true
	}
	d.each(n, "", "keys such as listen, topics and routes", known, func(key, path string, v ast.Node) bool {
		switch key {
		case "users":
			c.Users = entries(d, path, v, userFields, UserConfig{})
		case "topics":
			c.Topics = entries(d, path, v, topicFields, newTopicConfig())
			c.shortenDedup()
		case "routes":
			c.Routes = entries(d, path, v, routeFields, newRouteConfig())
		case "webhooks":
			c.Webhooks = entries(d, path, v, webhookFields, newWebhookConfig())
		default:
			if keys := sections[key]; keys != nil {
				d.each(v, path, "the keys "+strings.Join(keys, ", "), keys, func(_, path string, v ast.Node) bool { return set(path, v) })
				return true
			}
			return set(path, v)
		}
		return true
	})
}

// entries decodes a list of mappings.
func entries[T any](d *decoder, path string, n ast.Node, fields []field[T], zero T) []T {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	n = d.resolve(n)
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, none := n.(*ast.NullNode); n != nil && !none {
			d.fault(n, path, "got %s, want a list: each item begins with - and has the keys %s", described(n), strings.Join(keys, ", "))
		}
		return nil
	}
	all := make([]T, len(list.Values))
	for i, item := range list.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.config.places[at] = place(item)
		all[i] = zero
		if s, ok := scalarText(d.resolve(item)); ok && keys[0] == "name" {
			d.fault(item, at, "got %q, want the keys %s; did you mean - name: %s?", s, strings.Join(keys, ", "), s)
			continue
		}
		d.each(item, at, "the keys "+strings.Join(keys, ", "), keys, func(key, path string, v ast.Node) bool {
			i, j := i, slices.Index(keys, key)
			if j < 0 {
				return false
			}
			setField(d, &all[i], &fields[j], path, v)
			return true
		})
	}
	return all
}

// needsQuotes returns the advice to quote a text in braces that YAML reads as a
// mapping, or "" for other nodes.
func (d *decoder) needsQuotes(n ast.Node) string {
	if m, ok := n.(*ast.MappingNode); !ok || !m.IsFlowStyle {
		return ""
	}
	if text := d.config.flowText(place(n)); text != "" {
		return fmt.Sprintf("; a text that begins with { needs quotes: %q", text)
	}
	return "; a text that begins with { needs quotes"
}

// setField sets a field from a node.
func setField[T any](d *decoder, t *T, f *field[T], path string, v ast.Node) {
	n := d.resolve(v)
	var texts []string
	if list, ok := n.(*ast.SequenceNode); ok && f.many {
		for i, item := range list.Values {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.config.places[at] = place(item)
			value := d.resolve(item)
			s, ok := scalarText(value)
			if !ok {
				if value != nil {
					d.fault(item, at, "got %s, want %s%s", described(value), f.value, d.needsQuotes(value))
				}
				return
			}
			texts = append(texts, s)
		}
	} else if s, ok := scalarText(n); ok {
		texts = []string{s}
	} else {
		if n != nil {
			d.fault(v, path, "got %s, want %s%s", described(n), f.value, d.needsQuotes(n))
		}
		return
	}
	if err := f.set(t, texts); err != nil {
		d.fault(v, path, "%s", err)
	}
}
