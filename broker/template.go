package broker

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/harkbus/hark/internal/names"
)

// template is a target of a route: the name of a topic, possibly with values of the
// message in it.
type template struct {
	text  string
	parts []part
}

// part is a piece of a template: a text or a value.
type part struct {
	text  string
	value *lookup
}

// parseTemplate parses a target. Errors give the byte offset.
func parseTemplate(text string) (*template, error) {
	t := &template{text: text}
	for rest := text; rest != ""; {
		at := len(text) - len(rest)
		open := strings.IndexAny(rest, "{}")
		switch {
		case open < 0:
			t.parts = append(t.parts, part{text: rest})
			return t, t.check()
		case rest[open] == '}':
			return nil, fmt.Errorf("%q: } without { at byte %d", text, at+open)
		case open > 0:
			t.parts = append(t.parts, part{text: rest[:open]})
		}
		end := strings.IndexByte(rest[open:], '}')
		if end < 0 {
			return nil, fmt.Errorf("%q: { without } at byte %d", text, at+open)
		}
		v, err := parseLookup(rest[open+1 : open+end])
		if err != nil {
			return nil, fmt.Errorf("%q: at byte %d: %w", text, at+open, err)
		}
		t.parts = append(t.parts, part{value: v})
		rest = rest[open+end+1:]
	}
	return t, t.check()
}

// check reports an error if the template can produce invalid names of topics.
func (t *template) check() error {
	name := t.pattern("x")
	if names.IsPattern(t.text) {
		return fmt.Errorf("%q: a target is one topic, not a pattern; use {topic} or another template for the part that varies", t.text)
	}
	if err := names.Check(name); err != nil {
		if name == t.text {
			return fmt.Errorf("%s", nameFault(err))
		}
		return fmt.Errorf("%q does not make the name of a topic: %s", t.text, nameFault(err))
	}
	if isReply(name) {
		return fmt.Errorf("%q: names that begin with _INBOX are reserved for replies", t.text)
	}
	return nil
}

// constant reports whether the template is a plain name.
func (t *template) constant() bool {
	for _, p := range t.parts {
		if p.value != nil {
			return false
		}
	}
	return true
}

// pattern returns the template with a text in place of each value.
func (t *template) pattern(value string) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.value != nil {
			b.WriteString(value)
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// reaches returns a pattern that matches all names that the template produces for
// messages of topics that match from.
func (t *template) reaches(from string) string {
	var b strings.Builder
	for _, p := range t.parts {
		switch {
		case p.value == nil:
			b.WriteString(p.text)
		case p.value.wholeTopic():
			b.WriteString(from)
		default:
			b.WriteByte('*')
		}
	}
	var tokens []string
	for token := range strings.SplitSeq(b.String(), ".") {
		switch {
		case strings.Contains(token, ">"): // any number of tokens
			return strings.Join(append(tokens, ">"), ".")
		case strings.Contains(token, "*"):
			tokens = append(tokens, "*")
		default:
			tokens = append(tokens, token)
		}
	}
	return strings.Join(tokens, ".")
}

// expand returns the topic for a message. It fails if the message lacks a value, or
// the name becomes too long.
func (t *template) expand(m *Event) (string, error) {
	if len(t.parts) == 1 && t.parts[0].value == nil {
		return t.text, nil
	}
	var b []byte
	for _, p := range t.parts {
		if p.value == nil {
			b = append(b, p.text...)
			continue
		}
		s, err := p.value.find(m)
		if err != nil {
			return "", err
		}
		if p.value.wholeTopic() {
			b = append(b, s...)
		} else {
			b = appendToken(b, s)
		}
	}
	name := string(b)
	if err := names.Check(name); err != nil {
		return "", fmt.Errorf("%s", nameFault(err))
	}
	if isReply(name) {
		return "", fmt.Errorf("%q: names that begin with _INBOX are reserved for replies", name)
	}
	return name, nil
}

// appendToken appends a value such that it is one token, or a part of one, and
// different values stay different: it percent-encodes what tokens cannot contain,
// and writes an empty value as a single percent sign.
func appendToken(b []byte, s string) []byte {
	if s == "" {
		return append(b, '%')
	}
	for i, r := range s {
		n := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, n = utf8.DecodeRuneInString(s[i:])
		}
		first := len(b) == 0 && (r == '$' || r == '_') // such names are reserved
		if first || strings.ContainsRune(`.*>%`, r) || unicode.IsSpace(r) || unicode.IsControl(r) || names.IsInvisible(r) || r == utf8.RuneError {
			for _, c := range []byte(s[i : i+n]) {
				b = append(b, '%')
				b = append(b, strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:])...)
			}
			continue
		}
		b = append(b, s[i:i+n]...)
	}
	return b
}
