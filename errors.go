package hark

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of errors that hark returns; check them with errors.Is.
var (
	// ErrClosed says that the bus, subscription, channel, listener or handle has been
	// closed.
	ErrClosed = errors.New("closed")
	// ErrTypeMismatch says that a name is in use with another Go type.
	ErrTypeMismatch = errors.New("type mismatch")
	// ErrInvalidName says that a name or pattern breaks the rules of names.
	ErrInvalidName = errors.New("invalid name")
	// ErrInvalidOption says that an option has no meaning where it was given,
	// contradicts another or is out of range.
	ErrInvalidOption = errors.New("invalid option")
	// ErrUnsupported says that the engine cannot do what was asked.
	ErrUnsupported = errors.New("unsupported")
	// ErrFull says that there was no room and that the policy in force is not
	// to wait for it.
	ErrFull = errors.New("full")
	// ErrWouldDeadlock says that a handler would have waited for itself. If it
	// published, notified or set a value, it also used up the room set aside for
	// such cases.
	ErrWouldDeadlock = errors.New("would deadlock")
	// ErrNoResponders says that nobody replies to requests of that name.
	ErrNoResponders = errors.New("no responders")
	// ErrTimeout says that a handler took longer than its Timeout.
	ErrTimeout = errors.New("handler timed out")
	// ErrUnsure says that it is not known whether something happened: the
	// engine did not answer in time.
	ErrUnsure = errors.New("it is not known whether this was done")
	// ErrNotHeld says that a value taken from a channel is no longer held: it
	// was received or returned, or another receiver has it.
	ErrNotHeld = errors.New("not held any more")
)

// errNoBus says that a bus is missing where there is nothing private without one.
var errNoBus = fmt.Errorf("%w: the bus is nil; create one with New or Open", ErrInvalidOption)

// PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the stack of the panicking goroutine, as runtime/debug.Stack prints it
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// BatchError says which items of a batch failed.
type BatchError struct {
	Items []ItemError // in ascending order of Index
}

// ItemError is the failure of one item of a batch.
type ItemError struct {
	Index int // position in the batch, from 0
	Err   error
}

func (e *BatchError) Error() string {
	if len(e.Items) == 0 {
		return "no item failed"
	}
	return fmt.Sprintf("%d items failed, the first at %d: %v", len(e.Items), e.Items[0].Index, e.Items[0].Err)
}

// Unwrap returns the errors of the items.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Items))
	for i, item := range e.Items {
		errs[i] = item.Err
	}
	return errs
}

// Left describes work that a Close or Drain that ran out of time left behind.
type Left struct {
	Kind         Kind
	Name         string // of the topic, pattern, request, channel or value; what a listener is registered under
	Subscription string // its name or group; empty where there is none
	Waiting      int    // messages that no handler has been given
	InFlight     int    // messages whose handler has not returned
	Retrying     int    // messages that wait for another attempt
	Delayed      int    // messages published with Delay or At that are not due
}

func (l Left) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", l.Kind, l.Name)
	if l.Subscription != "" {
		fmt.Fprintf(&b, " (%s)", l.Subscription)
	}
	b.WriteString(":")
	for _, part := range []struct {
		n    int
		what string
	}{{l.Waiting, "waiting"}, {l.InFlight, "in flight"}, {l.Retrying, "to be retried"}, {l.Delayed, "delayed"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, " %d %s", part.n, part.what)
		}
	}
	return b.String()
}

// any reports whether anything was left.
func (l Left) any() bool { return l.Waiting+l.InFlight+l.Retrying+l.Delayed > 0 }

// CloseError is returned by Close and Drain if their context ended before all
// work was done. It wraps the context's cause.
type CloseError struct {
	Left  []Left
	Cause error
}

func (e *CloseError) Error() string {
	parts := make([]string, len(e.Left))
	for i, l := range e.Left {
		parts[i] = l.String()
	}
	if len(parts) == 0 {
		return fmt.Sprintf("hark: close: %v", e.Cause)
	}
	return fmt.Sprintf("hark: close: %v; left behind: %s", e.Cause, strings.Join(parts, "; "))
}

// Unwrap returns the cause.
func (e *CloseError) Unwrap() error { return e.Cause }

// fail wraps err in the common error format of the package: hark: op name: err.
func fail(op, name string, err error) error {
	if name == "" {
		return fmt.Errorf("hark: %s: %w", op, err)
	}
	return fmt.Errorf("hark: %s %s: %w", op, name, err)
}

// findIn is errors.As for the error of a handler. The methods of such an error
// are the program's and may panic, for example on a nil pointer; nothing is
// then found.
func findIn[E error](err error) (found E, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	ok = errors.As(err, &found)
	return found, ok
}

// isKind is errors.Is for such an error.
func isKind(err, kind error) (is bool) {
	defer func() {
		if recover() != nil {
			is = false
		}
	}()
	return errors.Is(err, kind)
}

// textOf is err.Error(), which may panic.
func textOf(err error) string { return fmt.Sprint(err) }
