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
	// startPatience is how long a command waits for a broker at whose address nobody
	// listens: it may have been started just now. Windows, whose own attempts take two
	// seconds, has another error for that; there is no second one.
	startPatience = 3 * time.Second
	// startPause is the pause between two attempts.
	startPause = 50 * time.Millisecond
	// noticeAfter is after how long a command says that it waits.
	noticeAfter = 500 * time.Millisecond
)

// errSilent says that a broker has not answered in time.
var errSilent = errors.New("no answer in time")

// waiting is the time in which a command waits for a broker.
type waiting struct {
	where string // and who has said so
	until time.Time
	tell  *time.Timer
	told  chan struct{} // closed when tell has run

	mu     sync.Mutex // guards what follows
	absent bool       // nobody listens there
}

// waitFor says on notes, if it takes long, that the command waits for a broker, where and
// until when, until what ends first: ctx, or end is called.
func waitFor(ctx context.Context, notes io.Writer, where string) *waiting {
	w := &waiting{where: where, told: make(chan struct{})}
	w.until, _ = ctx.Deadline()
	w.tell = time.AfterFunc(noticeAfter, func() {
		defer close(w.told)
		note(notes, "%s", w)
	})
	return w
}

// end ends it. Nothing is written afterwards.
func (w *waiting) end() {
	if !w.tell.Stop() {
		<-w.told
	}
}

// String says what the command waits for.
func (w *waiting) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := "no answer yet from "
	if w.absent {
		what = "nobody listens yet at "
	}
	return what + w.where + ": waiting" + untilWhen(w.until) + "; Ctrl-C ends"
}

// untilWhen says until when something is waited for, nothing without an end.
func untilWhen(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + t.Format(time.TimeOnly)
}

// attempts calls connect until somebody listens where it connects to, for startPatience.
func (w *waiting) attempts(ctx context.Context, connect func() error) error {
	start := time.Now()
	for {
		err := connect()
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > startPatience {
			return err
		}
		w.mu.Lock()
		if !w.absent {
			w.absent = true
			if end := start.Add(startPatience); w.until.IsZero() || end.Before(w.until) {
				w.until = end
			}
		}
		w.mu.Unlock()
		if sleep(ctx, startPause) != nil {
			return err
		}
	}
}

// tellLost says on notes when the connection is lost, and when it is back. ctx is that of
// the command.
func tellLost(ctx context.Context, notes io.Writer, conn driver.Conn, where string) {
	until, _ := ctx.Deadline()
	conn.Watch(func(up bool, reason error) {
		switch {
		case ctx.Err() != nil: // it ends
		case up && reason == nil:
			note(notes, "connected to %s again", where)
		case !up:
			note(notes, "%s", lost(where, reason, until))
		}
	})
}

// lost says that a connection is lost, why, and until when it is waited for.
func lost(where string, reason error, until time.Time) string {
	return fmt.Sprintf("not connected to %s any more (%v): waiting%s; Ctrl-C ends", where, reason, untilWhen(until))
}

// note writes a line about what a command does, over what a progress bar has written.
func note(w io.Writer, format string, args ...any) {
	begin, end := "", "\n"
	if terminalWidth(w) > 0 {
		begin, end = "\r", "\x1b[K\n"
	}
	fmt.Fprint(w, begin+"hark: "+fmt.Sprintf(format, args...)+end)
}
