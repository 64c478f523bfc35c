package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// built builds the program once, in a directory that TestMain removes.
var built = sync.OnceValues(func() (bin string, err error) {
	dir, err := os.MkdirTemp("", "hark-test-")
	if err != nil {
		return "", err
	}
	bin = filepath.Join(dir, "hark")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, _ := built(); bin != "" {
		_ = os.RemoveAll(filepath.Dir(bin)) // it is in the directory for temporary files
	}
	os.Exit(code)
}

// build returns the path of the program.
func build(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// missing skips a test that lacks a program, or fails it if nothing may be
// skipped.
func missing(t *testing.T, program string) {
	t.Helper()
	text := "NOT TESTED, because it is not installed: " + program
	if os.Getenv("HARK_REQUIRE") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// TestProgram runs the program as a user does, in a directory that contains
// nothing of the project.
func TestProgram(t *testing.T) {
	bin, elsewhere := build(t), t.TempDir()
	tests := []struct {
		args     []string
		code     int
		out, err string // must be part of the output
	}{
		{[]string{"demo", "--rate", "0"}, 0, "every message is accounted for\n", ""},
		{[]string{"demo", "--input", "none.jsonl"}, 1, "", "none.jsonl"},
		{[]string{"dem"}, 2, "", "did you mean demo?"},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		cmd := exec.Command(bin, tt.args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = elsewhere, &out, &errs
		code := exitCode(t, cmd.Run())
		if code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.err) {
			t.Errorf("hark %v: got code %d\n%s\n%s\nwant code %d, %q, %q", tt.args, code, out.String(), errs.String(), tt.code, tt.out, tt.err)
		}
	}

	if runtime.GOOS == "windows" {
		t.Log("not tested: an interrupt, which windows cannot send to another process")
		return
	}
	for _, tt := range []struct {
		args []string
		from int    // the output to wait for a line on before the interrupt: 1 or 2
		last string // how the last line begins; %d is the number of lines before it
	}{
		{[]string{"demo", "--count", "1000000"}, 2, "every message is accounted for\n"},
		{[]string{"demo", "channel", "--interval", "1ms", "--producers", "3", "--consumers", "2"}, 1, "%d sent, %d received\n"},
		{[]string{"demo", "channel", "--interval", "1ms", "--capacity", "-1", "--producers", "10"}, 1, "%d sent, %d received\n"},
		{[]string{"demo", "notify", "--rounds", "1000000000"}, 1, "stopped with "},
	} {
		code, out := interrupted(t, exec.Command(bin, tt.args...), tt.from)
		lines := strings.SplitAfter(out, "\n")
		last := lines[max(0, len(lines)-2)]
		want := tt.last
		if strings.Contains(want, "%d") { // one line for each number before the last line
			want = fmt.Sprintf(want, len(lines)-2, len(lines)-2)
		}
		if code != 130 || !strings.HasPrefix(last, want) || lines[len(lines)-1] != "" {
			t.Errorf("hark %v, interrupted: got code %d, %d lines and at last %q, want code 130 and %q", tt.args, code, len(lines)-1, last, want)
		}
	}
}

// interrupted runs cmd, interrupts it after it has printed a line, and returns
// its exit code and all of its standard output.
func interrupted(t *testing.T, cmd *exec.Cmd, from int) (code int, out string) {
	t.Helper()
	var all bytes.Buffer
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(io.TeeReader(stdout, &all))
	first := lines
	if from == 2 {
		first = bufio.NewReader(stderr)
	}
	if _, err := first.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	return exitCode(t, cmd.Wait()), all.String()
}
