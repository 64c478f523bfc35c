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

// chanDelivery is a value in flight: the server sent it here, and it is neither done
// nor returned.
type chanDelivery struct {
	ch     *channel
	data   []byte
	reply  string // of the server's message
	offer  string // with capacity 0: where to ask the sender for the value
	seq    uint64
	stored time.Time // by the server's clock
	shared bool      // somebody else may have it too
	server string    // the server that gave it
	at     time.Time // when its lease began; guarded by channel.mu
	asked  time.Time // when the server was last asked to extend it; guarded by channel.mu
}

// say tells the server something about the value, if it can.
func (d *chanDelivery) say(what []byte) { _ = d.ch.conn.nc.Publish(d.reply, what) }

// release lets the server give the value to another receiver.
func (d *chanDelivery) release() {
	d.ch.mu.Lock()
	defer d.ch.mu.Unlock()
	d.releaseLocked()
}

func (d *chanDelivery) releaseLocked() {
	if d.releasableLocked() {
		d.say(sayBack)
	}
}

// releasableLocked reports whether the value can be released. Once the lease has
// ended the server has given it to another receiver, or is about to, and would give
// it to one more. After a restart that lost the value another one may have its number.
func (d *chanDelivery) releasableLocked() bool {
	return d.leasedLocked() && (d.ch.config.Durability != driver.DurableMemory || d.given(d.ch.conn.nc.ConnectedServerId()))
}

// end notes that the value is no longer in flight. It reports whether it was.
func (d *chanDelivery) end() bool {
	d.ch.mu.Lock()
	defer d.ch.mu.Unlock()
	_, held := d.ch.deliveries[d]
	delete(d.ch.deliveries, d)
	return held
}

// ours reports whether nobody else can have received the value.
func (d *chanDelivery) ours() bool { return d.leased() && d.given(d.ch.conn.nc.ConnectedServerId()) }

// given reports whether a server, "" while there is no connection to one, can know
// that the value is in flight here.
func (d *chanDelivery) given(server string) bool {
	return d.ch.spread || server == "" || d.server == server
}

// leased reports whether the lease has not ended.
func (d *chanDelivery) leased() bool {
	d.ch.mu.Lock()
	defer d.ch.mu.Unlock()
	return d.leasedLocked()
}

func (d *chanDelivery) leasedLocked() bool { return time.Since(d.at) < d.ch.lease }

// extend asks the server to extend the leases of the values in flight. One whose
// lease has ended may have gone to another receiver.
func (ch *channel) extend() {
	c := ch.conn
	if !c.state.connected() {
		return
	}
	server, now := c.nc.ConnectedServerId(), time.Now()
	var due []*chanDelivery
	ch.mu.Lock()
	for d := range ch.deliveries {
		if d.given(server) && d.leasedLocked() && now.Sub(d.at) > ch.lease/4 && now.Sub(d.asked) > ch.lease/4 {
			d.asked = now
			due = append(due, d)
		}
	}
	ch.mu.Unlock()
	for _, d := range due {
		token, reply := c.acks.expect(chanExtension{d, now})
		if c.nc.PublishRequest(d.reply, reply, sayAtWork) != nil {
			c.acks.forget(token) // it is asked again before the lease ends
		}
	}
}

// chanExtension is a request to extend the lease of a value, and when it was made.
type chanExtension struct {
	d  *chanDelivery
	at time.Time
}

// acked implements waiter. After the end of the lease, the server may have extended
// that of the next receiver.
func (e chanExtension) acked(_ uint64, _ ack, err error) {
	e.d.ch.mu.Lock()
	defer e.d.ch.mu.Unlock()
	if err == nil && e.d.leasedLocked() {
		e.d.at = e.at
	}
}

// done implements ChanValue.Done.
func (d *chanDelivery) done(ctx context.Context) error {
	ch := d.ch
	defer d.end()
	if d.offer != "" {
		return d.want(ctx)
	}
	ch.mu.Lock()
	_, held := ch.deliveries[d]
	ch.mu.Unlock()
	if !held {
		return errConnClosed
	}
	if ch.spread || d.shared {
		return d.remove(ctx)
	}
	var unsure time.Time
	var pause chanPause
	for {
		if !d.ours() {
			if unsure.IsZero() {
				d.release()
				return driver.ErrEnded
			}
			return d.resolve(ctx)
		}
		begin := time.Now()
		err, sent := d.report(ctx)
		switch {
		case err == nil && d.leased():
			return nil
		case err == nil: // it may have come too late
			unsure = begin
			continue
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
func (d *chanDelivery) report(ctx context.Context) (err error, sent bool) {
	ch := d.ch
	ch.mu.Lock()
	g := ch.dones
	first := g == nil
	if first {
		g = &doneGroup{over: make(chan struct{})}
		ch.dones = g
	}
	g.replies = append(g.replies, d.reply)
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

// remove is done for a value that somebody else may have too, and on several
// servers. There the consumer and the values have separate leaders: an
// acknowledgement is answered before the value is removed, and is lost if the leader
// of the values dies in between. So the value is removed first. The servers order
// removals with everything else, perform each once, and confirm it to one receiver
// only. A single server must not have been restarted: if it lost the value, another
// one may have its number.
func (d *chanDelivery) remove(ctx context.Context) error {
	ch := d.ch
	m := &nats.Msg{Subject: ch.conn.apiPrefix() + "STREAM.MSG.DELETE." + ch.stream, Data: deleteRequest(d.seq)}
	var unsure time.Time
	var pause chanPause
	for {
		switch {
		case unsure.IsZero() && !d.ours():
			d.release()
			return driver.ErrEnded
		case ch.restarted(d.server):
			d.release()
			return errRestarted
		}
		begin := time.Now()
		_, err, sent := ch.exchange(ctx, m)
		switch {
		case err == nil:
			d.say(sayDone)
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

var errRestarted = fmt.Errorf("%w: the server was restarted", driver.ErrUnsure)

// resolve finds out whether the server learned that the value is done before others
// could get it.
func (d *chanDelivery) resolve(ctx context.Context) error {
	ch := d.ch
	if ch.restarted(d.server) {
		d.release()
		return errRestarted
	}
	here := false
	err := ch.conn.state.do(ctx, func(ctx context.Context) error {
		_, err := ch.values.GetMsg(ctx, d.seq)
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
func (d *chanDelivery) giveBack(ctx context.Context) error {
	if !d.end() {
		return errConnClosed
	}
	if !d.ours() {
		return driver.ErrEnded
	}
	return d.ch.conn.state.do(ctx, func(context.Context) error { return d.ch.conn.nc.Publish(d.reply, sayBack) })
}
