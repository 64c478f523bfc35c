package cli

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/harkbus/hark/driver"
)

// templateHelp documents the templates of messageTemplate.
const templateHelp = `With --template DATA or each line, and --key, --id and the headers, may hold

  {{n}}             the number of the message, from 1 on
  {{now}}           the time, RFC 3339;  {{unix}}, {{unixMilli}}: in numbers
  {{id}}            26 random letters and digits
  {{random 1 6}}    a random whole number from 1 to 6
  {{pick "a" "b"}}  one of them, at random
  {{env "USER"}}    an environment variable

and anything else in Go's text/template, such as {{printf "%05d" n}}.`

// messageTemplate makes messages from texts with variable parts.
type messageTemplate struct {
	n int

	key, id *template.Template // nil if there is none
	headers map[string]*template.Template
	data    *template.Template // nil if each line is its own template
}

// parse parses the template for a part of the message.
func (t *messageTemplate) parse(part, text string) (*template.Template, error) {
	tpl, err := template.New(part).Option("missingkey=error").Funcs(template.FuncMap{
		"n":         func() int { return t.n },
		"now":       func() string { return time.Now().Format(time.RFC3339Nano) },
		"unix":      func() int64 { return time.Now().Unix() },
		"unixMilli": func() int64 { return time.Now().UnixMilli() },
		"id":        rand.Text,
		"env":       os.Getenv,
		"random": func(from, to int) (int, error) {
			if to < from || to-from+1 <= 0 {
				return 0, fmt.Errorf("random %d %d: want the lower one first", from, to)
			}
			return from + mathrand.IntN(to-from+1), nil
		},
		"pick": func(of ...string) (string, error) {
			if len(of) == 0 {
				return "", errors.New("pick: nothing to pick from")
			}
			return of[mathrand.IntN(len(of))], nil
		},
	}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the template of the %s: %w", part, err)
	}
	eachField(tpl.Root, func(f parse.Node, _ []string) {
		if err == nil {
			err = fmt.Errorf("the template of the %s: there is no %s: want {{n}}, {{now}} or another word without a dot that hark pub --help lists", part, f)
		}
	})
	return tpl, err
}

// newTemplate returns the template for messages like m with the given data, or with
// each input line as data if there is none.
func newTemplate(m driver.Message, data []string) (t *messageTemplate, err error) {
	t = &messageTemplate{headers: map[string]*template.Template{}}
	if m.Key != "" {
		if t.key, err = t.parse("key", m.Key); err != nil {
			return nil, err
		}
	}
	if m.ID != "" {
		if t.id, err = t.parse("id", m.ID); err != nil {
			return nil, err
		}
	}
	for name, value := range m.Headers {
		if t.headers[name], err = t.parse("header "+name, value); err != nil {
			return nil, err
		}
	}
	if len(data) > 0 {
		t.data, err = t.parse("data", data[0])
	}
	return t, err
}

// message makes the next message from m and a line.
func (t *messageTemplate) message(m driver.Message, line []byte) (*driver.Message, error) {
	t.n++
	data := t.data
	if data == nil {
		var err error
		if data, err = t.parse("data", string(line)); err != nil {
			return nil, err
		}
	}
	var err error
	fill := func(tpl *template.Template, to *string) {
		var b bytes.Buffer
		if tpl == nil || err != nil {
			return
		}
		if err = tpl.Execute(&b, nil); err == nil {
			*to = b.String()
		}
	}
	fill(t.key, &m.Key)
	fill(t.id, &m.ID)
	headers := make(map[string]string, len(t.headers))
	for name, tpl := range t.headers {
		var value string
		fill(tpl, &value)
		headers[name] = value
	}
	m.Headers = headers
	var text string
	fill(data, &text)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", t.n, err)
	}
	return withData(m, []byte(text)), nil
}
