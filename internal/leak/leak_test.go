package leak

import (
	"strings"
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	before := stacks()
	if left := wait(before, 0); len(left) != 0 {
		t.Fatalf("without a leak: got %d goroutines, want none", len(left))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		<-stop
		close(stopped)
	}()
	left := wait(before, 10*time.Millisecond)
	if len(left) != 1 || !strings.Contains(left[0], "leak.TestWait") {
		t.Errorf("with a leak: got %q, want the goroutine of this test", left)
	}
	if left := wait(before, 0, "github.com/harkbus/hark/internal/leak.Test"); len(left) != 0 {
		t.Errorf("with a leak of others: got %q, want none", left)
	}
	close(stop)
	<-stopped
	if left := wait(before, timeout); len(left) != 0 {
		t.Errorf("after it ended: got %q, want none", left)
	}
}

// record is a testing.TB that records failures.
type record struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (r *record) Helper()               {}
func (r *record) Cleanup(f func())      { r.cleanup = f }
func (r *record) Errorf(string, ...any) { r.failed = true }

func TestCheck(t *testing.T) {
	r := &record{TB: t}
	Check(r)
	if r.cleanup(); r.failed {
		t.Error("Check fails a test without a leak")
	}
}
