package natsdriver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// withdrawal takes the requests for values back when nobody here waits any more,
// and returns the values that came for them. The server orders neither returned
// values and requests, nor returned values and those that find no subscription at
// their request. So nobody here asks for values during a withdrawal, and values are
// returned only when none is on its way any more: all at once, in their order.
//
// The server forgets a request when its subject has no subscription; there is no
// other way to take it back. In a cluster the server of this connection learns of
// that before the leader of the consumer, and drops values that the leader sends
// meanwhile. Those come again when their leases end.
type withdrawal struct {
	over   chan struct{}   // closed when everything is back
	values []*chanDelivery // in the order in which they came; guarded by channel.mu
}

// addLocked adds a value that has just come.
func (w *withdrawal) addLocked(d *chanDelivery) {
	w.values = append(w.values, d)
	d.ch.deliveries[d] = struct{}{}
}

// withdrawLocked begins a withdrawal if nobody here has waited for a moment and
// there is anything to take back. It returns how long to wait until then, or a
// negative number if there is nothing to wait for.
func (ch *channel) withdrawLocked() time.Duration {
	in := ch.intake
	if in != nil && in.asked == 0 {
		in = nil
	}
	if len(ch.receivers) > 0 || len(ch.tries) > 0 || ch.withdrawal != nil || len(ch.spare) == 0 && in == nil {
		return -1
	}
	if wait := chanSpare - time.Since(ch.left); wait > 0 {
		return wait
	}
	if !ch.conn.begin() {
		return -1
	}
	w := &withdrawal{over: make(chan struct{}), values: ch.spare}
	ch.withdrawal, ch.spare = w, nil
	var ended chan struct{}
	if in != nil {
		ended = make(chan struct{})
		in.withdrawal = w
		in.sub.SetClosedHandler(func(string) { close(ended) })
		ch.forgetLocked()
	}
	go ch.takeBack(w, in, ended)
	return -1
}

// takeBack performs a withdrawal from an intake, or just returns values if that is
// nil. ended is closed when all messages to the intake have been handled.
func (ch *channel) takeBack(w *withdrawal, in *intake, ended <-chan struct{}) {
	defer ch.conn.tasks.Done()
	quit, cancel := ch.untilQuit()
	defer cancel()
	ctx, cancel := context.WithTimeout(quit, chanAnswer)
	defer cancel()
	if in != nil && ch.passed(ctx, ended) {
		ch.mu.Lock()
		some, missing := len(w.values) > 0, in.asked
		ch.mu.Unlock()
		if some && missing > 0 {
			ch.fetch(ctx, w, missing)
		}
	}
	ch.mu.Lock()
	if in != nil {
		in.withdrawal = nil
	}
	values := slices.DeleteFunc(w.values, func(d *chanDelivery) bool {
		_, held := ch.deliveries[d]
		delete(ch.deliveries, d)
		return !held || !d.releasableLocked() // it is back already, or gone
	})
	ch.mu.Unlock()
	if last := len(values) - 1; last >= 0 {
		for _, d := range values[:last] {
			d.say(sayBack)
		}
		// The answer to the last means that all are back. Without an answer, they come
		// again when their leases end.
		_, _, _ = ch.exchange(quit, &nats.Msg{Subject: values[last].reply, Data: sayBack})
	}
	ch.mu.Lock()
	ch.withdrawal = nil
	ch.mu.Unlock()
	close(w.over)
}

// passed returns when all values have arrived that the server has sent to requests
// without a subscription, and the server has noticed which it cannot send. It
// reports whether that happened in time.
func (ch *channel) passed(ctx context.Context, ended <-chan struct{}) bool {
	if _, err, _ := ch.exchange(ctx, &nats.Msg{Subject: ch.nextSubject(), Data: fenceRequest}); err != nil {
		return false
	}
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// fetch adds up to n values that the server has now. The first ones are those that
// it could not send: they would otherwise come before values that are returned now.
func (ch *channel) fetch(ctx context.Context, w *withdrawal, n int) {
	nc := ch.conn.nc
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // nothing to do if the connection is closed
	asked := time.Now()
	if nc.PublishRequest(ch.nextSubject(), sub.Subject, fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, n)) != nil {
		return
	}
	for range n {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return
		}
		d, err := ch.readValue(m)
		if err != nil { // the server has no more
			return
		}
		ch.mu.Lock()
		d.leaseLocked(asked)
		if ch.gone {
			d.say(sayBack)
		} else {
			w.addLocked(d)
		}
		ch.mu.Unlock()
	}
}
