package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// chanSender is a caller waiting for room.
type chanSender struct {
	woken  chan struct{} // closed when there may be room
	silent bool          // it has no value to send yet
}

func (s *chanSender) wake() { close(s.woken) }

// ackWaiter waits for the answer to a message. It is reused once it has been told,
// or forgotten.
type ackWaiter struct {
	done chan struct{} // has a token once the answer is in
	late *time.Timer
	ack  ack
	err  error
}

var ackWaiters = sync.Pool{New: func() any {
	late := time.NewTimer(chanAnswer)
	late.Stop()
	return &ackWaiter{done: make(chan struct{}, 1), late: late}
}}

// acked implements waiter.
func (w *ackWaiter) acked(_ uint64, a ack, err error) {
	w.ack, w.err = a, err
	w.done <- struct{}{}
}

// message builds a message to a subject of the channel. The server accepts it only
// while the channel is open.
func (ch *channel) message(prefix string, data []byte) *nats.Msg {
	return ch.write(new(msgBuilder), prefix, data)
}

// write is message, built in a msgBuilder.
func (ch *channel) write(l *msgBuilder, prefix string, data []byte) *nats.Msg {
	l.begin(prefix+ch.config.Name, data)
	l.set(natsExpectSubject, chanEndPrefix+ch.config.Name)
	l.set(natsExpectSequence, "0")
	l.trim()
	return &l.msg
}

// The headers that tie storing a message to the last sequence number of a subject.
const (
	natsExpectSequence = "Nats-Expected-Last-Subject-Sequence"
	natsExpectSubject  = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// exchange publishes a message and waits for the answer; sent says whether the
// message may have been published. When ctx ends exchange goes on for a moment. If
// there is no answer it returns errNoAnswer.
func (ch *channel) exchange(ctx context.Context, m *nats.Msg) (a ack, err error, sent bool) {
	c := ch.conn
	w := ackWaiters.Get().(*ackWaiter)
	token, reply := c.acks.expect(w)
	m.Reply = reply
	if err := c.nc.PublishMsg(m); err != nil {
		if c.acks.forget(token) {
			ackWaiters.Put(w)
		}
		return a, err, false
	}
	w.late.Reset(chanAnswer)
	defer ackWaiters.Put(w)
	defer w.late.Stop()
	ended := ctx.Done()
	for {
		select {
		case <-w.done:
			return w.ack, w.err, true
		case <-ended:
			ended = nil
			w.late.Reset(chanSettle)
			continue
		case <-w.late.C:
		}
		if c.acks.forget(token) {
			return a, errNoAnswer, true
		}
		<-w.done // the answer is just arriving
		return w.ack, w.err, true
	}
}

// isClosedError reports whether the server refused a message because the channel is
// closed.
func isClosedError(err error) bool { return apiCode(err) == codeWrongSequence }

// isFull reports whether the server refused a value because there is no room.
func isFull(err error) bool {
	const tooManyOfSubject = 10077
	return apiCode(err) == tooManyOfSubject
}

// passes reports whether a message may be sent again after this error.
func (ch *channel) passes(err error) bool {
	return errors.Is(err, errNoAnswer) || errors.Is(err, nats.ErrNoResponders) || isUnavailable(err) || apiCode(err) == codeBeingWritten ||
		ch.conn.state.passes(err)
}

// chanPause is the last pause between the attempts of a call. Pauses double up to
// chanPoll. A random part keeps apart callers that stand in each other's way: a
// cluster refuses every value while it stores another one.
type chanPause time.Duration

func (p *chanPause) next() time.Duration {
	*p = min(max(2**p, chanPause(5*time.Millisecond)), chanPause(chanPoll))
	return time.Duration(*p/2 + rand.N(*p/2))
}

// recover waits until it makes sense to send again after a transient error.
func (ch *channel) recover(ctx context.Context, cause error, pause *chanPause) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ch.quit:
		return errConnClosed
	case <-time.After(pause.next()):
	}
	if err := ch.conn.state.await(ctx); err != nil {
		return err
	}
	if !errors.Is(cause, nats.ErrNoResponders) {
		return nil
	}
	if ch.config.Durability == driver.DurableMemory { // the stream may have gone with its server
		return ch.ensure(ctx)
	}
	return ch.conn.state.do(ctx, func(ctx context.Context) error {
		if _, err := ch.conn.api(ctx).Stream(ctx, ch.stream); err != nil {
			return chanError(ctx, err)
		}
		return nil
	})
}

// Send implements driver.Chan.
func (ch *channel) Send(ctx context.Context, data []byte, try bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ch.config.Capacity == 0 {
		return ch.offer(ctx, data, try)
	}
	l := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(l)
	m := ch.write(l, chanPrefix, data)
	l.set(natsMsgID, ch.conn.ids.next())
	if err := ch.conn.fits(m); err != nil {
		return err
	}
	var unsure time.Time // since when the value may have been stored
	var at string        // at which server
	var pause chanPause
	wait := !try
	for {
		if wait {
			if err := ch.queue(ctx); err != nil {
				return orUnsure(err, unsure)
			}
		}
		if err := ch.refuses(); err != nil && unsure.IsZero() {
			return err
		}
		begin, server, frees := time.Now(), ch.conn.nc.ConnectedServerId(), ch.freesSoFar()
		_, err, sent := ch.exchange(ctx, m)
		switch {
		case err == nil:
			return ch.sync(ctx)
		case isClosedError(err):
			ch.setClosed()
			return errChanClosed
		case isFull(err):
			unsure = time.Time{}
			if try {
				return driver.ErrAgain
			}
			if err := ch.block(ctx, false, frees); err != nil {
				return err
			}
			wait = false
			continue
		case !ch.passes(err):
			return orUnsure(kind(storeError(err)), unsure)
		}
		if sent && errors.Is(err, errNoAnswer) && unsure.IsZero() {
			unsure, at = begin, server
		}
		if err := ch.recover(ctx, err, &pause); err != nil {
			return orUnsure(err, unsure)
		}
		if !unsure.IsZero() && ch.forgotten(unsure, at) {
			return orUnsure(errNoAnswer, unsure)
		}
		wait = false
	}
}

// forgotten reports whether the server may have forgotten a message sent at a given
// time. It remembers messages for a limited time, and after a start only those
// still in the channel.
func (ch *channel) forgotten(since time.Time, server string) bool {
	return time.Since(since) > chanRepeat-2*chanAnswer ||
		ch.restarted(server)
}

// restarted reports whether the server may have restarted since it had this ID. It
// may then have forgotten which values were in flight, and which messages, no longer
// in the channel, it was sent.
func (ch *channel) restarted(server string) bool {
	now := ch.conn.nc.ConnectedServerId() // "" while there is no connection
	return !ch.spread && now != "" && now != server
}

// orUnsure returns err, extended to say that it is not known whether the value was
// sent if that is the case.
func orUnsure(err error, unsure time.Time) error {
	if unsure.IsZero() {
		return err
	}
	return fmt.Errorf("%w: %w", driver.ErrUnsure, err)
}

func (ch *channel) refuses() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.refusesLocked()
}

// sync returns when the values that the server has stored are on disk, if the
// durability requires that.
func (ch *channel) sync(ctx context.Context) error {
	if ch.config.Durability != driver.DurableStrict || ch.conn.opts.sync == nil {
		return nil
	}
	if err := ch.conn.opts.sync(ctx, ch.stream); err != nil {
		return fmt.Errorf("%w (the value is stored, and may not be on the disk): %w", driver.ErrUnsure, err)
	}
	return nil
}

// queue waits behind the callers that already wait for room, if any.
func (ch *channel) queue(ctx context.Context) error {
	ch.mu.Lock()
	any, frees := len(ch.blocked) > 0, ch.frees
	ch.mu.Unlock()
	if !any {
		return nil
	}
	return ch.block(ctx, false, frees)
}

// unsampleLocked ends the subscriptions that report room.
func (ch *channel) unsampleLocked() {
	for _, sub := range ch.samples {
		_ = sub.Unsubscribe() // nothing to do if the connection is closed
	}
	ch.samples = nil
}

// block waits until there may be room, which there was not when frees were so many.
func (ch *channel) block(ctx context.Context, silent bool, frees uint64) error {
	s := &chanSender{woken: make(chan struct{}), silent: silent}
	ch.mu.Lock()
	if err := ch.refusesLocked(); err != nil {
		ch.mu.Unlock()
		return err
	}
	if ch.frees != frees { // while the server said that there is none
		ch.mu.Unlock()
		return nil
	}
	ch.blocked = append(ch.blocked, s)
	if ch.samples == nil {
		for _, subject := range ch.roomSubjects() {
			if sub, err := ch.conn.nc.Subscribe(subject, func(*nats.Msg) { ch.freed() }); err == nil { // otherwise room is checked now and then
				ch.samples = append(ch.samples, sub)
			}
		}
		if ch.samples != nil {
			s.wakeSoon(ch) // room may have been freed before the server knew of the subscriptions
		}
	}
	ch.tell()
	ch.mu.Unlock()
	select {
	case <-s.woken:
		return nil
	case <-ctx.Done():
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if i := slices.Index(ch.blocked, s); i >= 0 {
		ch.blocked = slices.Delete(ch.blocked, i, i+1)
	} else {
		ch.wakeLocked(1) // it was first in line
	}
	return context.Cause(ctx)
}

// roomSubjects returns the subjects on which room is reported.
func (ch *channel) roomSubjects() []string {
	subjects := []string{chanWaitPrefix + ch.config.Name}
	if ch.config.Capacity != 0 && !ch.spread {
		subjects = append(subjects, "$JS.EVENT.METRIC.CONSUMER.ACK."+ch.stream+"."+chanConsumer)
	}
	return subjects
}

// wakeSoon takes s out of the queue again, to try at once.
func (s *chanSender) wakeSoon(ch *channel) {
	ch.blocked = slices.DeleteFunc(ch.blocked, func(o *chanSender) bool { return o == s })
	ch.woken = time.Now()
	s.wake()
}

func (ch *channel) freesSoFar() uint64 {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.frees
}

func (ch *channel) freed() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.frees++
	ch.wakeLocked(1)
}

// wakeLocked lets those that have waited longest for room try again.
func (ch *channel) wakeLocked(n int) {
	n = min(n, len(ch.blocked))
	for _, s := range ch.blocked[:n] {
		s.wake()
	}
	if ch.blocked = slices.Delete(ch.blocked, 0, n); n > 0 {
		ch.woken = time.Now()
	}
}

// Room implements driver.Chan.
func (ch *channel) Room(ctx context.Context) error {
	if ch.config.Capacity == driver.Unbounded {
		return nil
	}
	for {
		if err := ch.refuses(); errors.Is(err, errChanClosed) {
			return nil
		} else if err != nil {
			return err
		}
		frees := ch.freesSoFar()
		room, err := ch.hasRoom(ctx)
		if err != nil || room {
			return err
		}
		if err := ch.block(ctx, true, frees); err != nil && !errors.Is(err, errChanClosed) {
			return err
		}
	}
}

// hasRoom reports whether there is room, or a waiting receiver.
func (ch *channel) hasRoom(ctx context.Context) (room bool, err error) {
	if _, receivers := ch.Waiting(); ch.config.Capacity == 0 && receivers > 0 {
		return true, nil // the server may not know of them yet
	}
	err = ch.conn.state.do(ctx, func(ctx context.Context) error {
		if ch.config.Capacity > 0 {
			n, err := ch.count(ctx, chanPrefix)
			room = n < ch.config.Capacity
			return err
		}
		consumer, err := ch.conn.api(ctx).Consumer(ctx, ch.stream, chanConsumer)
		if err != nil {
			return chanError(ctx, err)
		}
		room = consumer.CachedInfo().NumWaiting > 0
		return nil
	})
	return room, err
}

// delete tries to remove a message; nobody waits for the outcome.
func (ch *channel) delete(seq uint64) {
	_, reply := ch.conn.acks.expect(nobody{})
	_ = ch.conn.nc.PublishRequest(ch.conn.apiPrefix()+"STREAM.MSG.DELETE."+ch.stream, reply, deleteRequest(seq)) // a receiver that gets it asks its sender first
}

// nobody is a waiter that ignores the answer.
type nobody struct{}

func (nobody) acked(uint64, ack, error) {}
