package filedriver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/harkbus/hark/driver"
)

// syncChildVariable makes the test binary the process whose system calls are
// traced. Its value is the directory.
const syncChildVariable = "HARK_FILEDRIVER_SYNC_CHILD"

const syncChildMessages = 20

// syncChild publishes messages one by one and prints a line for each that is
// accepted.
func syncChild(dir string) {
	err := func() error {
		ctx := context.Background()
		c, err := Open(ctx, dir)
		if err != nil {
			return err
		}
		topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: "strict", Stored: &driver.StoredConfig{}})
		if err != nil {
			return err
		}
		for i := range syncChildMessages {
			if err := topic.Publish(ctx, []*driver.Message{{Data: fmt.Appendf(nil, "message %d.", i)}}); err != nil {
				return err
			}
			fmt.Println("accepted", i)
		}
		return c.Close(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A message accepted with durability Strict has been written to a block, and
// that block has then been synced, as the kernel saw it.
func TestStrictIsSyncedBeforeItIsAccepted(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		missing(t, "strace, to watch system calls")
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	cmd := exec.CommandContext(testContext(t), strace, "-f", "-y", "-s", "256", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o", trace, os.Args[0])
	cmd.Env = append(os.Environ(), syncChildVariable+"="+filepath.Join(dir, "data"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the child: %v\n%s", err, out)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	const block = `\d+<[^>]*/hark-topic-strict/msgs/\d+\.blk>`
	var (
		stored   = regexp.MustCompile(`pwrite64\(` + block + `.*message (\d+)\.`)
		begun    = regexp.MustCompile(`^(\d+) +f(?:data)?sync\(` + block)
		ended    = regexp.MustCompile(`^(\d+) .*f(?:data)?sync.*\) += 0$`)
		accepted = regexp.MustCompile(`write\(1<.*"accepted (\d+)`)
	)
	written, onDisk := "none", "none"
	syncs, done := 0, 0
	syncing := map[string]string{} // by thread: what had been written when its sync began
	for line := range strings.Lines(string(calls)) {
		line = strings.TrimSuffix(line, "\n")
		if m := stored.FindStringSubmatch(line); m != nil {
			written = m[1]
		}
		if m := begun.FindStringSubmatch(line); m != nil {
			syncing[m[1]] = written
		}
		if m := ended.FindStringSubmatch(line); m != nil && syncing[m[1]] != "" {
			onDisk = syncing[m[1]]
			delete(syncing, m[1])
			syncs++
		}
		if m := accepted.FindStringSubmatch(line); m != nil {
			if done++; onDisk != m[1] {
				t.Errorf("message %s was accepted when the last on the disk was: %s", m[1], onDisk)
			}
		}
	}
	t.Logf("%d syncs for %d messages", syncs, done)
	if done != syncChildMessages {
		t.Errorf("saw %d messages accepted, want %d", done, syncChildMessages)
	}
}

// missing skips a test that lacks something, or fails it if nothing may be
// skipped.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("HARK_REQUIRE") == "all" {
		t.Fatalf("HARK_REQUIRE=all, and there is no %s", what)
	}
	t.Skipf("SKIPPED: there is no %s", what)
}
