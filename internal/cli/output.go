package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// outputFlag declares --output. The first form is the default.
func outputFlag(fs *flag.FlagSet, forms ...string) *string {
	o := &choiceFlag{forms: forms, chosen: forms[0]}
	fs.Var(o, "output", "`"+strings.Join(forms, "|")+"`: output format")
	return &o.chosen
}

// choiceFlag accepts one of several words.
type choiceFlag struct {
	forms  []string
	chosen string
}

// Set implements flag.Value.
func (f *choiceFlag) Set(s string) error {
	if !slices.Contains(f.forms, s) {
		return fmt.Errorf("want %s", strings.Join(f.forms, ", "))
	}
	f.chosen = s
	return nil
}

// String implements flag.Value.
func (f *choiceFlag) String() string { return f.chosen }

// printJSON prints v on one line. The characters <, > and & stay as they are.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonText returns v as printJSON prints it, without the end of the line.
func jsonText(v any) ([]byte, error) {
	var b bytes.Buffer
	err := printJSON(&b, v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// jsonData returns data unchanged if it is JSON, and otherwise as a string, or as
// an object with base64 if it is not text.
func jsonData(data []byte) json.RawMessage {
	if json.Valid(data) {
		return data
	}
	var v any = string(data)
	if !utf8.Valid(data) {
		v = map[string][]byte{"base64": data}
	}
	text, err := jsonText(v)
	if err != nil {
		return json.RawMessage("null") // strings and bytes can always be marshalled
	}
	return text
}
