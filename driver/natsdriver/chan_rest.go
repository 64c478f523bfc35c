package natsdriver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// chanRest is the time in which values that nobody needed any more go back, or an
// intake ends that nobody needs. A server takes what comes back and what is asked
// for in no order between the two, and a client takes what comes to two
// subscriptions in none. So nobody asks for values meanwhile: later ones might
// overtake those that are on their way back. What the server sends to an intake at
// the moment in which that ends may still come behind a later one.
type chanRest struct {
	began   time.Time
	awaited atomic.Int32 // answers to values given back, the end of the intake, and the beginning
	end     sync.Once
	over    chan struct{}
}

// backToken is the last token of the subject to which the server answers for
// values that were given back, behind all that it sent to the intake before.
const backToken = "back"

// newChanRest returns a rest that begins; done ends its beginning.
func newChanRest() *chanRest {
	r := &chanRest{began: time.Now(), over: make(chan struct{})}
	r.awaited.Store(1)
	return r
}

// done notes that one thing less is awaited. It reports whether that was the last.
func (r *chanRest) done() bool {
	if r.awaited.Add(-1) > 0 {
		return false
	}
	r.end.Do(func() { close(r.over) })
	return true
}

// late reports whether the rest has lasted as long as an answer may take.
func (r *chanRest) late() bool { return time.Since(r.began) > chanAnswer }

// await makes the rest last until sub has ended, and all it had was taken.
func (r *chanRest) await(sub *nats.Subscription) {
	r.awaited.Add(1)
	sub.SetClosedHandler(func(string) { r.done() })
}

// giveBack gives a value back that came to in, and makes the rest last until the
// server has taken notice. Without an answer, the value comes again when its lease
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
	case <-late.C: // what is on its way comes again when its lease ends
	case <-quit:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
