package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/timespan"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNothing     = 3
	exitTimeout     = 124 // like timeout(1)
	exitInterrupted = 130 // like a shell
	exitUnread      = 141 // like a shell, for what SIGPIPE ends
)

// exitCodes is their description in the help.
const exitCodes = `Exit codes: 0 done, 1 failed, 2 not understood, 3 closed, not found or not in the
required state, 124 timed out, 130 interrupted, 141 nobody reads the output any more.`

// usageError is a command line that was not understood.
type usageError struct{ error }

// nothingError says that the object of a command is closed, missing, or not in the
// required state.
type nothingError struct{ error }

func nothing(format string, args ...any) error { return nothingError{fmt.Errorf(format, args...)} }

// errInterrupted says that the user interrupted the command.
var errInterrupted = errors.New("interrupted")

// errUnread says that nobody reads the output any more.
var errUnread = errors.New("nobody reads the output any more")

// untilUnread returns an action that ends like do, and also, with errUnread, once nobody
// reads what it prints.
func untilUnread(do action) action {
	return func(ctx context.Context, words []string, s Streams) error {
		read, end := whileRead(ctx, s.Out)
		defer end()
		err := do(read, words, s)
		if err != nil && context.Cause(read) == errUnread {
			return errUnread
		}
		return err
	}
}

// errTimeout says that the time of --timeout is over.
var errTimeout = errors.New("timed out")

// timeoutFlag declares --timeout.
func timeoutFlag(fs *flag.FlagSet, byDefault time.Duration, what string) *time.Duration {
	d := byDefault
	timeVar(fs, &d, "timeout", "`time` to wait "+what+", such as 5s; 0 for no limit")
	return &d
}

// timeVar declares a flag that sets d. Its default is the value that d has.
func timeVar(fs *flag.FlagSet, d *time.Duration, name, usage string) {
	fs.Var((*timeFlag)(d), name, usage)
}

// timeFlag is a time that is not negative.
type timeFlag time.Duration

// Set implements flag.Value.
func (f *timeFlag) Set(s string) error {
	d, err := timespan.Parse(s)
	if err != nil {
		return errors.New("want " + timespan.Wanted)
	}
	*f = timeFlag(d)
	return nil
}

// String implements flag.Value.
func (f *timeFlag) String() string { return time.Duration(*f).String() }

// bounded returns a context that ends after d, unless that is 0.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, errTimeout)
}

// exitCode returns the exit code for an error of a command whose context is ctx.
func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var none nothingError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, errUnread):
		return exitUnread
	case errors.As(err, &usage), errors.Is(err, hark.ErrInvalidName):
		return exitUsage
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.As(err, &none):
		return exitNothing
	}
	return exitFailed
}
