package natsdriver

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// tell wakes the keeper.
func (ch *channel) tell() {
	select {
	case ch.news <- struct{}{}:
	default:
	}
}

// keep does what is to be done from time to time: it tells the server which
// values are in hand, asks again for values when that was lost, and looks
// whether the channel is closed, and for values that have got stuck, when it may
// have missed that.
func (ch *channel) keep() {
	defer ch.conn.tasks.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the channel or the return
		select {
		case <-ch.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	var seen chan struct{}
	var swept sweep
	var polled time.Time // when one who waits for room was last let try without being told
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		select {
		case <-ch.quit:
			return
		case <-ch.news:
		case <-beat.C:
		}
		ch.mu.Lock()
		epoch := ch.epoch
		ch.mu.Unlock()
		if epoch != seen {
			if ch.conn.state.await(ctx) != nil {
				return
			}
			if seen == nil || ch.look(ctx) == nil {
				seen = epoch
				swept = sweep{}
			}
		}
		if !swept.done {
			ch.sweep(ctx, &swept)
		}
		ch.mu.Lock()
		ch.askLocked()
		ch.extendLocked()
		wait := ch.lease / 3
		if rest := ch.restLocked(); rest >= 0 {
			wait = min(wait, rest)
		}
		if pause := time.Until(ch.askAfter); pause > 0 {
			wait = min(wait, pause)
		}
		if len(ch.blocked) > 0 {
			if time.Since(polled) >= chanPoll { // not whenever one comes back from trying
				ch.wakeLocked(1)
				polled = time.Now()
			}
			wait = min(wait, time.Until(polled.Add(chanPoll)))
		} else if ch.samples != nil && len(ch.offers) == 0 {
			if try := chanAnswer - time.Since(ch.woken); try > 0 { // it may be about to wait again
				wait = min(wait, try)
			} else {
				_ = ch.samples.Unsubscribe() // with a connection that is closed there is nothing to do
				ch.samples = nil
			}
		}
		ch.mu.Unlock()
		beat.Reset(wait)
	}
}

// sweep is how far the search for stuck values has come.
type sweep struct {
	upto uint64 // what came later cannot be stuck
	done bool
}

// sweep removes values that are stuck: a server that stops may have noted that
// one is done with and not have removed it yet. Then it takes its place for ever
// and nobody gets it. What cannot be found out now is found out at the next beat.
func (ch *channel) sweep(ctx context.Context, s *sweep) {
	ctx, cancel := context.WithTimeout(ctx, chanAnswer)
	defer cancel()
	if s.upto == 0 {
		info, err := ch.values.Info(ctx)
		if err != nil {
			return
		}
		s.upto = info.State.LastSeq
	}
	for {
		m, err := ch.values.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(chanPrefix+ch.config.Name)) // the first there is
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > s.upto {
			s.done = true
			return
		}
		if err != nil {
			return
		}
		consumer, err := ch.values.Consumer(ctx, chanConsumer)
		if err != nil || m.Sequence > consumer.CachedInfo().AckFloor.Stream {
			return
		}
		if err := ch.values.DeleteMsg(ctx, m.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return
		}
	}
}
