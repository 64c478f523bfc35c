package natsdriver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// chanRest is a period in which values that nobody here needs go back to the
// server, or an unneeded intake ends. The server does not order returned values and
// new requests, and the client does not order the messages of two subscriptions. So
// nobody asks for values during a rest: later values might overtake those on their
// way back. Two things are left. Of two values on their way to an intake that ends,
// one that arrives goes back behind one that finds the intake gone; that takes two
// receivers here that give up at once. And in a cluster a value that finds it gone
// comes again only when its lease ends.
type chanRest struct {
	began   time.Time
	awaited atomic.Int32 // answers to returned values, the end of the intake, a fence, and the end of the beginning
	end     sync.Once
	over    chan struct{}
}

// backToken is the last token of the subject on which the server confirms returned
// values, after everything it sent to the intake before.
const backToken = "back"

// newChanRest begins a rest. Its caller ends the beginning with done.
func newChanRest() *chanRest {
	r := &chanRest{began: time.Now(), over: make(chan struct{})}
	r.awaited.Store(1)
	return r
}

// done notes that one awaited event has happened. It reports whether it was the
// last.
func (r *chanRest) done() bool {
	if r.awaited.Add(-1) > 0 {
		return false
	}
	r.end.Do(func() { close(r.over) })
	return true
}

// late reports whether the rest has lasted as long as an answer may take.
func (r *chanRest) late() bool { return time.Since(r.began) > chanAnswer }

// await makes the rest last until sub has ended and all its messages have been
// handled.
func (r *chanRest) await(sub *nats.Subscription) {
	r.awaited.Add(1)
	sub.SetClosedHandler(func(string) { r.done() })
}

// fence makes the rest last until the server has sent, or found that it cannot send
// and therefore keeps for the next request, what it gave to an intake that has just
// ended. It may store a great many values in between, which a request made too early
// would get first.
func (r *chanRest) fence(ch *channel) {
	c := ch.conn
	r.awaited.Add(1)
	token, reply := c.acks.expect(r)
	if c.nc.PublishRequest(ch.nextSubject(), reply, fenceRequest) != nil && c.acks.forget(token) {
		r.done()
	}
}

// giveBack returns a value that arrived at in, and makes the rest last until the
// server confirms that. If it never does, the value comes again when its lease
// ends.
func (r *chanRest) giveBack(h *chanHand, in *intake) {
	c := h.ch.conn
	r.awaited.Add(1)
	if in != nil && in == h.ch.intake {
		if c.nc.PublishRequest(h.reply, in.inbox+"."+backToken, sayBack) != nil {
			r.done()
		}
		return
	}
	token, reply := c.acks.expect(r)
	if c.nc.PublishRequest(h.reply, reply, sayBack) != nil && c.acks.forget(token) {
		r.done()
	}
}

// acked implements waiter.
func (r *chanRest) acked(uint64, ack, error) { r.done() }

// wait returns when the rest is over, has lasted as long as an answer may take, or
// quit is closed.
func (r *chanRest) wait(ctx context.Context, quit <-chan struct{}) error {
	late := time.NewTimer(chanAnswer)
	defer late.Stop()
	select {
	case <-r.over:
	case <-late.C: // values on their way come again when their leases end
	case <-quit:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// restLocked gives up the values that nobody here has wanted for a moment, and
// begins a rest. It returns how long to wait until then, or a negative number if
// there is nothing to wait for.
func (ch *channel) restLocked() time.Duration {
	if len(ch.receivers) > 0 || len(ch.tries) > 0 || len(ch.spare) == 0 && (ch.intake == nil || ch.intake.asked == 0) {
		return -1
	}
	if wait := chanSpare - time.Since(ch.left); wait > 0 {
		return wait
	}
	in := ch.intake
	if in != nil && in.rest != nil && !in.rest.late() {
		return chanSpare
	}
	rest := newChanRest()
	ch.rest = rest
	defer rest.done()
	if in != nil {
		in.rest = rest
	}
	if len(ch.spare) == 0 {
		rest.await(in.sub)
		ch.forgetLocked()
		rest.fence(ch)
		return -1
	}
	// Leave the requests standing until everything is back: without them the server
	// would redeliver a value as soon as it came back.
	for _, h := range ch.spare {
		delete(ch.hands, h)
		rest.giveBack(h, in)
	}
	ch.spare = nil
	return -1
}
