package tempfs

import (
	"errors"
	"syscall"
	"testing"
)

// Mount returns a directory on a tmpfs of its own that lasts as
// long as the test; option is one of tmpfs, such as size=16m, or ro. It skips
// where that is not allowed.
func Mount(t testing.TB, option string) string {
	t.Helper()
	dir := t.TempDir()
	var flags uintptr
	if option == "ro" {
		flags, option = syscall.MS_RDONLY, ""
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", flags, option)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("SKIPPED, because mounting a file system takes root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A server whose disk was full may have left a file open.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}
