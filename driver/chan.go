package driver

import "context"

// Chans is a Conn that carries channels.
type Chans interface {
	// OpenChan returns the channel of that name, made if need be. Another
	// capacity is ErrConflict. The capacity is 0, a number, or Unbounded.
	OpenChan(ctx context.Context, name string, capacity int) (Chan, error)
}

// Unbounded is the capacity of a channel without a limit.
const Unbounded = -1

// Chan is a queue of values, each for one receiver.
type Chan interface {
	// Send returns when data is in the channel, or with capacity 0 when a
	// receiver has it. When ctx ends first it has not been sent, or the error
	// wraps ErrUnsure. After Close it is ErrClosed, and nothing has been sent.
	// With try it does not wait for room, or for a receiver: ErrFull.
	Send(ctx context.Context, data []byte, try bool) error

	// Receive returns the next value; ErrClosed once the channel is closed and
	// empty. With try it does not wait for one: ErrEnded if there is none.
	Receive(ctx context.Context, try bool) (*ChanValue, error)

	// Len returns how many values can be received.
	Len(ctx context.Context) (int, error)

	// Close closes the channel for all who have it open, in all processes. What
	// has been sent can still be received. It is idempotent.
	Close(ctx context.Context) error

	// Closed is closed when this connection has learnt that the channel is.
	Closed() <-chan struct{}
}

// ChanValue is a value that was received. Its slot in the channel is taken until
// it is done. If this process ends before, another receiver gets it.
type ChanValue struct {
	Data []byte
	// Done says that it is done with, and returns when nobody else can get the
	// value any more. It is called once at most, or else Return is.
	Done func(ctx context.Context) error
	// Return gives the value back, to be received again.
	Return func(ctx context.Context) error
}
