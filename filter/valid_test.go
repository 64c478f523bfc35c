package filter

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// validTexts are JSON, or nearly so.
func validTexts() []string {
	deep := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	all := []string{
		``, ` `, `null`, `true`, `nul`, `truex`, `"a"`, `"a`, "\"\x00\"", "\"\x7f\xff\"", `"\u00e4"`, `"\u00g4"`, `"\x"`, "\ufeff1",
		`0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e`, `1e5`, `1E+5`, `1e400`, `-1.0e-3`, `+1`, `1 2`, `NaN`,
		`{}`, `{ }`, `[]`, `[ ]`, `[,]`, `[1,]`, `[1 2]`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":1}}`, `[}`, `{]`, `[1`, `{"a":1`, `{"a"`, `{`, `[`,
		" {\n\t\"a\" : [ 1 , \"two\" , { } ] ,\r\n \"b\" : null } \n", "{\"a\":\v1}", `{"a":1}x`, `{"a":1,"a":2}`, "[\"a\nb\"]", `["\ud800"]`, `[0123]`, `[-]`, `[1.e1]`, `[tru]`, `[nulll]`, `["abcdefgh\"ijkl","12345678"]`,
	}
	for _, n := range []int{63, 64, 65, 129, 9_999, 10_000, 10_001, 20_000} {
		all = append(all, deep("[", "", "]", n), deep("[", "1", "]", n), deep(`{"a":`, "{}", "}", n), deep(`[{"a":`, "1", "}]", n/2), strings.Repeat("[", n))
	}
	return all
}

// checkText compares our answers on a text with those of encoding/json.
func checkText(t *testing.T, text []byte) {
	t.Helper()
	var compact bytes.Buffer
	valid := json.Compact(&compact, text) == nil
	if valid != json.Valid(text) {
		t.Fatalf("%.80q of %d bytes: encoding/json contradicts itself", text, len(text))
	}
	if got := ValidJSON(text); got != valid {
		t.Errorf("%.80q of %d bytes: valid is %v, want %v", text, len(text), got, valid)
	}
	if got, want := CompactJSON(text), valid && bytes.Equal(compact.Bytes(), text); got != want {
		t.Errorf("%.80q of %d bytes: compact is %v, want %v", text, len(text), got, want)
	}
}

func TestValidJSON(t *testing.T) {
	texts := append(validTexts(), `{"a":[1,"x y",{}]}`, `{"a" :1}`, `{"a": 1}`, `{ "a":1}`, `{"a":1 }`, `{"a":1, "b":2}`, `[1 ,2]`, `[[1, 2]]`)
	for _, text := range texts {
		checkText(t, []byte(text))
		checkText(t, []byte(text+"\t"))
		checkText(t, []byte(" "+text))
	}
	for _, doc := range webhooks() {
		checkText(t, doc)
		checkText(t, doc[:len(doc)/2])
	}
}

func FuzzValidJSON(f *testing.F) {
	f.Add([]byte(event))
	for _, text := range validTexts() {
		f.Add([]byte(text))
	}
	f.Fuzz(checkText)
}

func BenchmarkValidJSON(b *testing.B) {
	for b.Loop() {
		if !ValidJSON([]byte(event)) {
			b.Fatal("not valid")
		}
	}
}
