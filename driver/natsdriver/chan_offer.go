package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// With capacity 0 the stream stores offers: the value, and where to ask its sender
// for it. The sender gives it to one receiver, by answering yes, so it alone
// decides whether the value was sent. If the value was not sent, because the
// sender's context has ended or the channel is closed, nobody gets it, whatever is
// left of the offer.

// harkOffer is the header with the subject on which to ask for an offer.
const harkOffer = "hark-offer"

// chanOffer is a value whose sender waits for a receiver.
type chanOffer struct {
	id    string
	taken chan struct{} // closed once a receiver has it
	claim string        // the receiver that has it
	at    time.Time     // when it got it
}

// tryOffer is how long a receiver waiting in Receive has to take a value sent with
// try: it may have left without the server knowing. On several servers, which have to
// agree on the offer first, and if one waits in this process, which may just be busy, it
// has chanAnswer.
const tryOffer = 250 * time.Millisecond

// keepOffers is how long the receiver of an offer may ask again because it did not
// hear the answer.
var keepOffers = 30 * time.Second

// The answers of a sender.
var (
	sayYes = []byte(`{"seq":1}`)
	sayNo  = []byte(`{"seq":0}`)
)

// offer is Send with capacity 0.
func (ch *channel) offer(ctx context.Context, data []byte, try bool) error {
	if try {
		if err := ch.refuses(); err != nil {
			return err
		}
		room, err := ch.hasRoom(ctx)
		if err != nil {
			return err
		}
		if !room {
			if err := ch.look(ctx); err != nil { // the channel may be closed
				return err
			}
			if err := ch.refuses(); err != nil {
				return err
			}
			return driver.ErrAgain
		}
		patience := tryOffer
		if _, receivers := ch.Waiting(); ch.spread || receivers > 0 {
			patience = chanAnswer
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, driver.ErrAgain)
		defer cancel()
	}
	o := &chanOffer{id: ch.conn.ids.next(), taken: make(chan struct{})}
	m := ch.message(chanPrefix, data)
	setNATSHeader(m, harkOffer, ch.claims+"."+o.id)
	if err := ch.conn.fits(m); err != nil {
		return err
	}
	ch.mu.Lock()
	ch.offers[o.id] = o
	ch.mu.Unlock()
	var seq uint64
	var pause chanPause
	for {
		again, at, err := ch.present(ctx, o, m, &pause)
		seq = max(seq, at)
		if again && err == nil {
			continue
		}
		if ch.withdraw(o) { // a receiver has it
			return nil
		}
		if seq > 0 {
			ch.delete(seq)
		}
		return err
	}
}

// present stores an offer and waits until it is taken, or must be stored again
// because the connection was lost.
func (ch *channel) present(ctx context.Context, o *chanOffer, m *nats.Msg, pause *chanPause) (again bool, seq uint64, err error) {
	ch.mu.Lock()
	epoch := ch.epoch
	err = ch.refusesLocked()
	ch.mu.Unlock()
	if err != nil {
		return false, 0, err
	}
	w := &ackWaiter{done: make(chan struct{}, 1)}
	token, reply := ch.conn.acks.expect(w)
	m.Reply = reply
	if err := ch.conn.nc.PublishMsg(m); err != nil {
		ch.conn.acks.forget(token)
		if !ch.passes(err) {
			return false, 0, kind(err)
		}
		return true, 0, ch.recover(ctx, err, pause)
	}
	stored := w.done
	late := time.NewTimer(chanAnswer)
	defer late.Stop()
	defer ch.conn.acks.forget(token)
	counted := 0
	defer func() {
		ch.mu.Lock()
		ch.offered -= counted
		ch.mu.Unlock()
	}()
	for {
		select {
		case <-o.taken:
			return false, 0, nil
		case <-stored:
			stored = nil
			switch err := w.err; {
			case err == nil:
				seq = w.ack.Seq
				late.Stop()
				ch.mu.Lock()
				counted = 1
				ch.offered++
				ch.mu.Unlock()
			case isClosedError(err):
				ch.setClosed()
				return false, 0, errChanClosed
			case ch.passes(err):
				return true, 0, ch.recover(ctx, err, pause)
			default:
				return false, 0, kind(storeError(err))
			}
		case <-late.C:
			return true, 0, ch.recover(ctx, errNoAnswer, pause)
		case <-epoch: // its receivers may have failed to reach its sender
			return true, seq, ch.recover(ctx, errNoAnswer, pause)
		case <-ch.over:
			return false, seq, cmp.Or(ch.refuses(), errChanClosed)
		case <-ctx.Done():
			return false, seq, context.Cause(ctx)
		}
	}
}

// withdraw takes an offer back. It reports whether a receiver already has it.
func (ch *channel) withdraw(o *chanOffer) (taken bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for len(ch.decided) > 0 && time.Since(ch.decided[0].at) > keepOffers {
		delete(ch.offers, ch.decided[0].id)
		ch.decided = slices.Delete(ch.decided, 0, 1)
	}
	if o.claim == "" {
		delete(ch.offers, o.id)
		return false
	}
	return true
}

// claimed answers a receiver that asks for an offer.
func (ch *channel) claimed(m *nats.Msg) {
	id, claim := lastToken(m.Subject), string(m.Data)
	if claim == "" { // it is not from a receiver
		return
	}
	ch.mu.Lock()
	o := ch.offers[id]
	yes, first := false, false
	if o != nil && !ch.gone {
		first = o.claim == "" && !ch.closed
		yes = first || o.claim == claim
		if first {
			o.claim, o.at = claim, time.Now()
			ch.decided = append(ch.decided, o)
		}
	}
	ch.mu.Unlock()
	answer := sayNo
	if yes {
		answer = sayYes
	}
	_ = ch.conn.nc.Publish(m.Reply, answer) // if it is lost, the receiver asks again
	if first {
		close(o.taken)
	}
}

// isOfferSubject reports whether a sender can have put this subject into an offer. The
// client passes any text on to the server, which closes the connection on some.
func isOfferSubject(subject string) bool {
	return !strings.HasPrefix(subject, "$") && !strings.ContainsAny(subject, "*> \t\r\n")
}

// want asks the sender of an offer for the value.
func (d *chanDelivery) want(ctx context.Context) error {
	ch := d.ch
	if !isOfferSubject(d.offer) { // it has no sender
		d.say(sayDone)
		return driver.ErrEnded
	}
	claim := ch.conn.ids.next()
	var asked time.Time
	var pause chanPause
	for {
		if !asked.IsZero() && time.Since(asked) > keepOffers-2*chanAnswer { // a no could mean that it has forgotten its yes
			return orUnsure(errNoAnswer, asked)
		}
		begin := time.Now()
		a, err, sent := ch.exchange(ctx, &nats.Msg{Subject: d.offer, Data: []byte(claim)})
		switch {
		case err == nil && a.Seq == 1:
			d.say(sayDone)
			return nil
		case err == nil, errors.Is(err, nats.ErrNoResponders) && asked.IsZero():
			d.say(sayDone) // nobody can get it any more
			return driver.ErrEnded
		case errors.Is(err, nats.ErrNoResponders):
			return orUnsure(err, asked)
		case !ch.passes(err):
			return kind(err)
		}
		if sent && asked.IsZero() {
			asked = begin
		}
		if err := ch.recover(ctx, errNoAnswer, &pause); err != nil {
			return orUnsure(err, asked)
		}
	}
}
