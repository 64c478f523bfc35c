package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// newStream creates the files of a stream with one block, all of them old.
func newStream(t *testing.T) (streams, msgs string) {
	t.Helper()
	streams = filepath.Join(t.TempDir(), "jetstream", "$G", "streams")
	msgs = filepath.Join(streams, "s", "msgs")
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(streams, "s", "meta.inf"), "")
	write(t, filepath.Join(streams, "s", "meta.sum"), "")
	write(t, filepath.Join(msgs, "index.db"), "")
	write(t, filepath.Join(msgs, "1.blk"), "a")
	age(t, msgs, 2*time.Hour)
	return streams, msgs
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age makes a directory look as if it had been modified d ago.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	modify(t, path, time.Now().Add(-d))
}

func modify(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// record returns Streams that record the names of what they flush.
func record(dir string) (*Streams, func() []string) {
	s := NewStreams(dir)
	var flushed []string
	s.flush = func(f *os.File) error {
		flushed = append(flushed, filepath.Base(f.Name()))
		return nil
	}
	return s, func() []string {
		got := flushed
		flushed = nil
		slices.Sort(got)
		return got
	}
}

func TestWhatIsSynced(t *testing.T) {
	dir, msgs := newStream(t)
	s, flushed := record(dir)
	defer s.Close()
	instant := time.Now().Add(time.Hour) // whenever msgs is read, it has just been modified
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"the first time everything", func() {}, []string{"$G", "1.blk", "jetstream", "meta.inf", "meta.sum", "msgs", "s", "streams"}},
		{"then the newest block", func() {}, []string{"1.blk"}},
		{"that has grown", func() { write(t, filepath.Join(msgs, "1.blk"), "ab") }, []string{"1.blk"}},
		{"a new block, and the end of the one before", func() {
			write(t, filepath.Join(msgs, "1.blk"), "abc")
			write(t, filepath.Join(msgs, "2.blk"), "d")
			age(t, msgs, time.Hour)
		}, []string{"1.blk", "2.blk", "msgs"}},
		{"the newest block of two", func() {}, []string{"2.blk"}},
		{"a block in the place of another", func() {
			write(t, filepath.Join(msgs, "1.tmp"), "abc")
			if err := os.Rename(filepath.Join(msgs, "1.tmp"), filepath.Join(msgs, "1.blk")); err != nil {
				t.Fatal(err)
			}
			age(t, msgs, time.Hour/2)
		}, []string{"1.blk", "msgs"}},
		{"a block that was just made", func() {
			write(t, filepath.Join(msgs, "3.blk"), "e")
			modify(t, msgs, instant)
		}, []string{"3.blk", "msgs"}},
		{"no other in the same instant", func() { write(t, filepath.Join(msgs, "3.blk"), "ef") }, []string{"3.blk"}},
		{"another in the same instant", func() {
			write(t, filepath.Join(msgs, "4.blk"), "g")
			modify(t, msgs, instant)
		}, []string{"4.blk", "msgs"}},
		{"and one less", func() {
			if err := os.Remove(filepath.Join(msgs, "1.blk")); err != nil {
				t.Fatal(err)
			}
			modify(t, msgs, instant)
		}, []string{"msgs"}},
		{"another stream of that name", func() {
			if err := os.Rename(msgs, msgs+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(msgs, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(msgs, "3.blk"), "f")
		}, []string{"$G", "3.blk", "jetstream", "meta.inf", "meta.sum", "msgs", "s", "streams"}},
	} {
		step.do()
		if err := s.Sync(t.Context(), "s"); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := flushed(); !slices.Equal(got, step.want) {
			t.Errorf("%s: synced %q, want %q", step.name, got, step.want)
		}
	}
}

// Callers that arrive while a round runs share the next one: what they want on
// the disk may have been written after the flush began.
func TestNobodyReturnsBeforeARoundOfItsOwn(t *testing.T) {
	dir, msgs := newStream(t)
	modify(t, msgs, time.Unix(0, 0)) // long ago by the clock of the bubble, too
	synctest.Test(t, func(t *testing.T) {
		s := NewStreams(dir)
		defer s.Close()
		if err := s.Sync(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		flushes := make(chan chan struct{})
		s.streams["s"].files.flush = func(*os.File) error {
			finish := make(chan struct{})
			flushes <- finish
			<-finish
			return nil
		}
		var mu sync.Mutex
		returned := map[string]int{}
		begin := func(name string, n int) {
			for range n {
				go func() {
					if err := s.Sync(t.Context(), "s"); err != nil {
						t.Error(err)
					}
					mu.Lock()
					returned[name]++
					mu.Unlock()
				}()
			}
			synctest.Wait()
		}
		check := func(when string, first, second int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if returned["first"] != first || returned["second"] != second {
				t.Errorf("%s: returned %v, want %d of the first and %d of the second", when, returned, first, second)
			}
		}
		begin("first", 1)
		one := <-flushes
		begin("second", 10)
		check("while the first flush runs", 0, 0)
		close(one)
		check("after it", 1, 0)
		two := <-flushes
		check("while the second flush runs", 1, 0)
		close(two)
		check("after it", 1, 10)
	})
}

// A round begins although callers join it without end.
func TestARoundBeginsWhileCallersJoin(t *testing.T) {
	joined := 0
	gather(func() int {
		if joined++; joined > 1_000_000 {
			t.Fatal("nothing begins while callers join")
		}
		return joined
	})
	if joined < 2 {
		t.Error("nobody can join")
	}
}

func TestAFlushThatFailsIsNotForgotten(t *testing.T) {
	dir, _ := newStream(t)
	s := NewStreams(dir)
	defer s.Close()
	broken := errors.New("input/output error")
	s.flush = func(*os.File) error { return broken }
	if err := s.Sync(t.Context(), "s"); !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	s.streams["s"].files.flush = (*os.File).Sync
	if err := s.Sync(t.Context(), "s"); !errors.Is(err, broken) {
		t.Errorf("then got %v, want %v again: what it was to write may be lost", err, broken)
	}
}

func TestSyncRefuses(t *testing.T) {
	dir, msgs := newStream(t)
	s := NewStreams(dir)
	if err := s.Sync(t.Context(), "absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stream that is not there: got %v, want %v", err, os.ErrNotExist)
	}
	write(t, filepath.Join(msgs, "new-kind.blk"), "")
	if err := s.Sync(t.Context(), "s"); err == nil {
		t.Error("files of a kind that is not known: got no error")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.Remove(filepath.Join(msgs, "new-kind.blk")); err != nil {
		t.Fatal(err)
	}
	s.flush = func(*os.File) error { <-ended.Done(); return nil }
	if err := s.Sync(ended, "other"); err == nil {
		t.Error("a context that has ended: got no error")
	}
	s.Close()
	if err := s.Sync(t.Context(), "s"); err == nil {
		t.Error("after Close: got no error")
	}
}
