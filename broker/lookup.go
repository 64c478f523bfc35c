package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// lookup is a value of a message that a template refers to: an attribute, a header,
// or a field of the payload.
type lookup struct {
	text string
	root string
	path []step
}

// step goes into an object, or into a list.
type step struct {
	name  string
	index int // used unless negative
}

// roots are the names with which a lookup may begin.
var roots = []string{"data", "headers", "key", "topic", "id", "type", "source", "subject"}

// parseLookup parses data.customer.id, data.tags[0], data["odd name"], headers.x,
// topic[1], key and the like.
func parseLookup(text string) (*lookup, error) {
	l := &lookup{text: text}
	end := strings.IndexAny(text, ".[")
	if end < 0 {
		end = len(text)
	}
	l.root = strings.TrimSpace(text[:end])
	known := false
	for _, r := range roots {
		known = known || r == l.root
	}
	if !known {
		s := didYouMean(l.root, roots)
		if s == "" {
			s = "; there are " + strings.Join(roots, ", ")
		}
		return nil, fmt.Errorf("{%s}: there is no %q%s", text, l.root, s)
	}
	for rest := strings.TrimSpace(text[end:]); rest != ""; {
		s, after, err := parseStep(rest)
		if err != nil {
			return nil, fmt.Errorf("{%s}: %w", text, err)
		}
		l.path = append(l.path, s)
		rest = after
	}
	switch {
	case l.root == "data" && len(l.path) == 0:
		return nil, fmt.Errorf("{%s}: name a field, such as data.region", text)
	case l.root == "headers" && (len(l.path) != 1 || l.path[0].index >= 0):
		return nil, fmt.Errorf(`{%s}: want headers.name or headers["name"]`, text)
	case l.root == "topic" && (len(l.path) > 1 || len(l.path) == 1 && l.path[0].index < 0):
		return nil, fmt.Errorf("{%s}: want topic, or topic[0] for its first token", text)
	case l.root != "data" && l.root != "headers" && l.root != "topic" && len(l.path) > 0:
		return nil, fmt.Errorf("{%s}: %s has no fields", text, l.root)
	}
	return l, nil
}

// parseStep parses .name, ["name"] or [0].
func parseStep(s string) (step, string, error) {
	if after, ok := strings.CutPrefix(s, "."); ok {
		end := strings.IndexAny(after, ".[")
		if end < 0 {
			end = len(after)
		}
		if end == 0 {
			return step{}, "", errors.New("a name is missing after a dot")
		}
		return step{after[:end], -1}, after[end:], nil
	}
	inside, after, ok := strings.Cut(s, "]")
	if !strings.HasPrefix(s, "[") || !ok {
		return step{}, "", errors.New("[ without ]")
	}
	inside = inside[1:]
	if name, err := strconv.Unquote(inside); err == nil {
		return step{name, -1}, after, nil
	}
	n, err := strconv.Atoi(inside)
	if err != nil || n < 0 {
		return step{}, "", fmt.Errorf(`[%s]: want a number from 0, or a name in quotes`, inside)
	}
	return step{"", n}, after, nil
}

// wholeTopic reports whether the value is the name of the topic, dots included.
func (l *lookup) wholeTopic() bool { return l.root == "topic" && len(l.path) == 0 }

// errNoValue says that a message does not have the value that a template refers to.
var errNoValue = errors.New("the message does not have this value")

// find returns the value in a message.
func (l *lookup) find(m *Event) (string, error) {
	value, ok := "", false
	switch l.root {
	case "topic":
		value, ok = m.Topic(), true
		if len(l.path) == 1 {
			tokens := strings.Split(value, ".")
			if ok = l.path[0].index < len(tokens); ok {
				value = tokens[l.path[0].index]
			}
		}
	case "headers":
		value, ok = m.Header(l.path[0].name)
	case "key":
		value, ok = m.Message.Key, m.Message.HasKey
	case "id":
		value, ok = m.Message.ID, m.Message.ID != ""
	case "type":
		value = m.Type()
		ok = value != ""
	case "source":
		value = m.Source()
		ok = value != ""
	case "subject":
		value = m.Subject()
		ok = value != ""
	default:
		value, ok = findJSON(m.Message.Data, l.path)
	}
	if !ok {
		return "", fmt.Errorf("{%s}: %w", l.text, errNoValue)
	}
	return value, nil
}

// findJSON returns the text, number or boolean at a path of a document. If an
// object has several members of one name the first counts, as in filters.
func findJSON(data []byte, path []step) (string, bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for _, s := range path {
		if !enter(dec, s) {
			return "", false
		}
	}
	token, err := dec.Token()
	if err != nil {
		return "", false
	}
	switch v := token.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// enter moves to a member of the next value.
func enter(dec *json.Decoder, s step) bool {
	token, err := dec.Token()
	open, ok := token.(json.Delim)
	if err != nil || !ok || (open == '[') != (s.index >= 0) {
		return false
	}
	var skipped json.RawMessage
	for i := 0; dec.More(); i++ {
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return false
			}
			if name == s.name {
				return true
			}
		} else if i == s.index {
			return true
		}
		if dec.Decode(&skipped) != nil {
			return false
		}
	}
	return false
}
