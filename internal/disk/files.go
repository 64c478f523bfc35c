package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

var errClosed = errors.New("the store is closed")

// files are the files of one stream of the server: numbered blocks in the
// directory msgs. The server appends only to the last block, shrinks a block by
// replacing its file, and deletes old blocks. Replacing, deleting or adding a
// block changes the modification time of msgs.
type files struct {
	dir    string
	flush  func(*os.File) error   // (*os.File).Sync
	known  map[string]fs.FileInfo // the blocks as of the last sync
	last   *os.File               // the newest block
	msgs   fs.FileInfo            // msgs when it was last read
	racy   bool                   // msgs had been modified too recently when it was read
	synced bool                   // the stream itself is on the disk
	// broken is the first error of flush. What was being written then may be
	// lost, and no later flush would report it.
	broken error
}

// racyFor is longer than the resolution at which file systems record when a
// directory was modified. Two changes within it cannot be told apart.
const racyFor = 100 * time.Millisecond

// sync returns when everything in the files is on the disk.
func (f *files) sync() error {
	path := filepath.Join(f.dir, "msgs")
	now := time.Now()
	msgs, err := os.Stat(path)
	if err != nil {
		return err
	}
	same := f.msgs != nil && os.SameFile(msgs, f.msgs)
	switch {
	case f.broken != nil:
		return f.broken
	case same && f.last != nil && !f.racy && msgs.ModTime().Equal(f.msgs.ModTime()):
		return f.write(f.last)
	case !same: // it is new, or another file took its name
		f.synced, f.known = false, nil
	}
	if !f.synced {
		if err := f.syncStream(); err != nil {
			return err
		}
	}
	if err := f.syncBlocks(path, !same || !msgs.ModTime().Equal(f.msgs.ModTime())); err != nil {
		f.known = nil // it is unknown what has been written
		return err
	}
	f.msgs, f.racy, f.synced = msgs, now.Sub(msgs.ModTime()) < racyFor, true
	return nil
}

// syncStream syncs the files and directories that make the stream exist.
func (f *files) syncStream() error {
	for _, name := range []string{"meta.inf", "meta.sum"} {
		if err := f.syncPath(filepath.Join(f.dir, name)); err != nil {
			return err
		}
	}
	for dir, n := f.dir, 0; n < 4; dir, n = filepath.Dir(dir), n+1 { // the stream, streams, the account, jetstream
		if err := f.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncBlocks syncs the blocks that have changed, and msgs itself if it has changed or
// holds others than at the last sync.
func (f *files) syncBlocks(path string, changed bool) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	known := make(map[string]fs.FileInfo, len(entries))
	newest, newestName := -1, ""
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), ".blk")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%s: the server's files have an unknown layout, so syncing them cannot be promised", filepath.Join(path, e.Name()))
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its contents were deleted, or moved to another block
		}
		if err != nil {
			return err
		}
		if n > newest {
			newest, newestName = n, e.Name()
		}
		was := f.known[e.Name()]
		same := was != nil && os.SameFile(was, info)
		changed = changed || !same
		if !same || was.Size() != info.Size() || !was.ModTime().Equal(info.ModTime()) {
			if err := f.syncPath(filepath.Join(path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		known[e.Name()] = info
	}
	if newest < 0 {
		return fmt.Errorf("%s: the server has no blocks there", path)
	}
	if changed || len(known) != len(f.known) {
		if err := f.syncDir(path); err != nil {
			return err
		}
	}
	f.close()
	if f.last, err = os.OpenFile(filepath.Join(path, newestName), os.O_RDWR, 0); err != nil {
		return err
	}
	f.known = known
	return nil
}

func (f *files) close() {
	if f.last != nil {
		_ = f.last.Close() // it was only opened to be synced
		f.last = nil
	}
}

// syncPath syncs a file that another process or the server writes.
func (f *files) syncPath(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.write(file), file.Close())
}

// syncDir syncs the entries of a directory. Windows has no such operation, and
// writes the entries by itself.
func (f *files) syncDir(path string) error {
	if slices.Contains([]string{"windows", "plan9"}, runtime.GOOS) {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.write(file), file.Close())
}

func (f *files) write(file *os.File) error {
	err := f.flush(file)
	if err != nil {
		f.broken = fmt.Errorf("what was stored may not be on disk yet: %w", err)
	}
	return err
}
