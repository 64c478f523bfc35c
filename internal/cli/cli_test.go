package cli

import (
	"bytes"
	"flag"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// call runs a command line and returns its output, without the notice that it waits
// for a broker: on a busy machine any command may have to.
func call(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), args, Streams{In: strings.NewReader(in), Out: &o, Err: &e})
	return code, o.String(), slowly.ReplaceAllString(e.String(), "")
}

// slowly matches what a command prints while it waits for a broker to answer.
var slowly = regexp.MustCompile(`hark: no answer yet from .*\n`)

func TestCommandLine(t *testing.T) {
	tests := []struct {
		args     string
		code     int
		out, err string // must be part of the output; if empty, there must be none
	}{
		{"", exitUsage, "", "hark: a command is missing; see hark --help"},
		{"help", exitOK, "hark demo", ""},
		{"--help", exitOK, "Exit codes: 0 done, 1 failed, 2 not understood, 3 closed", ""},
		{"version", exitOK, "hark ", ""},
		{"--version", exitOK, "hark ", ""},
		{"version --help", exitOK, "hark version", ""},
		{"version 1", exitUsage, "", `unexpected argument "1"`},
		{"demmo", exitUsage, "", "did you mean demo?"},
		{"ver", exitUsage, "", "did you mean version?"},
		{"xyz", exitUsage, "", `unknown command "xyz"; see hark --help`},
		{"help xyz", exitUsage, "", `unknown command "xyz"`},
		{"help demo", exitOK, "--count messages", ""},
		{"demo --help", exitOK, "(default 1000)", ""},
		{"demo -h", exitOK, "hark demo [flags]", ""},
		{"demo --cuont 1", exitUsage, "", "unknown flag --cuont, did you mean --count?; see hark demo --help"},
		{"pub x 1 --delay 5", exitUsage, "", `invalid value "5" for flag --delay: want a time such as 90s`},
		{"demo channel --interval 0d", exitUsage, "", "--interval must be above 0"},
		{"wait x --timeout -1s", exitUsage, "", `invalid value "-1s" for flag --timeout: want a time such as 90s`},
		{"topic list --limit -1", exitUsage, "", `invalid value "-1" for flag --limit: want a whole number that is not negative`},
		{"pub x 1 --count x", exitUsage, "", `invalid value "x" for flag --count: want a whole number`},
		{"pub x 1 --rate x", exitUsage, "", `invalid value "x" for flag --rate: want a number`},
		{"pub x {{if}} --template", exitUsage, "", "the template of the data: "},
		{"pub x {{n}}{{.nope}} --template", exitUsage, "", "the template of the data: there is no .nope: want {{n}}, {{now}} or another word"},
		{"demo --count", exitUsage, "", "flag needs an argument: --count"},
		{"demo --count x", exitUsage, "", `invalid value "x" for flag --count`},
		{"demo --count -1", exitUsage, "", "must not be negative"},
		{"demo --rate -1", exitUsage, "", "must not be negative"},
		{"demo extra", exitUsage, "", `unexpected argument "extra"`},
		{"demo -- --rate", exitUsage, "", `unexpected argument "--rate"`},
		{"demo --where data.actoin==1", exitUsage, "", "action"},
		{"demo --rate 0 --count 10", exitOK, "10 deliveries published", ""},
		{"demo --join", exitUsage, "", "give the broker with --url"},
		{"demo --url mem:x", exitUsage, "", "is not the URL of a broker; use one such as hark://127.0.0.1:7422"},
		{"pub x 1 --url localhost:7422", exitUsage, "", "hark: pub: --url: \"localhost:7422\" is not the URL of a broker; did you mean hark://localhost:7422?"},
		{"topic list --http 127.0.0.1:7480", exitUsage, "", "hark: topic list: --http: \"127.0.0.1:7480\" is not the URL of an HTTP API; did you mean http://127.0.0.1:7480?"},
		{"demo channle", exitUsage, "", "did you mean channel?; see hark demo --help"},
		{"demo channel --help", exitOK, "--interval time", ""},
		{"demo channel --interval 0", exitUsage, "", "--interval must be above 0; see hark demo channel --help"},
		{"demo channel --interval 1", exitUsage, "", `invalid value "1" for flag --interval`},
		{"demo channel --count -1", exitUsage, "", "--count must not be negative"},
		{"demo channel --producers 0", exitUsage, "", "must be at least 1"},
		{"demo channel --consumers 0", exitUsage, "", "must be at least 1"},
		{"demo channel --capacity -2", exitUsage, "", "--capacity must be at least 0"},
		{"demo notify --help", exitOK, "--rounds steps", ""},
		{"demo notify --rounds -1", exitUsage, "", "--rounds must not be negative"},
		{"demo notify --rounds 0", exitOK, "the final value is 0 after 0 changes", ""},
		{"demo notify --goroutines 3", exitUsage, "", "--goroutines must be an even number"},
		{"demo notify --goroutines 0", exitUsage, "", "--goroutines must be an even number"},
		{"completion tcsh", exitUsage, "", "want one of bash, fish, powershell, zsh; there are no scripts for other shells"},
		{"filter", exitUsage, "", "hark: filter: a command is missing; see hark filter --help"},
		{"filter tets", exitUsage, "", "did you mean test?"},
		{"filter test", exitUsage, "", "want one expression"},
		{"filter test --help", exitOK, "--invert", ""},
		{"filter check data.a==1", exitOK, "data.a", ""},
		{"filter check data.a==", exitUsage, "", "1:"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := call(t, "", strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.err) {
				t.Errorf("got code %d\n%s\n%s\nwant code %d, %q, %q", code, out, errs, tt.code, tt.out, tt.err)
			}
			if (out == "") != (tt.out == "") || (errs == "") != (tt.err == "") {
				t.Errorf("got output %q and errors %q, want %q and %q", out, errs, tt.out, tt.err)
			}
		})
	}
}

// TestHelp asks every command for its help.
func TestHelp(t *testing.T) {
	var walk func(c command, words []string)
	walk = func(c command, words []string) {
		code, out, errs := call(t, "", append(slices.Clone(words), "--help")...)
		asked, help, _ := call(t, "", append([]string{"help"}, words...)...)
		if code != exitOK || errs != "" || !strings.HasPrefix(out, strings.Join(append([]string{"hark"}, words...), " ")+": ") || asked != exitOK || help != out {
			t.Errorf("help of %q: got code %d and %d\n%s\n%s", words, code, asked, out, errs)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(line) - 1; n > 90 {
				t.Errorf("help of %q: %q has %d columns, want at most 90", words, line, n)
			}
		}
		for _, sub := range c.subs {
			if sub.setup == nil && len(sub.subs) == 0 || sub.about == "" {
				t.Errorf("%s does nothing, or does not say what", sub.name)
			}
			walk(sub, append(slices.Clone(words), sub.name))
		}
	}
	walk(root, nil)
}

func TestParseFlags(t *testing.T) {
	tests := []struct {
		args  string
		words string
		n     int
	}{
		{"", "", 0},
		{"a b", "a b", 0},
		{"--n 1 a b", "a b", 1},
		{"a --n 2 b", "a b", 2},
		{"a b --n=3", "a b", 3},
		{"a -- --n 3 b", "a --n 3 b", 0},
		{"-- a", "a", 0},
		{"- --n 4", "-", 4},
	}
	for _, tt := range tests {
		fs := flag.NewFlagSet("x", flag.ContinueOnError)
		n := fs.Int("n", 0, "")
		words, err := parseFlags(fs, strings.Fields(tt.args))
		if err != nil || strings.Join(words, " ") != tt.words || *n != tt.n {
			t.Errorf("%q: got %q, %d, %v, want %q, %d", tt.args, words, *n, err, tt.words, tt.n)
		}
	}
}
