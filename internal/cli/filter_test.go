package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFilterLines(t *testing.T) {
	const (
		one  = "{\"a\":1}\n"
		two  = "{\"a\":2}\n"
		more = "{\"a\":1,\"b\":0}\n"
	)
	tests := []struct {
		name, in string
		args     []string
		code     int
		out      string
		err      []string // must be part of standard error, which must be empty if there are none
	}{
		{"matching", one + two + more, []string{"data.a == 1"}, exitOK, one + more, nil},
		{"count", one + two + more, []string{"--count", "data.a == 1"}, exitOK, "2\n", nil},
		{"invert", one + two + more, []string{"data.a == 1", "--invert"}, exitOK, two, nil},
		{"count of the inverse", one + two + more, []string{"data.a == 1", "--invert", "--count"}, exitOK, "1\n", nil},
		{"nothing matches", one + two, []string{"data.a == 3"}, exitOK, "", nil},
		{"empty", "", []string{"data.a == 1"}, exitOK, "", nil},
		{"empty, count", "", []string{"data.a == 1", "--count"}, exitOK, "0\n", nil},
		{"empty lines", "\n" + one + " \t\r\n\n", []string{"data.a == 1"}, exitOK, one, nil},
		{"CRLF", "{\"a\":1}\r\n\r\n{\"a\":2}\r\n", []string{"data.a == 1"}, exitOK, "{\"a\":1}\r\n", nil},
		{"byte order mark", "\xef\xbb\xbf" + one + two, []string{"data.a == 1"}, exitOK, one, nil},
		{"no end of line", two + "{\"a\":1}", []string{"data.a == 1"}, exitOK, one, nil},
		{"expression that begins with a minus", one, []string{"--", "-1.0 < data.a"}, exitOK, one, nil},
		{"a bad line", one + "{\n" + more, []string{"data.a == 1"}, exitFailed, one + more, []string{"line 2: ", "hark: filter test: 1 line could not be evaluated"}},
		{"bad lines, invert", "{\nnope\n" + two, []string{"--invert", "data.a == 1"}, exitFailed, two, []string{"line 1: ", "line 2: ", "2 lines could not"}},
		{"a field that is not there", one + two, []string{"data.b == 1"}, exitFailed, "", []string{"line 1: filter: data.b: no such field", "line 2: "}},
		{"garbage", "\x00\xff\xfe\x01\n\x80", []string{"data.a == 1"}, exitFailed, "", []string{"line 1: ", "line 2: "}},
		{"a line too long", "\"" + strings.Repeat("x", maxLine) + "\"\n" + one, []string{"data.a == 1"}, exitFailed, one, []string{"line 1: longer than 8388608 bytes"}},
		{"a long line", `{"b":"` + strings.Repeat("x", 1<<20) + `","a":1}` + "\n", []string{"--count", "data.a == 1"}, exitOK, "1\n", nil},
		{"deep nesting", strings.Repeat("[", 100_000) + "\n", []string{"data.a == 1"}, exitFailed, "", []string{"line 1: filter: payload nested too deeply"}},
		{"explain", one, []string{"--explain", "data.a == 1"}, exitOK, one, []string{"reads:      data.a", "all of it as closures"}},
		{"explain an interpreter's part", one, []string{"--explain", "data.a == 1 || [1].map(x, x + 1) == [data.a]"}, exitOK, one, []string{"on cel-go's interpreter", "because"}},
		{"bad expression", one, []string{"data.a =="}, exitUsage, "", []string{"1:10: ", "\n             ^\nsee hark filter test --help\n"}},
		{"misspelt name", one, []string{"daat.a == 1"}, exitUsage, "", []string{"did you mean \"data\"?"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := call(t, tt.in, append([]string{"filter", "test"}, tt.args...)...)
			if code != tt.code || out != tt.out {
				t.Errorf("got %d %q, want %d %q", code, out, tt.code, tt.out)
			}
			if len(tt.err) == 0 && errs != "" {
				t.Errorf("standard error has %q, want nothing", errs)
			}
			for _, want := range tt.err {
				if !strings.Contains(errs, want) {
					t.Errorf("standard error has %q, want %q in it", errs, want)
				}
			}
		})
	}
}

// TestFilterIsPrompt writes a line, reads the answer, and ends the command while it
// waits for the next line.
func TestFilterIsPrompt(t *testing.T) {
	in, typed := io.Pipe()
	seen, out := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, []string{"filter", "test", "data.a == 1"}, Streams{In: in, Out: out, Err: io.Discard})
		out.Close()
	}()
	answers := bufio.NewReader(seen)
	for _, line := range []string{"{\"a\":1}\n", "{\"a\":1,\"b\":2}\n"} {
		if _, err := io.WriteString(typed, line); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); got != line || err != nil {
			t.Fatalf("got %q, %v; want %q", got, err, line)
		}
	}
	interrupt()
	if got := <-code; got != exitInterrupted {
		t.Errorf("exit code %d, want %d", got, exitInterrupted)
	}
	typed.Close()
}

// TestFilterEndsWithItsReader checks that the command stops at the first failed
// write rather than at the end of the input.
func TestFilterEndsWithItsReader(t *testing.T) {
	in, typed := io.Pipe()
	go func() {
		line := bytes.Repeat([]byte("{\"a\":1}\n"), 1000)
		for {
			if _, err := typed.Write(line); err != nil {
				return
			}
		}
	}()
	defer in.Close()
	var errs strings.Builder
	code := Run(t.Context(), []string{"filter", "test", "data.a == 1"}, Streams{In: in, Out: fullDisk{}, Err: &errs})
	if code != exitFailed || !strings.Contains(errs.String(), "no room") {
		t.Errorf("got %d %q, want %d and the reason", code, errs.String(), exitFailed)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no room") }
