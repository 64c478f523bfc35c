package filedriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/leak"
	"github.com/harkbus/hark/internal/race"
	"github.com/harkbus/hark/internal/store"
	"github.com/harkbus/hark/internal/tempfs"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		child(dir)
	}
	if dir := os.Getenv(syncChildVariable); dir != "" {
		syncChild(dir)
	}
	if dir := os.Getenv(latchChildVariable); dir != "" {
		latchChild(dir)
	}
	leak.Main(m, "github.com/nats-io/nats-server/")
}

const patience = time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func openDir(t *testing.T, dir string) *Conn {
	t.Helper()
	c, err := Open(testContext(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeDir(t, c) })
	return c
}

func closeDir(t *testing.T, c *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func openTopic(t *testing.T, c *Conn, name string, d driver.Durability) driver.Topic {
	t.Helper()
	topic, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Durability: d}})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func publish(t *testing.T, topic driver.Topic, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := topic.Publish(testContext(t), []*driver.Message{{Data: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// readAll returns everything that a topic keeps.
func readAll(t *testing.T, topic driver.Topic) []string {
	t.Helper()
	sub, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{From: driver.FromStart, Window: 1024})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Drain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var all []string
	for {
		rs, err := sub.Receive(testContext(t), 256)
		if errors.Is(err, driver.ErrEnded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			all = append(all, string(r.Data))
		}
	}
	if err := sub.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	return all
}

func numbers(first, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Itoa(first + i)
	}
	return all
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	classes := map[string]driver.Durability{"strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed, "memory": driver.DurableMemory}
	for round := range 3 {
		c := openDir(t, dir)
		if info := c.Info(); info.Engine != "file" || info.Address != dir || !info.Has(driver.Strict) || !info.Has(driver.Relaxed) || !info.Has(driver.Memory) || !info.Has(driver.Delay) {
			t.Errorf("got %+v", info)
		}
		for name, class := range classes {
			topic := openTopic(t, c, "t."+name, class)
			want := numbers(0, 10*round)
			if class == driver.DurableMemory {
				want = nil
			}
			if got := readAll(t, topic); !slices.Equal(got, want) {
				t.Errorf("%s, round %d: got %v, want %v", name, round, got, want)
			}
			group, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 100})
			if err != nil {
				t.Fatal(err)
			}
			publish(t, topic, numbers(10*round, 10)...)
			var got []string
			for len(got) < 10 {
				rs, err := group.Receive(testContext(t), 100)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rs {
					got = append(got, string(r.Data))
				}
				if err := group.Ack(testContext(t), rs); err != nil {
					t.Fatal(err)
				}
			}
			if want := numbers(10*round, 10); !slices.Equal(got, want) {
				t.Errorf("%s, round %d: the group got %v, want %v", name, round, got, want)
			}
		}
		closeDir(t, c)
	}
}

func TestOpensQuickly(t *testing.T) {
	dir := t.TempDir()
	c := openDir(t, dir)
	topic := openTopic(t, c, "t", driver.DurableStrict)
	ms := make([]*driver.Message, 1000)
	for i := range ms {
		ms[i] = &driver.Message{Data: make([]byte, 1000)}
	}
	for range 20 {
		if err := topic.Publish(testContext(t), ms); err != nil {
			t.Fatal(err)
		}
	}
	closeDir(t, c)
	const limit = 150 * time.Millisecond
	best := time.Hour
	for tries := 0; tries < 3 || tries < 30 && best > limit && !race.Enabled; tries++ { // the machine may be busy
		start := time.Now()
		c := openDir(t, dir)
		best = min(best, time.Since(start))
		closeDir(t, c)
	}
	t.Logf("opened 20 MB in %v", best)
	if best > limit && !race.Enabled {
		t.Errorf("opening took %v, want at most %v", best, limit)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	c := openDir(t, dir)
	_, err := Open(testContext(t), dir)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	host, _ := os.Hostname()
	for _, part := range []string{dir, strconv.Itoa(os.Getpid()), host, "hark serve"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	closeDir(t, c)
	openDir(t, dir)
}

func TestDirectoriesThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testContext(t), file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want one that names the file", err)
	}
	readOnly := tempfs.Mount(t, "ro")
	if _, err := Open(testContext(t), readOnly); err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), readOnly) {
		t.Errorf("got %v, want one that says that %s is read-only", err, readOnly)
	}
}

func TestFullDisk(t *testing.T) {
	dir := tempfs.Mount(t, "size=16m")
	c := openDir(t, dir)
	topic := openTopic(t, c, "t", driver.DurableStrict)
	stored := 0
	var err error
	for err == nil && stored < 1000 {
		if err = topic.Publish(testContext(t), []*driver.Message{{Data: make([]byte, 100_000)}}); err == nil {
			stored++
		}
	}
	if !errors.Is(err, driver.ErrFull) {
		t.Errorf("after %d messages: got %v, want ErrFull", stored, err)
	}
	if got := len(readAll(t, topic)); got != stored {
		t.Errorf("got %d messages, want the %d that were accepted", got, stored)
	}

	// There is no room either for anything that would have to be created.
	free := fillUp(t, dir)
	_, groupErr := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", Window: 1})
	_, topicErr := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "other", Stored: &driver.StoredConfig{Durability: driver.DurableStrict}})
	for what, err := range map[string]error{"a group": groupErr, "a topic": topicErr} {
		if !errors.Is(err, driver.ErrFull) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("make %s: got %v, want ErrFull that names %s and says what to do", what, err, dir)
		}
	}
	free()
	closeDir(t, c)
	if got := len(readAll(t, openTopic(t, openDir(t, dir), "t", driver.DurableStrict))); got != stored {
		t.Errorf("after opening it again: got %d messages, want %d", got, stored)
	}
}

// fillUp fills the disk of a directory until free is called.
func fillUp(t *testing.T, dir string) (free func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if closed := f.Close(); !errors.Is(err, syscall.ENOSPC) || closed != nil {
		t.Fatalf("write until the disk is full: %v, %v", err, closed)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
	}
}

func TestURLs(t *testing.T) {
	tests := []struct {
		url, dir string
		opts     int
	}{
		{"file:data", "data", 0},
		{"file:./a%20b?lease=2s", "./a b", 1},
		{"file:/a/b", "/a/b", 0},
		{"file:///a", "/a", 0},
		{"file://localhost/a", "/a", 0},
		{"file:a%23b", "a#b", 0},
	}
	for _, tt := range tests {
		dir, opts, err := parseURL(tt.url)
		if err != nil || dir != tt.dir || len(opts) != tt.opts {
			t.Errorf("%s: got %s, %d options, %v", tt.url, dir, len(opts), err)
		}
	}
	for _, url := range []string{"file:", "file://host/a", "file://a", "file:%zz", "file:a?x=1", "file:a?lease=x", "file:a?%zz", "file:a?lease=1s&lease=2s", "file:a#b", "file:a?lease=1s#b"} {
		if _, _, err := parseURL(url); err == nil {
			t.Errorf("%s: got no error", url)
		}
	}
	conn, err := driver.Lookup("file")(testContext(t), "file:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestDamage(t *testing.T) {
	overwrite := func(at int64) func(path string) error {
		return func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0xff, 0xff, 0xff}, at)
			return errors.Join(err, f.Close())
		}
	}
	cut := func(path string) error { return os.Truncate(path, 300) }
	tests := []struct {
		file    string
		damage  func(path string) error
		crashed bool // without the list that a clean close leaves
	}{
		{"msgs/1.blk", cut, false},
		{"msgs/1.blk", overwrite(0), false},
		{"msgs/1.blk", overwrite(500), false},
		{"msgs/1.blk", os.Remove, false},
		{"meta.inf", overwrite(10), false},
		{"meta.sum", os.Remove, false},
		{".", os.RemoveAll, false},
		{"msgs/1.blk", overwrite(0), true},
		{"meta.inf", overwrite(10), true},
		{"meta.inf", cut, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s crashed=%v", tt.file, tt.crashed), func(t *testing.T) {
			dir := t.TempDir()
			c := openDir(t, dir)
			publish(t, openTopic(t, c, "t", driver.DurableStrict), numbers(1000, 50)...)
			closeDir(t, c)
			if tt.crashed {
				if err := os.Remove(filepath.Join(dir, store.ListName)); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, store.StreamsDir, "hark-topic-t")
			if err := tt.damage(filepath.Join(path, tt.file)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(testContext(t), dir)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want ErrDamaged that names the file", err)
			}
			if !tt.crashed {
				if _, again := Open(testContext(t), dir); !errors.Is(again, ErrDamaged) {
					t.Errorf("again: got %v, want ErrDamaged", again)
				}
			}
		})
	}
}
