package driver

import "context"

// Chans is a Conn that carries channels.
type Chans interface {
	// OpenChan returns a channel, made if need be. One that is there with another
	// capacity or durability is ErrConflict.
	OpenChan(ctx context.Context, c ChanConfig) (Chan, error)
}

// ChanConfig says which channel, and how it is made if it is not there.
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
// were sent. A value that was received stays in it until its receiver is done
// with it; what its receiver gives back, or held when its process or connection
// ended, is received again, perhaps behind others.
type Chan interface {
	// Send returns when data is in the channel, or with capacity 0 when a
	// receiver is done with it. When ctx ends first it has not been sent, or the
	// error wraps ErrUnsure; to find out, it may go on for a moment after the end
	// of ctx, up to a second, as long as the connection is up. After Close it is
	// ErrClosed, and nothing has been sent. With try it does not wait for room,
	// or for a receiver: then it is ErrAgain.
	Send(ctx context.Context, data []byte, try bool) error

	// Receive returns the next value; ErrClosed once the channel is closed and
	// nothing is in it, in the hands of others either. With try it does not wait
	// for one: ErrAgain if there is none to be had.
	Receive(ctx context.Context, try bool) (*ChanValue, error)

	// Len returns how many values are in the channel, those that were received
	// included until they are done with; 0 with capacity 0.
	Len(ctx context.Context) (int, error)

	// Room returns when there is room for a value, or with capacity 0 when a
	// receiver waits that nobody has sent anything, as far as can be told; and
	// when the channel is closed.
	Room(ctx context.Context) error

	// Waiting returns how many calls on this connection wait for room or for a
	// receiver in Send, and for a value in Receive, as far as the engine has been
	// told of them: a Send with try finds the receivers that are counted.
	Waiting() (senders, receivers int)

	// Close closes the channel for all who have it open, in all processes. What
	// has been sent can still be received. It is idempotent.
	Close(ctx context.Context) error

	// Closed is closed when this connection has learnt that the channel is, or
	// has ended itself.
	Closed() <-chan struct{}
}

// ChanValue is a value that was received.
type ChanValue struct {
	Data []byte
	// Done says that it is done with, and returns when nobody else can get the
	// value any more. It is ErrEnded when it has gone to somebody else meanwhile,
	// or with capacity 0 its sender has given up. Like Send it may go on for a
	// moment after the end of ctx, and then wrap ErrUnsure. Either Done or Return
	// is called, once; until then the engine is told that it is in hand.
	Done func(ctx context.Context) error
	// Return gives the value back, to be received again, before others if that
	// can be.
	Return func(ctx context.Context) error
}
