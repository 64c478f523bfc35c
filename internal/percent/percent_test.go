package percent

import (
	"testing"
	"unicode/utf8"
)

func TestValues(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"plain-text_1":  "plain-text_1",
		"a b":           "a%20b",
		"Euro € 😀":      "Euro%20%E2%82%AC%20%F0%9F%98%80", // the example in the binding's specification
		`"q" 100%`:      "%22q%22%20100%25",
		"line\r\nbreak": "line%0D%0Abreak",
	} {
		if got := Encode(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if got, err := Decode(want); err != nil || got != text {
			t.Errorf("%q: got %q, %v, want %q", want, got, err, text)
		}
	}
	for text, want := range map[string]string{`"a \"b\" \\ %20"`: `a "b" \  `, "%e2%82%ac": "€", "a b": "a b"} {
		if got, err := Decode(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"%", "%2", "%zz", "a%C0%A0"} {
		if got, err := Decode(text); err == nil {
			t.Errorf("%q was read, as %q", text, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("a%20b")
	f.Add(`"a"`)
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := Decode(Encode(s)); utf8.ValidString(s) && (err != nil || got != s) {
			t.Errorf("%q came back as %q, %v", s, got, err)
		}
		if got, err := Bytes(Encode(s)); err != nil || string(got) != s {
			t.Errorf("%q came back as %q, %v", s, got, err)
		}
		_, _ = Decode(s)
	})
}
