package driver

import "context"

// Requester is a Conn that carries requests and replies.
type Requester interface {
	// Request sends m to one responder of that name and returns its answer. If
	// there is none it returns ErrNoResponders at once. A request is no event: only
	// its Data, ContentType and Headers travel.
	Request(ctx context.Context, name string, m *Message) (*Message, error)

	// Respond receives requests of that name, each of which goes to one
	// responder. Receive and Close work as in Subscription.
	Respond(ctx context.Context, name string, window int) (Responder, error)
}

// Responder receives requests.
type Responder interface {
	// Receive returns between 1 and most requests; ErrEnded after Close.
	Receive(ctx context.Context, most int) ([]*Call, error)
	// Close stops taking requests. Those already received can still be answered.
	Close(ctx context.Context) error
}

// Call is a request that waits for its answer.
type Call struct {
	Message
	// Answer sends the answer, of which the same travels. It is called once, and
	// after ErrFull, which means that the answer is too large, once more with a
	// smaller one.
	Answer func(ctx context.Context, m *Message) error
	// Context ends when the requester has stopped waiting, where the engine can
	// tell; otherwise it is nil.
	Context context.Context
}
