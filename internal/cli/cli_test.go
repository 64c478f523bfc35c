package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harkbus/hark/internal/leak"
)

// call runs the command line and returns what it printed.
func call(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), args, Streams{In: strings.NewReader(in), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty.jsonl", "")
	mixed := write("mixed.jsonl", `{"event":"push","payload":{"repository":{"full_name":"a/b"}}}
not json
{"payload":{}}
{"event":"push","payload":7}

{"event":"issues","payload":{"action":"opened"}}`)
	badName := write("name.jsonl", `{"event":"no good","payload":{}}`)
	tests := []struct {
		args     string
		code     int
		out, err string // must be part of what is printed
	}{
		{"", exitUsage, "", "a command is missing"},
		{"help", exitOK, "hark demo", ""},
		{"version", exitOK, "hark ", ""},
		{"demmo", exitUsage, "", "did you mean demo?"},
		{"demo --help", exitOK, "-count", ""},
		{"demo --cuont 1", exitUsage, "", "did you mean --count?"},
		{"demo --count -1", exitUsage, "", "must not be negative"},
		{"demo extra", exitUsage, "", `unexpected argument "extra"`},
		{"demo --where data.actoin==1", exitUsage, "", "action"},
		{"demo --input " + filepath.Join(dir, "none"), exitFailed, "", "no such file"},
		{"demo --input " + empty, exitFailed, "", "has no delivery"},
		{"demo --rate 0 --count 0 --input " + badName, exitFailed, "", "white space at byte"},
		{"demo --rate 0 --count 0 --input " + mixed, exitOK, "published 2 messages to 2 topics, skipped 3 bad lines", "line 2 skipped"},
		{"demo --rate 0 --count 400", exitOK, "every message is accounted for", ""},
		{"filter check data.a==1", exitOK, "", ""},
		{"filter check data.a==", exitUsage, "", "1:"},
		{"filter", exitUsage, "", "want check or test"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := call(t, "", strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.err) {
				t.Errorf("got code %d\n%s\n%s\nwant code %d, %q, %q", code, out, errs, tt.code, tt.out, tt.err)
			}
		})
	}
}

func TestFilterLines(t *testing.T) {
	in := "{\"a\":1}\n{\"a\":2}\n{\"a\":1,\"b\":0}\n"
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"filter", "test", "data.a == 1"}, "{\"a\":1}\n{\"a\":1,\"b\":0}\n"},
		{[]string{"filter", "test", "--count", "data.a == 1"}, "2\n"},
		{[]string{"filter", "test", "data.a == 1", "--invert"}, "{\"a\":2}\n"},
	}
	for _, tt := range tests {
		if code, out, errs := call(t, in, tt.args...); code != exitOK || out != tt.want {
			t.Errorf("%q: got %d %q %q, want %q", tt.args, code, out, errs, tt.want)
		}
	}
	if code, _, errs := call(t, "{\"a\":1}\n{\n", "filter", "test", "data.a == 1"); code != exitFailed || !strings.Contains(errs, "line 2") {
		t.Errorf("a bad line: got %d %q, want code %d and its number", code, errs, exitFailed)
	}
}

// TestDemoInterrupted ends the demo while it publishes: it must still account
// for what it has published, and leave nothing running.
func TestDemoInterrupted(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	interrupt := writerFunc(func(p []byte) (int, error) {
		cancel() // the first line of progress
		return errs.Write(p)
	})
	code := Run(ctx, []string{"demo", "--rate", "100", "--count", "100000"}, Streams{Out: &out, Err: interrupt})
	if code != exitInterrupted || !strings.Contains(out.String(), "audit") || strings.Contains(out.String(), "MISSING") {
		t.Errorf("got code %d\n%s\n%s\nwant code %d and a table", code, out.String(), errs.String(), exitInterrupted)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
