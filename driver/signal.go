package driver

import "context"

// Signals is a Conn that carries notifications. Latches need the capability
// Latches; without it Listen knows of none.
type Signals interface {
	// Notify sends a signal once to the listeners on all connections but this
	// one. It waits until those have answered that listened before the call, as
	// far as the engine can tell, and returns how many it reached. When ctx ends
	// first, or the engine has waited for long enough, the answers that are
	// there count and it is no error. An error says that the signal was not
	// sent; one that wraps ErrUnsure, that this is not known. A signal that is
	// lost with a connection is not sent again.
	Notify(ctx context.Context, target string) (int, error)

	// Latch sets or clears a latch. When it has returned nil that is stored, the
	// f of this Conn has been called for it or for what came after it, and every
	// Conn that listens later sees it. Without the capability Latches it is
	// ErrUnsupported. After another error it may be stored, unless that wraps
	// ErrFull.
	Latch(ctx context.Context, name string, set bool) error

	// Listen calls f for each signal of other connections, for each latch that
	// is set, and when one is set or cleared, by whomever. It returns when f has
	// been called for all latches that are set, and signals that are sent from
	// then on arrive. Signals of one connection come in its order, each at most
	// once; changes of one latch come in order too, where several at once may
	// come as the last of them. After a lost connection f is called for all
	// latches that have changed.
	//
	// f must not block, and its calls do not overlap; for a signal it returns
	// how many listeners here it reached. Listen succeeds once on a Conn, and
	// ends with it.
	Listen(ctx context.Context, f func(s Signal) (reached int)) error
}

// Signal is a notification, or the change of a latch.
type Signal struct {
	Target string // or the name of the latch
	Latch  bool   // it is about a latch
	Set    bool   // the latch is set
}
