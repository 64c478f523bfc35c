package filedriver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// childVariable makes the test binary the process to be killed. Its value is
// the directory.
const childVariable = "HARK_FILEDRIVER_CHILD"

// The topics to which the child publishes, each from several goroutines.
var childTopics = map[string]driver.Durability{"strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed}

const childCallers = 4

// The channel on which the child sends.
var childChan = driver.ChanConfig{Name: "chan", Capacity: driver.Unbounded, Durability: driver.DurableStrict}

// child publishes until it is killed, and prints what has been accepted.
func child(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := Open(ctx, dir)
	if err != nil {
		fail(err)
	}
	fmt.Println("open")
	for name, class := range childTopics {
		topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Durability: class}})
		if err != nil {
			fail(err)
		}
		for i := range childCallers {
			go func() {
				for n := 0; ; n++ {
					text := fmt.Sprintf("%s %d.%d.%d", name, os.Getpid(), i, n)
					if err := topic.Publish(ctx, []*driver.Message{{Data: []byte(text)}}); err != nil {
						fail(err)
					}
					if _, err := os.Stdout.WriteString(text + "\n"); err != nil {
						fail(err)
					}
				}
			}()
		}
	}
	ch, err := c.OpenChan(ctx, childChan)
	if err != nil {
		fail(err)
	}
	for n := 0; ; n++ {
		text := fmt.Sprintf("%s %d.0.%d", childChan.Name, os.Getpid(), n)
		if err := ch.Send(ctx, []byte(text), false); err != nil {
			fail(err)
		}
		if _, err := os.Stdout.WriteString(text + "\n"); err != nil {
			fail(err)
		}
	}
}

// A process is killed at many points while it publishes. Everything that was
// accepted is there, in order, and the directory opens without repair.
func TestKill(t *testing.T) {
	const kills = 50
	dir := t.TempDir()
	accepted := map[string][]string{}
	for range kills {
		for topic, texts := range runAndKill(t, dir, 30+rand.N(200)) {
			accepted[topic] = append(accepted[topic], texts...)
		}
	}
	c := openDir(t, dir)
	all := map[string][]string{childChan.Name: receiveAll(t, c)}
	for name, class := range childTopics {
		all[name] = readAll(t, openTopic(t, c, name, class))
	}
	for name, texts := range all {
		kept := map[string]int{}
		for i, text := range texts {
			kept[text] = i
		}
		if len(kept) != len(texts) {
			t.Errorf("%s: of %d messages %d are there twice", name, len(texts), len(texts)-len(kept))
		}
		last := map[string]int{}
		for _, text := range accepted[name] {
			at, ok := kept[text]
			if !ok {
				t.Fatalf("%q was accepted and is not there", text)
			}
			caller := text[:strings.LastIndexByte(text, '.')]
			if before, ok := last[caller]; ok && at <= before {
				t.Errorf("%q is out of order", text)
			}
			last[caller] = at
		}
		t.Logf("%s: %d accepted, %d kept after %d kills", name, len(accepted[name]), len(kept), kills)
		if len(accepted[name]) < kills/5 { // a busy machine accepts few messages between two kills
			t.Errorf("%s: too few messages to say anything", name)
		}
	}
}

// receiveAll receives everything in the channel.
func receiveAll(t *testing.T, c *Conn) []string {
	t.Helper()
	ctx := testContext(t)
	ch, err := c.OpenChan(ctx, childChan)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for {
		v, err := ch.Receive(ctx, true)
		if errors.Is(err, driver.ErrAgain) {
			return texts
		}
		if err == nil {
			err = v.Done(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(v.Data))
	}
}

// runAndKill runs a child, kills it after it has printed the given number of
// lines or while it opens the directory, and returns what was accepted on each
// topic.
func runAndKill(t *testing.T, dir string, lines int) map[string][]string {
	t.Helper()
	out, stop, wait := startChild(t, childVariable, dir)
	if lines%10 == 0 { // kill some of them while they open the directory
		time.AfterFunc(time.Duration(rand.N(8000))*time.Microsecond, stop)
	}
	accepted := map[string][]string{}
	reader := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := reader.ReadString('\n') // an incomplete line does not count
		if err != nil {
			break
		}
		if topic, _, ok := strings.Cut(line, " "); ok {
			accepted[topic] = append(accepted[topic], strings.TrimSuffix(line, "\n"))
		}
		if n == lines {
			stop()
		}
	}
	wait()
	return accepted
}

// startChild starts the test binary with the variable set to a directory. stop
// kills it. wait waits until it has ended, and fails the test if it was not
// killed.
func startChild(t *testing.T, variable, dir string) (out io.Reader, stop, wait func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill sync.Once
	stop = func() { kill.Do(func() { _ = cmd.Process.Kill() }) } // it may have ended
	limit := time.AfterFunc(patience, stop)
	return out, stop, func() {
		t.Helper()
		defer limit.Stop()
		if err := cmd.Wait(); err == nil || complaint.Len() > 0 {
			t.Fatalf("the child ended by itself: %v %s", err, &complaint)
		}
	}
}
