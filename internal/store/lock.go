package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/harkbus/hark/internal/filelock"
)

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("in use")

// lockName is the file that the process using the directory keeps locked. It
// says which process that is.
const lockName = "hark.lock"

// lock reserves a directory for this process.
type lock struct{ file *os.File }

// acquire locks a directory. It follows no link out of the directory.
func acquire(dir string) (*lock, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err = errors.Join(err, root.Close()); err != nil {
		return nil, err
	}
	if err := filelock.Try(f); err != nil {
		holder, readErr := io.ReadAll(io.LimitReader(f, 1024))
		err = errors.Join(readErr, f.Close(), refusal(dir, string(holder), err))
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this host"
	}
	text := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().Format(time.RFC3339))
	if err := write(f, text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &lock{f}, nil
}

func refusal(dir, holder string, err error) error {
	if !errors.Is(err, filelock.ErrLocked) {
		return err
	}
	if holder = strings.TrimSpace(holder); holder == "" {
		holder = "another process"
	}
	return fmt.Errorf("%s is %w by %s; stop that process, or run one hark serve on the directory and open hark://HOST from all processes", dir, ErrInUse, holder)
}

func write(f *os.File, text string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// release lets other processes use the directory.
func (l *lock) release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close())
}
