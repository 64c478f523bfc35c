package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrDamaged says that files of the directory are not as they were written.
var ErrDamaged = errors.New("damaged")

const (
	// ListName is the file that lists the others as they were when the
	// directory was closed. It does not exist while the directory is open, nor
	// after a crash.
	ListName = "hark.files"
	// maxSummed is how many bytes of the newest files the list has checksums
	// of, since reading them must not delay opening. Of the other files it has
	// only the sizes.
	maxSummed = 32 << 20
	// StreamsDir is where the server keeps streams, each in a directory of its
	// own.
	StreamsDir = "jetstream/$G/streams"
)

// listed is a file that cannot be rebuilt from others.
type listed struct {
	Path   string // relative to the directory, with slashes
	Size   int64
	Summed bool
	Sum    uint32 `json:",omitempty"` // CRC-32C, if Summed
}

// lasting reports whether a file of the server is to be listed. The others are
// rebuilt when they are missing.
func lasting(path string) bool {
	name := filepath.Base(path)
	return strings.HasSuffix(name, ".blk") || name == "meta.inf" || name == "meta.sum" || name == "o.dat"
}

// isLeftover reports whether the server was removing the directory: it first
// gives it a name like this, which no stream has.
func isLeftover(name string) bool { return strings.HasPrefix(name, ".") }

// writeList lists the files of a directory that nobody writes to any more.
func writeList(dir string) error {
	type file struct {
		listed
		modified int64
	}
	var files []file
	err := filepath.WalkDir(filepath.Join(dir, StreamsDir), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there are no streams, or a temporary file was removed meanwhile
		}
		if err == nil && d.IsDir() && isLeftover(d.Name()) {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() || !lasting(path) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files = append(files, file{listed{Path: filepath.ToSlash(rel), Size: info.Size()}, info.ModTime().UnixNano()})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b file) int { return int(min(max(b.modified-a.modified, -1), 1)) })
	list := make([]listed, len(files))
	left := int64(maxSummed)
	for i := range files {
		l := &files[i].listed
		if l.Summed = l.Size <= left; l.Summed {
			left -= l.Size
			if l.Sum, err = sum(filepath.Join(dir, l.Path)); err != nil {
				return err
			}
		}
		list[i] = *l
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, ListName), data)
}

// replaceFile replaces a file atomically: either the old or the new contents
// are there, complete. It follows no link.
func replaceFile(path string, data []byte) error {
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func sum(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	_, err = io.Copy(h, f)
	return h.Sum32(), errors.Join(err, f.Close())
}

// checkFiles compares the files with their list before the server opens them,
// because the server cuts off what it cannot read. If there is no list, it
// repairs what a crash has left. It then removes the list, because the files
// are about to change.
func checkFiles(dir string) error {
	path := filepath.Join(dir, ListName)
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return repair(dir)
	case err != nil:
		return err
	case !info.Mode().IsRegular(): // reading it might not end
		return fmt.Errorf("%s is %w: it is no regular file; remove it to continue with what can still be read", path, ErrDamaged)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var list []listed
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s is %w: %w", path, ErrDamaged, err)
	}
	for _, l := range list {
		if !filepath.IsLocal(filepath.FromSlash(l.Path)) || !lasting(l.Path) {
			return fmt.Errorf("%s is %w: it lists %q; remove it to continue with what can still be read", path, ErrDamaged, l.Path)
		}
		if err := l.check(filepath.Join(dir, filepath.FromSlash(l.Path))); err != nil {
			return fmt.Errorf("%w; restore the file, or remove %s to continue with what can still be read", err, path)
		}
	}
	return os.Remove(path)
}

func (l *listed) check(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is %w: it is missing", path, ErrDamaged)
	case err != nil:
		return err
	case !info.Mode().IsRegular(): // reading it might not end
		return fmt.Errorf("%s is %w: it is no regular file", path, ErrDamaged)
	case info.Size() != l.Size:
		return fmt.Errorf("%s is %w: it has %d bytes, and had %d when the store was closed", path, ErrDamaged, info.Size(), l.Size)
	case !l.Summed:
		return nil
	}
	got, err := sum(path)
	if err == nil && got != l.Sum {
		err = fmt.Errorf("%s is %w: its checksum is wrong", path, ErrDamaged)
	}
	return err
}
