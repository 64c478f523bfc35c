package filter

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"testing"
	"time"
)

// message is an Envelope for tests.
type message struct {
	id, source, typ, subject, topic, key string
	time                                 time.Time
	headers                              map[string]string
	data                                 any
}

func (m *message) ID() string      { return m.id }
func (m *message) Source() string  { return m.source }
func (m *message) Type() string    { return m.typ }
func (m *message) Subject() string { return m.subject }
func (m *message) Topic() string   { return m.topic }
func (m *message) Key() string     { return m.key }
func (m *message) Time() time.Time { return m.time }
func (m *message) Data() any       { return m.data }

func (m *message) Header(name string) (string, bool) {
	v, ok := m.headers[name]
	return v, ok
}

func newMessage(data any) *message {
	return &message{
		id: "e-1", source: "/github", typ: "push", subject: "octo-org/octo-repo", topic: "hooks.push", key: "octo",
		time:    time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC),
		headers: map[string]string{"region": "eu", "tenant": "acme", "empty": ""},
		data:    data,
	}
}

// webhooks returns real webhook deliveries, one JSON document each.
var webhooks = sync.OnceValue(func() [][]byte {
	f, err := os.Open("../testdata/github-webhooks.jsonl")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	var out [][]byte
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Payload json.RawMessage }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			panic(err)
		}
		out = append(out, line.Payload)
	}
	return out
})

func mustCompile(t testing.TB, expr string, opts ...Option) *Filter {
	t.Helper()
	f, err := Compile(expr, opts...)
	if err != nil {
		t.Fatalf("Compile(%s): %v", expr, err)
	}
	return f
}
