package driver

import "context"

// Values is a Conn that keeps shared values.
type Values interface {
	// OpenValue returns the value of that name. If it has no state yet it gets
	// initial, unless another caller is faster.
	OpenValue(ctx context.Context, name string, initial []byte) (Value, error)
}

// Value is a variable shared by all who open it.
type Value interface {
	// Load returns a state no older than any that a call on this connection has
	// returned before.
	Load(ctx context.Context) (State, error)

	// CompareAndSet sets data if the version is still the given one, and returns
	// the new state; otherwise it returns the current one and false. An error
	// that wraps ErrAgain says that nothing has changed; after any other error,
	// and when ctx ends, it may have.
	CompareAndSet(ctx context.Context, version uint64, data []byte) (State, bool, error)

	// Watch begins with the current state and returns the states that follow.
	Watch(ctx context.Context) (ValueWatch, error)
}

// ValueWatch follows a value.
type ValueWatch interface {
	// Next returns the next state. States may be skipped, but never the last,
	// and they never go back; after a lost connection it continues. It is called
	// by one goroutine at a time. After Close it returns ErrEnded.
	Next(ctx context.Context) (State, error)

	// Close ends it. It is idempotent.
	Close() error
}

// State is the state of a value, and its version, which grows with each change.
type State struct {
	Version uint64
	Data    []byte
}
