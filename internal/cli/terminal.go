package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminalWidth returns how many columns the terminal behind w has, or 0 if w is no
// terminal, or one that cannot rewrite a line.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// announce says on a terminal what the command does until it is interrupted.
func announce(s Streams, what string) {
	if terminalWidth(s.Err) > 0 {
		fmt.Fprintf(s.Err, "%s; Ctrl-C ends\n", what)
	}
}

// leaveLine moves the cursor of a terminal to a new line when ctx ends, past the ^C that
// the terminal shows. The function that it returns ends that.
func leaveLine(ctx context.Context, w io.Writer) (end func()) {
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		if terminalWidth(w) > 0 {
			fmt.Fprintln(w)
		}
		close(left)
	})
	return func() {
		if !stop() {
			<-left
		}
	}
}

// interruptible runs work with a context that ends after ctx does, with the cause
// errInterrupted or errTimeout.
func interruptible(ctx context.Context, work func(context.Context) error) error {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errTimeout) {
			cancel(errTimeout)
			return
		}
		cancel(errInterrupted)
	})()
	return work(inner)
}

// progress shows a user how far a command is: on a terminal in one line that is
// rewritten, otherwise in a new line now and then.
type progress struct {
	quit chan struct{}
	wait sync.WaitGroup
}

// showProgress writes what line returns to w until stop is called. The width passed
// to line is that of the terminal, or 0.
func showProgress(w io.Writer, line func(width int) string) *progress {
	p := &progress{quit: make(chan struct{})}
	every := time.Second
	if terminalWidth(w) > 0 {
		every = 100 * time.Millisecond
	}
	p.wait.Go(func() {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			width := terminalWidth(w) // it may have been resized
			select {
			case <-ticks.C:
				if width > 0 {
					fmt.Fprintf(w, "\r%s\x1b[K", fit(line(width), width-1))
				} else {
					fmt.Fprintln(w, line(0))
				}
			case <-p.quit:
				if width > 0 {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			}
		}
	})
	return p
}

// stop ends the display, and clears its line.
func (p *progress) stop() {
	close(p.quit)
	p.wait.Wait()
}

// fit cuts s to width runes.
func fit(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(0, width)])
	}
	return s
}

// withGauge puts a bar that shows the fraction done in front of a line, as wide as
// fits; none if there is too little room.
func withGauge(width int, done float64, line string) string {
	bar := min(width-utf8.RuneCountInString(line)-4, 20) // brackets, a space, and the last column
	if bar < 5 {
		return line
	}
	n := int(min(max(done, 0), 1) * float64(bar))
	return "[" + strings.Repeat("=", n) + strings.Repeat(" ", bar-n) + "] " + line
}
