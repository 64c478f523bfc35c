package driver

import "context"

// Requester is a Conn that carries requests and replies.
type Requester interface {
	// Request sends m to one responder of that name and returns its answer.
	// Without one it returns ErrNoResponders at once.
	Request(ctx context.Context, name string, m *Message) (*Message, error)

	// Respond receives requests of that name, of which each goes to one
	// responder. Receive and Close are as in Subscription.
	Respond(ctx context.Context, name string, window int) (Responder, error)
}

// Responder receives requests.
type Responder interface {
	// Receive returns between 1 and most requests; ErrEnded after Close.
	Receive(ctx context.Context, most int) ([]*Call, error)
	// Close takes no more requests. Those that were received can still be
	// answered.
	Close(ctx context.Context) error
}

// Call is a request that waits for its answer.
type Call struct {
	Message
	// Answer sends the answer. It is called once.
	Answer func(ctx context.Context, m *Message) error
	// Cancelled is closed when the requester waits no more, where the engine
	// can tell; otherwise nil.
	Cancelled <-chan struct{}
}

// Values is a Conn that keeps shared values.
type Values interface {
	// OpenValue returns the value of that name; if it has no state it gets
	// initial, unless somebody is faster.
	OpenValue(ctx context.Context, name string, initial []byte) (Value, error)
}

// Value is a variable that is shared by all who open it.
type Value interface {
	// Load returns a state that is not older than what any call on this
	// connection has returned before.
	Load(ctx context.Context) (State, error)
	// CompareAndSet sets data if the version is still the given one, and
	// returns the new state, or the present one and false. An error that wraps
	// ErrAgain says that nothing has changed; after any other error, and when
	// ctx ends, it may have.
	CompareAndSet(ctx context.Context, version uint64, data []byte) (State, bool, error)
	// Watch begins with the present state and returns the states that follow.
	Watch(ctx context.Context) (ValueWatch, error)
}

// ValueWatch follows a value.
type ValueWatch interface {
	// Next returns the next state. States may be left out, but never the last,
	// and they never go back; after a lost connection it goes on.
	Next(ctx context.Context) (State, error)
	// Close ends it; Next returns ErrEnded.
	Close() error
}

// State is a value and its version, which grows with each change.
type State struct {
	Version uint64
	Data    []byte
}

// Chans is a Conn that carries channels.
type Chans interface {
	// OpenChan returns the channel of that name, made if need be. Another
	// capacity is ErrConflict. The capacity is 0, a number, or -1 without a
	// limit.
	OpenChan(ctx context.Context, name string, capacity int) (Chan, error)
}

// Chan is a queue of values, each for one receiver.
type Chan interface {
	// Send returns when data is in the channel, with capacity 0 when a receiver
	// has it. When ctx ends first it has not been sent. After Close it is
	// ErrClosed. With try it does not wait for room: ErrFull.
	Send(ctx context.Context, data []byte, try bool) error
	// Receive returns the next value; ErrClosed once the channel is closed and
	// empty. With try it does not wait for one: ErrEnded if there is none.
	// What it returned is done when Done is called, or given to another
	// receiver when this process ends before.
	Receive(ctx context.Context, try bool) (*ChanValue, error)
	// Len returns how many values can be received.
	Len(ctx context.Context) (int, error)
	// Close closes the channel for all who have it open. It is idempotent.
	Close(ctx context.Context) error
	// Closed is closed when this connection has learnt that the channel is.
	Closed() <-chan struct{}
}

// ChanValue is a value that was received.
type ChanValue struct {
	Data []byte
	// Done says that it is done with. It is called once at most.
	Done func(ctx context.Context) error
}

// Signals is a Conn that carries notifications.
type Signals interface {
	// Notify sends a signal and returns how many listeners in all processes it
	// reached, as far as they answered before ctx ended.
	Notify(ctx context.Context, target string) (int, error)
	// Latch sets or clears a latch. It returns when every Conn opened later
	// sees it.
	Latch(ctx context.Context, name string, set bool) error
	// Listen calls f for each signal of other processes, and for each latch
	// that is or will be set or cleared. f says how many listeners here it
	// reached, must not block, and calls do not overlap.
	Listen(ctx context.Context, f func(s Signal) (reached int)) error
}

// Signal is a notification, or the change of a latch.
type Signal struct {
	Target string
	Latch  bool // it is about a latch
	Set    bool // the latch is set
}
