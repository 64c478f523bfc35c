package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTour pastes docs/tour.md into a shell that already has another job, and
// compares the output. In the text, … stands for anything. The ports differ
// from those in the text.
func TestTour(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		missing(t, "bash")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl")
	}
	text, err := os.ReadFile("../../docs/tour.md")
	if err != nil {
		t.Fatal(err)
	}
	messages, web := freeAddress(t), freeAddress(t)
	steps := console(strings.ReplaceAll(string(text), "127.0.0.1:7480", web))
	if len(steps) < 5 {
		t.Fatalf("docs/tour.md has %d commands", len(steps))
	}
	var script strings.Builder
	fmt.Fprintln(&script, "trap 'kill $(jobs -p); wait' EXIT; sleep 600 &")
	for i, s := range steps {
		fmt.Fprintln(&script, s.command)
		fmt.Fprintf(&script, "echo; echo '%s' %d $?\n", mark, i)
	}
	fmt.Fprintln(&script, "for _ in {1..200}; do kill -0 $! 2>/dev/null || exit 0; sleep 0.1; done; echo the broker has not stopped; exit 1")
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bash, "-u")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(build(t))+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HARK_LISTEN="+messages, "HARK_HTTP="+web, "HARK_URL=hark://"+messages, "HARK_HTTP_URL=http://"+web,
		"HARK_CONTEXTS="+filepath.Join(dir, "contexts.json"), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("bash: %v\n%s", err, out)
	}
	rest := string(out)
	for i, s := range steps {
		var got string
		var found bool
		got, rest, found = strings.Cut(rest, fmt.Sprintf("\n%s %d ", mark, i))
		if !found {
			log, _ := os.ReadFile(filepath.Join(dir, "hark.log"))
			t.Fatalf("the shell did not come back from\n$ %s\n%s\n%s", s.command, got, log)
		}
		code, after, _ := strings.Cut(rest, "\n")
		rest = after
		if code != "0" || !s.matches(got) {
			t.Errorf("$ %s\ngot code %s and\n%s\nwant\n%s", s.command, code, got, s.output)
		}
	}
}

// mark is printed between the outputs of commands.
const mark = "---- end of step"

// step is a command of a console block and its expected output.
type step struct{ command, output string }

// console returns the commands of all console blocks: lines that begin with $,
// the lines with > that continue them, and the lines of output that follow.
func console(text string) []step {
	var steps []step
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				steps = append(steps, step{command: strings.TrimSuffix(command, "\n")})
				continue
			}
			s := &steps[len(steps)-1]
			if more, ok := strings.CutPrefix(line, "> "); ok && s.output == "" {
				s.command += "\n" + strings.TrimSuffix(more, "\n")
				continue
			}
			s.output += line
		}
	}
	return steps
}

// matches reports whether an output is what the step expects.
func (s step) matches(output string) bool {
	want := regexp.QuoteMeta(strings.TrimSpace(s.output))
	want = strings.ReplaceAll(want, "…", "(?s:.*)")
	return regexp.MustCompile(`^` + want + `$`).MatchString(strings.TrimSpace(output))
}

// freeAddress returns an address on which no one listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
