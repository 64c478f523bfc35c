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

// untilQuit returns a context that ends with the connection, or when it is
// cancelled.
func (ch *channel) untilQuit() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-ch.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// keep does the periodic work: it tells the server which values are in flight here, asks
// for values again when a request was lost, checks whether the channel is closed in
// case it missed that, and looks for stuck values.
func (ch *channel) keep() {
	defer ch.conn.tasks.Done()
	ctx, cancel := ch.untilQuit()
	defer cancel()
	var seen chan struct{}
	var swept sweep
	told := false        // somebody has said that the channel is closed, and that has not been looked up
	var polled time.Time // when a waiter for room was last let try without being told of any
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
		told, ch.told = told || ch.told, false
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
		if told && ch.look(ctx) == nil {
			told = false
		}
		if !swept.done {
			ch.sweep(ctx, &swept)
		}
		ch.extend()
		ch.mu.Lock()
		ch.askLocked()
		wait := ch.lease / 3
		if pause := ch.withdrawLocked(); pause >= 0 {
			wait = min(wait, pause)
		}
		if pause := time.Until(ch.askAfter); pause > 0 {
			wait = min(wait, pause)
		}
		if len(ch.blocked) > 0 {
			if time.Since(polled) >= chanPoll { // not each time one comes back from trying
				ch.wakeLocked(1)
				polled = time.Now()
			}
			wait = min(wait, time.Until(polled.Add(chanPoll)))
		} else if ch.samples != nil && len(ch.offers) == 0 {
			if try := chanAnswer - time.Since(ch.woken); try > 0 { // it may be about to wait again
				wait = min(wait, try)
			} else {
				ch.unsampleLocked()
			}
		}
		ch.mu.Unlock()
		beat.Reset(wait)
	}
}

// sweep is the progress of the search for stuck values.
type sweep struct {
	upto uint64 // later values cannot be stuck
	done bool
}

// sweep removes stuck values. A server that stops may have recorded that a value is
// done without having removed it; the value then takes up room for ever, and nobody
// receives it. What cannot be found out this time is left to the next beat.
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
		m, err := ch.values.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(chanPrefix+ch.config.Name)) // the first one left
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
