package filedriver

import (
	"errors"
	"syscall"
	"testing"
)

// mountTemporary returns a directory on a file system of its own that lasts as
// long as the test. It skips where that is not allowed.
func mountTemporary(t *testing.T, option string) string {
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
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}
