package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/highwayhash"
)

// The files that define a stream, and their checksum. The server writes them
// one after the other, and skips a stream whose files do not match.
const (
	metaName = "meta.inf"
	metaSum  = "meta.sum"
)

// repair completes what a process was doing when it was killed: creating streams
// or changing their configuration. It is called if there is no list of files,
// which is the sign of a crash.
func repair(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, StreamsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || isLeftover(e.Name()) {
			continue
		}
		if err := repairStream(filepath.Join(dir, StreamsDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// repairStream makes the checksum match the stream's file, if the file is
// complete. If it is not, the stream was never created: it is removed if it has
// no messages, and otherwise left for the server to report.
func repairStream(dir string) error {
	name := filepath.Base(dir)
	meta, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var config struct{ Name string }
	if json.Unmarshal(meta, &config) != nil || config.Name != name {
		if has, err := hasMessages(dir); has || err != nil {
			return err
		}
		return os.RemoveAll(dir)
	}
	want, err := metaChecksum(name, meta)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, metaSum)
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || string(have) == want {
		return err
	}
	return replaceFile(path, []byte(want))
}

// metaChecksum returns the checksum that the server writes beside a
// configuration.
func metaChecksum(stream string, meta []byte) (string, error) {
	key := sha256.Sum256([]byte(stream))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		return "", fmt.Errorf("checksum of stream %s: %w", stream, err)
	}
	_, _ = h.Write(meta) // a hash does not fail
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hasMessages reports whether a stream has blocks that are not empty.
func hasMessages(dir string) (bool, error) {
	blocks, err := os.ReadDir(filepath.Join(dir, "msgs"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, b := range blocks {
		info, err := b.Info()
		if err != nil {
			return false, err
		}
		if strings.HasSuffix(b.Name(), ".blk") && info.Size() > 0 {
			return true, nil
		}
	}
	return false, nil
}
