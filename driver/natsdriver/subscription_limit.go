package natsdriver

import (
	"errors"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// ErrTooManySubscriptions says that the server accepts no more subscriptions on the
// connection.
var ErrTooManySubscriptions = errors.New("the server accepts no more subscriptions on this connection (limits.subscriptions of a broker)")

// subscriptionLimit learns how many subscriptions the server accepts on a connection. The server
// does not say which one was too many, and the client keeps its latest error only,
// which does not change when the next one is too many as well.
type subscriptionLimit struct {
	most    atomic.Int64 // how many there were when the server refused one; 0 if it has refused none
	pending atomic.Int64 // subscriptions that the server may not have processed yet
}

// enter is called before a number of subscriptions begin, and returns how many the
// server has accepted at least.
func (r *subscriptionLimit) enter(nc *nats.Conn, n int) (accepted int64) {
	accepted = int64(nc.NumSubscriptions()) - r.pending.Load()
	r.pending.Add(int64(n))
	return max(accepted, 1)
}

// leave is called once the server has processed them, with the client's latest error
// before and after, and reports whether there was no room for them. Where others begin
// meanwhile it may report so a few subscriptions too early.
func (r *subscriptionLimit) leave(nc *nats.Conn, n int, accepted int64, before, after error) (full bool) {
	defer r.pending.Add(int64(-n))
	if !errors.Is(after, nats.ErrMaxSubscriptionsExceeded) {
		return false
	}
	if !errors.Is(before, nats.ErrMaxSubscriptionsExceeded) {
		r.most.Store(accepted)
		return true
	}
	most := r.most.Load()
	return most > 0 && int64(nc.NumSubscriptions()) > most
}
