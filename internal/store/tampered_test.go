package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// tampered returns a directory in which somebody else has put links to a file of ours,
// and a function that reports what became of that file.
func tampered(t *testing.T, links ...string) (dir string, unchanged func()) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("links take a privilege there")
	}
	dir = t.TempDir()
	ours := filepath.Join(t.TempDir(), "ours.blk")
	if err := os.WriteFile(ours, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if err := os.Symlink(ours, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func() {
		t.Helper()
		if text, err := os.ReadFile(ours); err != nil || string(text) != "precious" {
			t.Errorf("a file outside of the directory has become %q, %v", text, err)
		}
	}
}

// TestLinkedLock opens a directory whose lock is a link.
func TestLinkedLock(t *testing.T) {
	dir, unchanged := tampered(t, lockName)
	s, err := Open(dir, natsserver.Options{DontListen: true}, nil)
	if err == nil {
		err = errors.Join(errors.New("it opens"), s.Close())
		t.Error(err)
	}
	unchanged()
}

// TestLinkedList opens a directory whose list of files is a link.
func TestLinkedList(t *testing.T) {
	dir, unchanged := tampered(t, ListName)
	s, err := Open(dir, natsserver.Options{DontListen: true}, nil)
	if err == nil {
		err = errors.Join(errors.New("it opens"), s.Close())
	}
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	unchanged()
}

// TestLinkedFile closes a directory in which the next list is a link.
func TestLinkedFile(t *testing.T) {
	dir, unchanged := tampered(t, ListName+".new")
	s, err := Open(dir, natsserver.Options{DontListen: true}, nil)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Error(err)
	}
	unchanged()
}

// TestForgedList opens a directory with lists of files that the store would never list:
// reading them might tell about them, or not end.
func TestForgedList(t *testing.T) {
	const link = "1.blk"
	dir, unchanged := tampered(t, link)
	ours, err := os.Readlink(filepath.Join(dir, link))
	if err != nil {
		t.Fatal(err)
	}
	outside, err := filepath.Rel(dir, ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "2.txt"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{outside, link, "2.txt"} {
		list, err := json.Marshal([]listed{{Path: filepath.ToSlash(path), Size: int64(len("precious"))}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ListName), list, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, natsserver.Options{DontListen: true}, nil)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", path, err)
		}
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	unchanged()
}
