package filedriver

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/harkbus/hark/driver"
)

// latchChildVariable makes the test binary the process that latches and is
// killed. Its value is the directory.
const latchChildVariable = "HARK_FILEDRIVER_LATCH_CHILD"

// latchChild sets and clears latches until it is killed, and prints a line
// before and after each change.
func latchChild(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := Open(ctx, dir)
	if err != nil {
		fail(err)
	}
	if err := c.Listen(ctx, func(driver.Signal) int { return 0 }); err != nil {
		fail(err)
	}
	for {
		name, set := fmt.Sprintf("n%d", rand.N(10)), rand.N(2) == 0
		fmt.Println("begin", name, set)
		if err := c.Latch(ctx, name, set); err != nil {
			fail(err)
		}
		fmt.Println("done", name, set)
	}
}

// A process is killed while it latches. After each kill, every change that was
// reported as stored is in effect, and a change that had only begun may be.
func TestLatchesAfterKill(t *testing.T) {
	const kills = 20
	dir := t.TempDir()
	want, changes := map[string]bool{}, 0
	for range kills {
		doubtful, n := latchAndKill(t, dir, want)
		changes += n
		c := openDir(t, dir)
		got := map[string]bool{}
		if err := c.Listen(testContext(t), func(s driver.Signal) int {
			if delete(got, s.Target); s.Set {
				got[s.Target] = true
			}
			return 0
		}); err != nil {
			t.Fatal(err)
		}
		if got[doubtful] {
			want[doubtful] = true
		} else {
			delete(want, doubtful)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("latched: got %v, want %v", got, want)
		}
		closeDir(t, c)
	}
	t.Logf("%d changes were acknowledged", changes)
	if changes < kills {
		t.Error("too few changes to say anything")
	}
}

// latchAndKill runs a child, kills it after some changes, and applies these to
// latched. It returns the name whose last change is in doubt, and the number of
// changes.
func latchAndKill(t *testing.T, dir string, latched map[string]bool) (doubtful string, changes int) {
	t.Helper()
	out, stop, wait := startChild(t, latchChildVariable, dir)
	most := 1 + rand.N(40)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var word, name string
		var set bool
		if _, err := fmt.Sscan(lines.Text(), &word, &name, &set); err != nil {
			break // an incomplete line does not count
		}
		if word == "begin" {
			doubtful = name
			continue
		}
		doubtful = ""
		if delete(latched, name); set {
			latched[name] = true
		}
		if changes++; changes == most {
			stop()
		}
	}
	wait()
	return doubtful, changes
}
