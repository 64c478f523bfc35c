package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// chanHand is a value in hand.
type chanHand struct {
	ch     *channel
	data   []byte
	reply  string // of the server's message
	offer  string // with capacity 0: where to ask the sender for the value
	seq    uint64
	server string    // the server that gave it
	at     time.Time // when its lease began; guarded by channel.mu
	asked  time.Time // when the server was last asked to extend it; guarded by channel.mu
}

// say tells the server something about the value, if it can.
func (h *chanHand) say(what []byte) { _ = h.ch.conn.nc.Publish(h.reply, what) }

// release lets the server give the value to another receiver.
func (h *chanHand) release() {
	h.ch.mu.Lock()
	defer h.ch.mu.Unlock()
	h.releaseLocked()
}

// releaseLocked is release. Once the lease has ended the server has given the value
// to another receiver, or is about to, and would give it to one more. After a
// restart that lost the value another one may have its number.
func (h *chanHand) releaseLocked() {
	if h.leasedLocked() && (h.ch.config.Durability != driver.DurableMemory || h.given(h.ch.conn.nc.ConnectedServerId())) {
		h.say(sayBack)
	}
}

// letGo takes the value out of hand. It reports whether it was in hand.
func (h *chanHand) letGo() bool {
	h.ch.mu.Lock()
	defer h.ch.mu.Unlock()
	_, held := h.ch.hands[h]
	delete(h.ch.hands, h)
	return held
}

// ours reports whether nobody else can have received the value.
func (h *chanHand) ours() bool { return h.leased() && h.given(h.ch.conn.nc.ConnectedServerId()) }

// given reports whether a server, "" while there is no connection to one, can know
// that the value is in hand.
func (h *chanHand) given(server string) bool {
	return h.ch.spread || server == "" || h.server == server
}

// leased reports whether the lease has not ended.
func (h *chanHand) leased() bool {
	h.ch.mu.Lock()
	defer h.ch.mu.Unlock()
	return h.leasedLocked()
}

func (h *chanHand) leasedLocked() bool { return time.Since(h.at) < h.ch.lease }

// extend asks the server to extend the leases of the values in hand. A value whose
// lease has ended may be in other hands.
func (ch *channel) extend() {
	c := ch.conn
	if !c.state.connected() {
		return
	}
	server, now := c.nc.ConnectedServerId(), time.Now()
	var due []*chanHand
	ch.mu.Lock()
	for h := range ch.hands {
		if h.given(server) && h.leasedLocked() && now.Sub(h.at) > ch.lease/4 && now.Sub(h.asked) > ch.lease/4 {
			h.asked = now
			due = append(due, h)
		}
	}
	ch.mu.Unlock()
	for _, h := range due {
		token, reply := c.acks.expect(chanExtension{h, now})
		if c.nc.PublishRequest(h.reply, reply, sayAtWork) != nil {
			c.acks.forget(token) // it is asked again before the lease ends
		}
	}
}

// chanExtension is a request to extend the lease of a value, and when it was made.
type chanExtension struct {
	h  *chanHand
	at time.Time
}

// acked implements waiter. After the end of the lease, the server may have extended
// that of the next receiver.
func (e chanExtension) acked(_ uint64, _ ack, err error) {
	e.h.ch.mu.Lock()
	defer e.h.ch.mu.Unlock()
	if err == nil && e.h.leasedLocked() {
		e.h.at = e.at
	}
}

// done implements ChanValue.Done.
func (h *chanHand) done(ctx context.Context) error {
	ch := h.ch
	defer h.letGo()
	if h.offer != "" {
		return h.want(ctx)
	}
	ch.mu.Lock()
	_, held := ch.hands[h]
	ch.mu.Unlock()
	if !held {
		return errConnClosed
	}
	if ch.spread {
		return h.remove(ctx)
	}
	var unsure time.Time
	var pause chanPause
	for {
		if !h.ours() {
			if unsure.IsZero() {
				h.release()
				return driver.ErrEnded
			}
			return h.resolve(ctx)
		}
		begin := time.Now()
		err, sent := h.report(ctx)
		switch {
		case err == nil:
			return nil
		case !ch.passes(err):
			return orUnsure(kind(err), unsure)
		}
		if sent && unsure.IsZero() {
			unsure = begin
		}
		if err := ch.recover(ctx, errNoAnswer, &pause); err != nil {
			return orUnsure(err, unsure)
		}
	}
}

// doneGroup is values that receivers report as done at the same time. The server
// handles what one connection tells it about a consumer in order, so its answer to
// the last of them confirms them all.
type doneGroup struct {
	replies []string
	over    chan struct{} // closed once the fields below are set
	err     error
	sent    bool
}

// report tells the server that the value is done, and waits for the answer as
// exchange does.
func (h *chanHand) report(ctx context.Context) (err error, sent bool) {
	ch := h.ch
	ch.mu.Lock()
	g := ch.dones
	first := g == nil
	if first {
		g = &doneGroup{over: make(chan struct{})}
		ch.dones = g
	}
	g.replies = append(g.replies, h.reply)
	ch.mu.Unlock()
	if !first {
		<-g.over // the first one waits no longer than exchange does
		return g.err, g.sent
	}
	runtime.Gosched() // others may just be about to report
	ch.mu.Lock()
	ch.dones = nil
	ch.mu.Unlock()
	g.err, g.sent = ch.reportAll(ctx, g.replies)
	close(g.over)
	return g.err, g.sent
}

// reportAll reports values as done.
func (ch *channel) reportAll(ctx context.Context, replies []string) (err error, sent bool) {
	c := ch.conn
	epoch, last := c.state.epoch(), len(replies)-1
	for i, reply := range replies[:last] {
		if err := c.nc.Publish(reply, sayDone); err != nil {
			return err, i > 0 // those before it
		}
	}
	_, err, sent = ch.exchange(ctx, &nats.Msg{Subject: replies[last], Data: sayDone})
	if err == nil && c.state.epoch() != epoch { // those before the last may be lost with the connection
		err = errNoAnswer
	}
	return err, sent || last > 0
}

// remove is done on several servers. There the consumer and the values have
// separate leaders: an acknowledgement is answered before the value is removed, and
// is lost if the leader of the values dies in between. So the value is removed
// first. The servers order removals with everything else, perform each once, and
// confirm it to one receiver only.
func (h *chanHand) remove(ctx context.Context) error {
	ch := h.ch
	m := &nats.Msg{Subject: ch.conn.apiPrefix() + "STREAM.MSG.DELETE." + ch.stream, Data: deleteRequest(h.seq)}
	var unsure time.Time
	var pause chanPause
	for {
		if unsure.IsZero() && !h.leased() {
			return driver.ErrEnded
		}
		begin := time.Now()
		_, err, sent := ch.exchange(ctx, m)
		switch {
		case err == nil:
			h.say(sayDone)
			_ = ch.conn.nc.Publish(chanWaitPrefix+ch.config.Name, nil) // if it is lost, they look now and then anyway
			return nil
		case isRemoved(err) && unsure.IsZero():
			return driver.ErrEnded
		case isRemoved(err):
			return fmt.Errorf("%w: the value was removed, but a server did not answer, so it is not known by whom", driver.ErrUnsure)
		case !ch.passes(err) && apiCode(err) != codeNotDeleted:
			return orUnsure(kind(err), unsure)
		}
		if sent && unsure.IsZero() {
			unsure = begin
		}
		if err := ch.recover(ctx, err, &pause); err != nil {
			return orUnsure(err, unsure)
		}
	}
}

// codeNotDeleted is the error of a server that could not remove a message; only its
// text gives the reason.
const codeNotDeleted = 10057

// isRemoved reports whether removing a message failed because the message does not
// exist.
func isRemoved(err error) bool {
	switch apiCode(err) {
	case 10037, 10043: // no message, no such sequence
		return true
	case codeNotDeleted: // otherwise the disk of this server may be full while others have removed it
		return strings.Contains(err.Error(), "no message found") || strings.Contains(err.Error(), "stream store EOF")
	}
	return false
}

// deleteRequest encodes a request to remove a message.
func deleteRequest(seq uint64) []byte { return fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq) }

// resolve finds out whether the server learned that the value is done before others
// could get it.
func (h *chanHand) resolve(ctx context.Context) error {
	ch := h.ch
	if ch.restarted(h.server) {
		h.release()
		return fmt.Errorf("%w: the server was restarted", driver.ErrUnsure)
	}
	here := false
	err := ch.conn.state.do(ctx, func(ctx context.Context) error {
		_, err := ch.values.GetMsg(ctx, h.seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return chanError(ctx, err)
		}
		here = true
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", driver.ErrUnsure, err)
	case here: // somebody else has it, or gets it
		return driver.ErrEnded
	}
	return fmt.Errorf("%w: %w", driver.ErrUnsure, errNoAnswer)
}

// giveBack implements ChanValue.Return.
func (h *chanHand) giveBack(ctx context.Context) error {
	if !h.letGo() {
		return errConnClosed
	}
	if !h.ours() {
		return driver.ErrEnded
	}
	return h.ch.conn.state.do(ctx, func(context.Context) error { return h.ch.conn.nc.Publish(h.reply, sayBack) })
}
