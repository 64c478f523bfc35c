//go:build unix

package cli

import (
	"context"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// whileRead returns a context that ends with the cause errUnread as soon as w is a pipe
// that nobody reads any more. A write would say so too, but a command that waits for
// something to print may not write for hours. The function that it returns ends that.
func whileRead(ctx context.Context, w io.Writer) (read context.Context, end func()) {
	read, cancel := context.WithCancelCause(ctx)
	f, ok := w.(*os.File)
	if !ok || !isPipe(f) {
		return read, func() { cancel(nil) }
	}
	wake, stop, err := os.Pipe()
	if err != nil {
		return read, func() { cancel(nil) } // the next write tells
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		// No event is asked for: errors and hang-ups are always reported.
		fds := []unix.PollFd{{Fd: int32(f.Fd())}, {Fd: int32(wake.Fd())}}
		for {
			_, err := unix.Poll(fds, -1)
			switch {
			case err == unix.EINTR:
			case fds[1].Revents != 0:
				return
			case err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
				cancel(errUnread)
				return
			default: // what this system cannot watch
				return
			}
		}
	})
	return read, func() {
		_ = stop.Close() // wakes the poll
		watch.Wait()
		_ = wake.Close()
		cancel(nil)
	}
}

func isPipe(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}
