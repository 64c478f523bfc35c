package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// build returns the path of the program.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hark")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
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

// TestProgram runs the program as a user does, in a folder that has nothing of
// the project in it.
func TestProgram(t *testing.T) {
	bin, elsewhere := build(t), t.TempDir()
	tests := []struct {
		args     []string
		code     int
		out, err string // must be part of what is printed
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
	cmd := exec.Command(bin, "demo", "--count", "1000000")
	var out bytes.Buffer
	cmd.Stdout = &out
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(progress).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != 130 || !strings.HasSuffix(out.String(), "every message is accounted for\n") {
		t.Errorf("interrupted: got code %d\n%s\nwant code 130 and a report", code, out.String())
	}
}
