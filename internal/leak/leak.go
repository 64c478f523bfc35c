// Package leak finds goroutines that a test leaves behind.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// timeout is how long goroutines may take to end after a test.
const timeout = 20 * time.Second

// Check makes t fail if goroutines that were started during it still run after
// its cleanup functions, those registered before Check excepted. Tests that
// run in parallel must not use it.
func Check(t testing.TB) {
	t.Helper()
	before := stacks()
	t.Cleanup(func() {
		if left := wait(before, timeout); len(left) > 0 {
			t.Errorf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
		}
	})
}

// Main runs the tests of a package and exits; if all pass, it fails for
// goroutines that are left after them, but those that were created by functions
// whose names begin with one of others: what other people leave behind.
func Main(m *testing.M, others ...string) {
	before := stacks()
	code := m.Run()
	if code == 0 {
		if left := wait(before, timeout, others...); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "%d goroutines are left after all tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// wait waits until no goroutines are left that are neither in before nor
// created by others, and at most for the limit. It returns the stacks of those
// that remain.
func wait(before map[string]string, limit time.Duration, others ...string) []string {
	deadline := time.Now().Add(limit)
	for {
		var left []string
		for id, stack := range stacks() {
			theirs := slices.ContainsFunc(others, func(o string) bool { return strings.Contains(stack, "\ncreated by "+o) })
			if _, ok := before[id]; !ok && !theirs {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		runtime.Gosched()
		<-time.After(time.Millisecond)
	}
}

// stacks returns the stacks of all goroutines by number, except the caller's
// and those of the runtime and the test framework.
func stacks() map[string]string {
	buf := make([]byte, 1<<20)
	for n := runtime.Stack(buf, true); n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	text := strings.TrimRight(string(buf), "\x00")
	found := map[string]string{}
	for i, stack := range strings.Split(strings.TrimSpace(text), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		id, _, _ := strings.Cut(strings.TrimPrefix(head, "goroutine "), " ")
		if i > 0 && !ours(stack) {
			found[id] = stack
		}
	}
	return found
}

// ours reports whether a stack belongs to the runtime or the test framework.
func ours(stack string) bool {
	for _, mark := range []string{
		"testing.(*T).Run(", "testing.runTests(", "testing.(*M).", "testing.runFuzz", "testing.tRunner.func",
		"os/signal.", "runtime.ensureSigM", "internal/synctest.Run(",
	} {
		if strings.Contains(stack, mark) && !strings.Contains(stack, "testing.tRunner(") {
			return true
		}
	}
	return false
}
