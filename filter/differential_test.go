package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"github.com/harkbus/hark/internal/race"
)

// outcome is the result of evaluating an expression.
type outcome int

const (
	outFalse outcome = iota
	outTrue
	outError
)

func (o outcome) String() string { return [...]string{"false", "true", "error"}[o] }

// reference evaluates the expression with cel-go alone. data may be an error.
func reference(t testing.TB, f *Filter, m *message, data any) (outcome, error) {
	t.Helper()
	env, err := environmentFor(f.opts.sh)
	if err != nil {
		t.Fatal(err)
	}
	checked, issues := env.Compile(f.text)
	if issues.Err() != nil {
		t.Fatalf("cel-go does not compile %s: %v", f.text, issues.Err())
	}
	program, err := env.Program(checked)
	if err != nil {
		t.Fatalf("cel-go does not plan %s: %v", f.text, err)
	}
	out, _, err := program.Eval(map[string]any{
		"id": m.id, "source": m.source, "type": m.typ, "subject": m.subject, "topic": m.topic, "key": m.key,
		"time": m.time, "headers": m.headers, "data": data,
	})
	return outcomeOf(out, err)
}

func outcomeOf(out ref.Val, err error) (outcome, error) {
	switch {
	case err != nil:
		return outError, err
	case out == types.True:
		return outTrue, nil
	case out == types.False:
		return outFalse, nil
	}
	return outError, fmt.Errorf("%v is no bool", out)
}

func ours(f *Filter, m *message) (outcome, error) {
	ok, err := f.Eval(m)
	switch {
	case err != nil:
		return outError, err
	case ok:
		return outTrue, nil
	}
	return outFalse, nil
}

// firstWins decodes a document token by token and keeps the first of several
// members with the same name. It shares no code with the package.
func firstWins(doc []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	v, err := firstWinsValue(d)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func firstWinsValue(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			s, ok := name.(string)
			if !ok {
				return nil, errors.New("a name that is no string")
			}
			v, err := firstWinsValue(d)
			if err != nil {
				return nil, err
			}
			if _, again := m[s]; !again {
				m[s] = v
			}
		}
		_, err := d.Token()
		return m, err
	case json.Delim('['):
		l := []any{}
		for d.More() {
			v, err := firstWinsValue(d)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		_, err := d.Token()
		return l, err
	}
	return tok, nil
}

// fuzzLimits lift the limits that cel-go does not have, so that the two can be
// compared.
var fuzzLimits = []Option{
	MaxLength(1 << 20), MaxNesting(1000), MaxPayloadDepth(maxDecodeDepth), MaxMacroNesting(10), MaxSteps(1 << 40),
}

// compare checks the closures against cel-go's answers for one document.
func compare(t testing.TB, expr string, doc []byte, cut int) {
	t.Helper()
	loose, err := Compile(expr, fuzzLimits...)
	if err != nil {
		return // an expression that does not compile has no answer
	}
	exact := mustCompile(t, expr, append([]Option{Exact()}, fuzzLimits...)...)
	m := newMessage(doc)

	// CEL-2: an exact filter answers as json.Unmarshal and cel-go do, whatever
	// the bytes.
	var data any
	if err := json.Unmarshal(doc, &data); err != nil {
		data = types.WrapErr(err)
	}
	want, wantErr := reference(t, exact, m, data)
	got, gotErr := ours(exact, m)
	if got != want {
		t.Fatalf("exact: %s\non %s\ngot  %v (%v)\nwant %v (%v)\n%s", expr, clip(doc), got, gotErr, want, wantErr, exact.Explain())
	}

	// CEL-3: any other filter gives the same answer for valid text, except that
	// the first of several members with the same name counts.
	got, gotErr = ours(loose, m)
	if types.IsError(asVal(data)) {
		// Damaged. What holds for truncated text is checked below.
		return
	}
	first, err := firstWins(doc)
	if err != nil {
		t.Fatalf("json.Unmarshal accepts what the token decoder does not: %v: %s", err, clip(doc))
	}
	want, wantErr = reference(t, loose, m, first)
	if got != want {
		t.Fatalf("%s\non %s\ngot  %v (%v)\nwant %v (%v)\n%s", expr, clip(doc), got, gotErr, want, wantErr, loose.Explain())
	}

	// CEL-4: for a truncated document, the answer is that for the whole
	// document or an error, and never another.
	if len(doc) == 0 || json.Valid(doc[:cut%len(doc)]) {
		return // the rest is a different document
	}
	m.data = doc[:cut%len(doc)]
	if part, err := ours(loose, m); part != got && part != outError {
		t.Fatalf("%s\non %s\ncut to %d bytes: got %v (%v), want %v or an error", expr, clip(doc), cut%len(doc), part, err, got)
	}
}

func asVal(v any) ref.Val {
	r, _ := v.(ref.Val)
	return r
}

func clip(doc []byte) string {
	if len(doc) > 3000 {
		return fmt.Sprintf("%q...", doc[:3000])
	}
	return fmt.Sprintf("%q", doc)
}

// oddDocuments are unlike real documents.
var oddDocuments = []string{
	``, ` `, `null`, `true`, `"x"`, `12`, `[]`, `[1,2,{"id":3}]`, `{}`, `{"id":1}`, `{"id":1`, `{"id":1}}`, `{"id":1} x`,
	`{"id":1,"id":2}`, `{"a":{"id":1},"a":{"name":"x"}}`, `{"a":{"id":1},"a":5,"a":{"id":2}}`, `{"id":{"id":1,"id":{"id":2}},"id":3}`,
	`{"id":1e999}`, `{"id":-1e-999,"a":123456789012345678901234567890}`, `{"id":9007199254740993,"b":0.1,"c":1E5,"d":-0}`,
	`{"id":"\u00e9\ud83d\ude00\ud800 \n"}`, "{\"id\":\"\xff\xfe\",\"\xff\":1}", `{"\u0069d":7,"i\u0064":8}`, `{"id":01}`, `{"id":1.}`, `{"id":"\x"}`,
	"{\"id\":\"a\tb\"}", `{"a":[[[[[[[[1]]]]]]]],"id":[{"id":[{"id":1}]}]}`, `{"labels":[{"name":"bug"},{"name":"x","name":"y"},5,null],"id":null}`,
	`{"created_at":"2019-05-15T15:20:18Z","updated_at":"2019-05-15T15:20:18.5+02:00","t":"nope","secs":1557933618,"d":"90s"}`,
	`{"a":{},"b":[],"c":"","d":0,"e":false,"f":{"":1,"a b":2}}`, `{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12,"m":13,"n":14,"o":15,"p":16,"q":17,"a":18}`,
}

func TestSameAnswersAsCEL(t *testing.T) {
	docs := webhooks()
	n := 600
	if testing.Short() || race.Enabled {
		n = 200
	}
	for i := range n {
		doc := docs[i*7%len(docs)]
		if i%3 == 0 {
			doc = []byte(oddDocuments[i/3%len(oddDocuments)])
		}
		g := newGenerator(uint64(i), decodeAny(doc))
		compare(t, g.bool(4), doc, i*31)
	}
}

func FuzzSameAnswersAsCEL(f *testing.F) {
	for i, doc := range oddDocuments {
		f.Add(uint64(i), []byte(doc), uint16(i))
	}
	for i, doc := range webhooks() {
		if len(doc) < 8000 && i%12 == 0 {
			f.Add(uint64(i), doc, uint16(i*100))
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, doc []byte, cut uint16) {
		v := decodeAny(doc)
		if v == nil {
			// Evaluate an expression about the fields of a sound document on a
			// damaged one.
			v = decodeAny([]byte(oddDocuments[seed%uint64(len(oddDocuments))]))
		}
		g := newGenerator(seed, v)
		for range 4 {
			compare(t, g.bool(4), doc, int(cut))
		}
	})
}

func FuzzExpressionText(f *testing.F) {
	for i := range 40 {
		g := newGenerator(uint64(i), decodeAny(webhooks()[i]))
		f.Add(g.bool(3), []byte(`{"id":1,"a":{"id":"x"},"labels":[{"name":"bug"}]}`))
	}
	f.Fuzz(func(t *testing.T, expr string, doc []byte) {
		_, _ = Compile(expr) // the limits must hold for any expression
		compare(t, expr, doc, 3)
	})
}
