package broker

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
)

// fromUTF8 returns the text of a file without the byte order mark that some editors
// add, and an error text if the file has another encoding.
func fromUTF8(data []byte) (text []byte, fault string) {
	for _, mark := range [][]byte{{0xff, 0xfe}, {0xfe, 0xff}} {
		if bytes.HasPrefix(data, mark) {
			return nil, "the file is in UTF-16; save it as UTF-8"
		}
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), ""
}

// syntaxProblem explains why a text is not valid YAML, including likely causes that
// the writer may not have thought of.
func (c *Config) syntaxProblem(err error) *Problem {
	p := &Problem{Where: c.file, Text: err.Error()}
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		return p
	}
	p.Text = syntax.Message
	if t := syntax.Token; t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	if p.Line < 1 || p.Line > len(c.lines) {
		return p
	}
	line := strings.TrimRight(c.lines[p.Line-1], "\r")
	if strings.HasPrefix(strings.TrimLeft(line, " "), "\t") {
		p.Text = "a tab in front of what the line says; YAML wants spaces"
		return p
	}
	hint := quotesHint(line)
	if hint == "" && strings.Contains(p.Text, "not allowed in this context") {
		hint = "; the keys of one entry begin in the same column"
	}
	p.Text += hint
	return p
}

var (
	keyAndValue  = regexp.MustCompile(`^\s*(?:-\s+)*\{?\s*[\w-]+:\s+(.*?)\s*$`)
	bracesInText = regexp.MustCompile(`[^\s,\[\]{}:"']*\{[^{}"',]*\}[^\s,\[\]{}"']*`)
)

// quotesHint says that something in a line needs quotes, if that is likely;
// otherwise it returns "".
func quotesHint(line string) string {
	m := keyAndValue.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	value := m[1]
	for _, text := range bracesInText.FindAllString(value, -1) {
		if !strings.Contains(text, ": ") && !strings.Contains(value, `"`+text) && !strings.Contains(value, "'"+text) {
			return fmt.Sprintf("; a target with {…} in it needs quotes: %q", text)
		}
	}
	switch {
	case value == "":
		return ""
	case strings.ContainsRune(">|*&!%@`", rune(value[0])):
		return fmt.Sprintf("; a text that begins with %c needs quotes", value[0])
	case (value[0] == '"' || value[0] == '\'') && strings.Count(value, value[:1]) == 2:
		return fmt.Sprintf("; a text that begins with a quote needs quotes around it, such as '%s'", strings.ReplaceAll(value, "'", `"`))
	case strings.Contains(value, ": "):
		return `; a text with ": " in it needs quotes`
	}
	return ""
}

// flowText returns the mapping in braces that begins at a place, as it is written; empty if
// it does not end in its line.
func (c *Config) flowText(at position) string {
	if at.line < 1 || at.line > len(c.lines) {
		return ""
	}
	line := []rune(c.lines[at.line-1])
	from := string(line[min(at.column-1, len(line)):])
	text, _, found := strings.Cut(from, "}")
	if !found || !strings.HasPrefix(text, "{") {
		return ""
	}
	return text + "}"
}
