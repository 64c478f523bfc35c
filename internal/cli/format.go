package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/harkbus/hark/broker"
)

// messageFormat returns the function that formats messages in one of the forms.
func messageFormat(form string) (func(*broker.Event) ([]byte, error), error) {
	switch form {
	case "json":
		return func(e *broker.Event) ([]byte, error) { return jsonText(e) }, nil
	case "data":
		return func(e *broker.Event) ([]byte, error) { return e.Message.Data, nil }, nil
	case "pretty":
		return pretty, nil
	}
	if !strings.Contains(form, "{{") {
		return nil, errors.New("want json, data, pretty or a template such as '{{.topic}} {{.data}}'")
	}
	t, err := template.New("message").Option("missingkey=error").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		b, err := jsonText(v)
		return string(b), err
	}}).Parse(form)
	if err != nil {
		return nil, err
	}
	return func(e *broker.Event) ([]byte, error) {
		fields, err := templateFields(e)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, fields); err != nil {
			return nil, fmt.Errorf("--output: %w", missingField(t, fields, err))
		}
		return b.Bytes(), nil
	}, nil
}

// templateFields returns what a template sees of a message. Attributes that the
// message does not have are empty.
func templateFields(e *broker.Event) (map[string]any, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{"seq": "", "id": "", "source": "", "type": "", "subject": "", "time": "", "key": "", "headers": map[string]any{}, "datacontenttype": ""}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return nil, err
	}
	if fields["data"] == nil && fields["data_base64"] == nil {
		fields["data"] = ""
	}
	return fields, nil
}

// missingField returns the error of a template in terms of the message if the reason is
// that the message does not have a field, and otherwise as it is.
func missingField(t *template.Template, fields map[string]any, err error) error {
	var found error
	eachField(t.Root, func(n parse.Node, path []string) {
		// An error names the node, or its beginning, in angle brackets.
		if found == nil && strings.Contains(err.Error(), fmt.Sprintf("<%.20s", n)) {
			found = absent(fields, path)
		}
	})
	if found != nil {
		return found
	}
	return err
}

// eachField calls f for each field in a part of a template, such as .data.total, or
// $.data.total, with its path.
func eachField(n parse.Node, f func(n parse.Node, path []string)) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, n := range n.Nodes {
				eachField(n, f)
			}
		}
	case *parse.ActionNode:
		eachField(n.Pipe, f)
	case *parse.IfNode:
		eachField(&n.BranchNode, f)
	case *parse.WithNode:
		eachField(&n.BranchNode, f)
	case *parse.RangeNode:
		eachField(&n.BranchNode, f)
	case *parse.BranchNode:
		eachField(n.Pipe, f)
		eachField(n.List, f)
		eachField(n.ElseList, f)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			for _, n := range c.Args {
				eachField(n, f)
			}
		}
	case *parse.FieldNode:
		f(n, n.Ident)
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			f(n, n.Ident[1:])
		}
	}
}

// absent returns an error that says which of a path's names does not exist, and which do;
// nil if all of them exist.
func absent(fields map[string]any, path []string) error {
	at, parent := "", "the message"
	for i, name := range path {
		at += "." + name
		v, ok := fields[name]
		if !ok {
			return fmt.Errorf("the message has no %s: %s has %s", at, parent, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		if fields, ok = v.(map[string]any); !ok && i < len(path)-1 {
			return fmt.Errorf("the message has no %s.%s: %s is no object", at, path[i+1], at)
		}
		parent = at
	}
	return nil
}

// pretty formats a message for people: a line about it, with its data below.
func pretty(e *broker.Event) ([]byte, error) {
	m := e.Message
	var b bytes.Buffer
	at := m.Time
	if at.IsZero() {
		at = time.Now()
	}
	fmt.Fprintf(&b, "%s  %s", at.Local().Format("15:04:05.000"), printable(m.Topic))
	if m.Seq > 0 {
		fmt.Fprintf(&b, "  #%d", m.Seq)
	}
	if m.HasKey {
		fmt.Fprintf(&b, "  key %s", printable(m.Key))
	}
	if m.ID != "" {
		fmt.Fprintf(&b, "  id %s", printable(m.ID))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		fmt.Fprintf(&b, "\n  %s: %s", printable(name), printable(m.Headers[name]))
	}
	var data bytes.Buffer
	if json.Indent(&data, m.Data, "  ", "  ") != nil {
		data.Write(m.Data) // it is not JSON
	}
	b.WriteString("\n  " + printableLines(data.String()))
	return b.Bytes(), nil
}
