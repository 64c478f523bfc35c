//go:build unix

package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecondSignal stops a broker with a webhook whose receiver does not
// answer. The first signal waits for the answer, the second does not.
func TestSecondSignal(t *testing.T) {
	bin := build(t)
	called, answer := make(chan struct{}, 16), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-answer
	}))
	defer receiver.Close()
	defer close(answer)
	config := filepath.Join(t.TempDir(), "hark.yaml")
	text := "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\ndata: " + t.TempDir() + "\nstop_timeout: 1m\nwebhooks: [{name: slow, from: orders, url: '" + receiver.URL +
		"', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, private: true, timeout: 1m}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", "--config", config)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // it may have ended
	url := ""
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		if at := strings.Index(lines.Text(), "hark://"); at >= 0 {
			url, _, _ = strings.Cut(lines.Text()[at:], " ")
		}
	}
	if said, err := exec.Command(bin, "pub", "--url", url, "orders", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	<-called

	stopping, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if strings.Contains(lines.Text(), "msg=stopping") {
				close(stopping)
			}
		}
	}()
	signal := func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	select {
	case <-stopping:
	case <-ended:
		t.Fatalf("it ended at the first signal: %v", cmd.Wait())
	}
	// The broker prints this a moment before it stops handling signals.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for over := false; !over; {
		select {
		case <-again.C:
			signal()
		case <-ended:
			over = true
		}
	}
	var status syscall.WaitStatus
	if _ = cmd.Wait(); cmd.ProcessState != nil {
		status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
	}
	if !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("got %v, want it to be ended by the signal, which a shell sees as 143", cmd.ProcessState)
	}
}
