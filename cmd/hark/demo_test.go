package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDemoTogether runs the demo in several processes over one broker, and
// kills one that shares the work and one that publishes. The others do what
// those have left undone.
func TestDemoTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for leases to end")
	}
	bin := build(t)
	// The lease is how long the others wait for a process that was killed.
	url := serveHere(t, bin) + "?lease=1s"

	joined := begin(t, bin, "demo", "--url", url, "--join")
	publisher := begin(t, bin, "demo", "--url", url, "--count", "400", "--rate", "200")
	joined.waitFor(t, `[1-9]\d* by this process`)
	joined.kill(t)
	code, out := publisher.end(t)
	if code != 0 || !strings.HasSuffix(out, "every delivery is accounted for\n") || !regexp.MustCompile(`mirror:  400 to do, \d+ done here and [1-9]\d* by other`).MatchString(out) {
		t.Errorf("a member was killed: got code %d\n%s", code, out)
	}

	helper := begin(t, bin, "demo", "--url", url, "--join")
	publisher = begin(t, bin, "demo", "--url", url, "--count", "100000", "--rate", "200", "--seed", "2")
	publisher.waitFor(t, `^[1-9]\d\d+ of 100000 published`)
	publisher.kill(t)
	code, out = begin(t, bin, "demo", "--url", url, "--count", "1").end(t)
	stored := regexp.MustCompile(`(?m)^(\d+) deliveries are stored, by 3 runs of the demo$`).FindStringSubmatch(out)
	if code != 0 || !strings.HasSuffix(out, "every delivery is accounted for\n") || stored == nil || len(stored[1]) < 3 || !strings.Contains(out, "mirror:  "+stored[1]+" to do") {
		t.Errorf("a publisher was killed: got code %d\n%s", code, out)
	}
	helper.kill(t)
}

// serveHere runs a broker until the test ends, and returns its URL.
func serveHere(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	p := begin(t, bin, "serve", "--config", "-", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", filepath.Join(dir, "data"))
	return p.waitFor(t, `hark://\S+`)
}

// process is a running program.
type process struct {
	cmd   *exec.Cmd
	lines chan string // the lines of both outputs
	out   bytes.Buffer
	read  chan struct{} // closed when the output is complete
}

// begin starts the program. If it is still running when the test ends, it is
// killed.
func begin(t *testing.T, bin string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(bin, args...), lines: make(chan string, 4096), read: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "HARK_URL=", "HARK_CONTEXT=", "HARK_CONTEXTS="+filepath.Join(t.TempDir(), "contexts.json"))
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); p.pass(stderr) }()
	go func() {
		defer close(p.read)
		p.pass(io.TeeReader(stdout, &p.out))
		<-done
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill(t)
		}
	})
	return p
}

func (p *process) pass(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		select {
		case p.lines <- lines.Text():
		default: // no one reads them any more
		}
	}
}

// waitFor waits for a line that matches the expression, and returns the match.
func (p *process) waitFor(t *testing.T, expr string) string {
	t.Helper()
	timeout := time.After(60 * time.Second)
	wanted := regexp.MustCompile(expr)
	var seen []string
	for {
		select {
		case line := <-p.lines:
			seen = append(seen, line)
			if wanted.MatchString(line) {
				return wanted.FindString(line)
			}
		case <-timeout:
			t.Fatalf("%v printed no %s:\n%s", p.cmd.Args, expr, strings.Join(seen, "\n"))
		}
	}
}

// kill kills the program.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-p.read
	_ = p.cmd.Wait() // the error is that it was killed
}

// end waits for the program to end and returns its exit code and what it
// printed.
func (p *process) end(t *testing.T) (code int, out string) {
	t.Helper()
	select {
	case <-p.read:
	case <-time.After(90 * time.Second):
		p.kill(t)
		return -1, fmt.Sprintf("%s\n(it did not end)", p.out.String())
	}
	return exitCode(t, p.cmd.Wait()), p.out.String()
}
