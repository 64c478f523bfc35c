package driver

import "context"

// Chans is a Conn that carries channels.
type Chans interface {
	// OpenChan returns a channel, and creates it if it does not exist. If it
	// exists with another capacity or durability, that is ErrConflict.
	OpenChan(ctx context.Context, c ChanConfig) (Chan, error)
}

// ChanConfig names a channel, and says how to create it if it does not exist.
type ChanConfig struct {
	Name     string // valid by hark's rules for names
	Capacity int    // 0, a number or Unbounded
	// Durability of the values in it. With capacity 0 there are none: it has no
	// meaning.
	Durability Durability
}

// Unbounded is the capacity of a channel without a limit.
const Unbounded = -1

// Chan is a queue of values, each for one receiver, in the order in which they
// were sent. A received value stays in it until its receiver is done. A value
// that its receiver returns, or held when its process or connection ended, is
// received again, perhaps after others.
type Chan interface {
	// Send returns when data is in the channel, or with capacity 0 when a
	// receiver is done with it. If ctx ends first it has not been sent, or the
	// error wraps ErrUnsure; to find out, Send may go on for a moment after the
	// end of ctx, up to a second, as long as the connection is up. After Close
	// it returns ErrClosed, and nothing has been sent. With try it does not wait
	// for room, or for a receiver, and returns ErrAgain instead.
	Send(ctx context.Context, data []byte, try bool) error

	// Receive returns the next value, or ErrClosed once the channel is closed
	// and empty, with no value held by another receiver. With try it does not
	// wait for one, and returns ErrAgain if none is available.
	Receive(ctx context.Context, try bool) (*ChanValue, error)

	// Len returns how many values are in the channel, including those that were
	// received until they are done; 0 with capacity 0.
	Len(ctx context.Context) (int, error)

	// Room returns when there is room for a value, or with capacity 0 when a
	// receiver is waiting to whom nobody has sent anything, as far as the engine
	// can tell; and when the channel is closed.
	Room(ctx context.Context) error

	// Waiting returns how many calls on this connection wait for room or for a
	// receiver in Send, and for a value in Receive, as far as the engine knows:
	// a Send with try finds the receivers that are counted.
	Waiting() (senders, receivers int)

	// Close closes the channel for everyone who has it open, in all processes.
	// Values already sent can still be received. It is idempotent.
	Close(ctx context.Context) error

	// Closed is closed when this connection has learnt that the channel is
	// closed, or has ended itself.
	Closed() <-chan struct{}
}

// ChanValue is a value that was received.
type ChanValue struct {
	Data []byte
	// Done says that the receiver is done with the value, and returns when
	// nobody else can get it any more. It returns ErrEnded if the value has gone
	// to another receiver meanwhile, or with capacity 0 if its sender has given
	// up. Like Send it may go on for a moment after the end of ctx, and then
	// wrap ErrUnsure. Either Done or Return is called, once; until then the
	// connection keeps the value from other receivers, however long that takes.
	Done func(ctx context.Context) error
	// Return puts the value back, to be received again, before others if
	// possible.
	Return func(ctx context.Context) error
}
