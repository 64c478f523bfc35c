package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/harkbus/hark/driver"
)

const (
	// startTimeout is how long a command waits for a broker at an address where
	// nothing listens: the broker may just be starting. Windows, whose own attempts
	// take two seconds, reports another error, and no second attempt is made there.
	startTimeout = 3 * time.Second
	// startPause is the pause between two attempts.
	startPause = 50 * time.Millisecond
	// noticeAfter is how long a command waits before it says so.
	noticeAfter = 500 * time.Millisecond
)

// errSilent says that a broker has not answered in time.
var errSilent = errors.New("no answer in time")

// waiting is a period in which a command waits for a broker.
type waiting struct {
	where string // the address, and where it was given
	until time.Time
	tell  *time.Timer
	told  chan struct{} // closed when tell has returned

	mu     sync.Mutex // guards the fields below
	absent bool       // nothing listens there
}

// waitFor says on notes, if it takes long, that the command waits for a broker,
// where and until when. It stops when ctx ends or end is called.
func waitFor(ctx context.Context, notes io.Writer, where string) *waiting {
	w := &waiting{where: where, told: make(chan struct{})}
	w.until, _ = ctx.Deadline()
	w.tell = time.AfterFunc(noticeAfter, func() {
		defer close(w.told)
		note(notes, "%s", w)
	})
	return w
}

// end ends the period. Nothing is written afterwards.
func (w *waiting) end() {
	if !w.tell.Stop() {
		<-w.told
	}
}

// String describes what the command waits for.
func (w *waiting) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := "no answer yet from "
	if w.absent {
		what = "nobody listens yet at "
	}
	return what + w.where + ": waiting" + untilWhen(w.until) + "; Ctrl-C ends"
}

// untilWhen describes until when something is waited for; "" if there is no limit.
func untilWhen(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + t.Format(time.TimeOnly)
}

// attempts calls connect until something listens at its address, for at most
// startTimeout.
func (w *waiting) attempts(ctx context.Context, connect func() error) error {
	start := time.Now()
	for {
		err := connect()
		if !isAbsent(err) || time.Since(start) > startTimeout {
			return err
		}
		w.mu.Lock()
		if !w.absent {
			w.absent = true
			if end := start.Add(startTimeout); w.until.IsZero() || end.Before(w.until) {
				w.until = end
			}
		}
		w.mu.Unlock()
		if sleep(ctx, startPause) != nil {
			return err
		}
	}
}

// isAbsent reports whether nobody listens yet. A broker that starts first checks
// whether its ports are free, which resets a connection made at that moment.
func isAbsent(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// tellLost says on notes when the connection is lost, and when it is back. ctx is
// that of the command.
func tellLost(ctx context.Context, notes io.Writer, conn driver.Conn, where string) {
	until, _ := ctx.Deadline()
	conn.Watch(func(up bool, reason error) {
		switch {
		case ctx.Err() != nil: // the command is ending
		case up && reason == nil:
			note(notes, "connected to %s again", where)
		case !up:
			note(notes, "%s", lost(where, reason, until))
		}
	})
}

// lost describes a lost connection, the reason, and how long the command waits for
// it.
func lost(where string, reason error, until time.Time) string {
	return fmt.Sprintf("not connected to %s any more (%v): waiting%s; Ctrl-C ends", where, reason, untilWhen(until))
}

// note writes a line about what a command does, over any progress bar.
func note(w io.Writer, format string, args ...any) {
	begin, end := "", "\n"
	if terminalWidth(w) > 0 {
		begin, end = "\r", "\x1b[K\n"
	}
	fmt.Fprint(w, begin+"hark: "+fmt.Sprintf(format, args...)+end)
}
