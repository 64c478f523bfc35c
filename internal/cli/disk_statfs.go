//go:build linux || darwin

package cli

import "syscall"

// freeSpace returns how many bytes can be written to the file system of a
// directory.
func freeSpace(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}
