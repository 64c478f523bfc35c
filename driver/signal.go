package driver

import "context"

// Signals is a Conn that carries notifications. Latches need the capability
// Latches; without it Listen knows of none.
type Signals interface {
	// Notify sends a signal once to the listeners on all other connections. It
	// waits until those that listened before the call have answered, as far as
	// the engine can tell, and returns how many it reached. If ctx ends first,
	// or the engine has waited long enough, it counts the answers received so
	// far and that is not an error. An error says that the signal was not sent;
	// one that wraps ErrUnsure, that this is not known. A signal that is lost
	// with a connection is not sent again.
	Notify(ctx context.Context, target string) (int, error)

	// Latch sets or clears a latch. When it has returned nil, that is stored,
	// the f of this Conn has been called for it or for a later change, and every
	// Conn that listens later sees it. Without the capability Latches it returns
	// ErrUnsupported. After another error the change may be stored, unless the
	// error wraps ErrFull.
	Latch(ctx context.Context, name string, set bool) error

	// Listen calls f for each signal of other connections, for each latch that
	// is set, and whenever one is set or cleared, by any connection. It returns
	// when f has been called for all latches that are set; signals sent from
	// then on arrive. Signals of one connection arrive in the order it sent
	// them, each at most once. Changes of one latch arrive in order too, but
	// several at once may arrive as only the last of them. After a lost
	// connection f is called for all latches that have changed.
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
