package filedriver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/harkbus/hark/driver"
)

// TestDamageOfEachFile damages each file of a closed store in turn. Either
// opening the store fails with an error that names the file, or nothing is
// missing.
func TestDamageOfEachFile(t *testing.T) {
	whole := t.TempDir()
	c := openDir(t, whole)
	topic := openTopic(t, c, "t", driver.DurableStrict)
	want := numbers(1000, 200)
	publish(t, topic, want...)
	group, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	value, err := c.OpenValue(testContext(t), "v", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := value.CompareAndSet(testContext(t), 1, []byte("2")); err != nil {
		t.Fatal(err)
	}
	closeDir(t, c)
	var files []string
	if err := filepath.WalkDir(whole, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			path, err = filepath.Rel(whole, path)
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	damages := []struct {
		name string
		do   func([]byte) []byte
	}{
		{"cut", func(b []byte) []byte { return b[:len(b)/2] }},
		{"emptied", func([]byte) []byte { return nil }},
		{"flipped", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
	}
	said := 0
	for _, file := range files {
		for _, damage := range damages {
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, file)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(before) == 0 {
				continue
			}
			if err := os.WriteFile(path, damage.do(slices.Clone(before)), 0o600); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%s is %s", file, damage.name)
			c, err := Open(testContext(t), dir)
			if err != nil {
				if said++; !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: got %v, want ErrDamaged that names it", what, err)
				}
				continue
			}
			if got := readAll(t, openTopic(t, c, "t", driver.DurableStrict)); !slices.Equal(got, want) {
				t.Errorf("%s: it opens with %d messages of %d", what, len(got), len(want))
			}
			value, err := c.OpenValue(testContext(t), "v", []byte("1"))
			if err != nil {
				t.Fatal(err)
			}
			if state, err := value.Load(testContext(t)); err != nil || string(state.Data) != "2" {
				t.Errorf("%s: it opens with the value %q, %v", what, state.Data, err)
			}
			closeDir(t, c)
		}
	}
	t.Logf("%d files; %d of %d damages are errors", len(files), said, len(files)*len(damages))
}
