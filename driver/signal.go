package driver

import "context"

// Signals is a Conn that carries notifications.
type Signals interface {
	// Notify sends a signal to the listeners on all connections but this one,
	// and returns how many it reached, as far as their connections answered
	// before ctx ended or the engine gave up waiting for them.
	Notify(ctx context.Context, target string) (int, error)

	// Latch sets or clears a latch. When it has returned, every Conn that is
	// opened later sees it.
	Latch(ctx context.Context, name string, set bool) error

	// Listen calls f for each signal of other connections, and for each latch
	// that is set, and when one is set or cleared, by whomever. It returns when
	// f has been called for all latches that are set. f must not block, and its
	// calls do not overlap; for signals it returns how many listeners here it
	// reached. Listen is called once on a Conn; it ends with the Conn. After a
	// lost connection f is called for all latches again whose state is another.
	Listen(ctx context.Context, f func(s Signal) (reached int)) error
}

// Signal is a notification, or the change of a latch.
type Signal struct {
	Target string // or the name of the latch
	Latch  bool   // it is about a latch
	Set    bool   // the latch is set
}
