package natsdriver

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// chanReceiver is a caller waiting for a value.
type chanReceiver struct {
	id       string        // of a try
	done     chan struct{} // closed by finish
	delivery *chanDelivery
	err      error
}

func (r *chanReceiver) finish(d *chanDelivery, err error) {
	r.delivery, r.err = d, err
	close(r.done)
}

// Receive implements driver.Chan.
func (ch *channel) Receive(ctx context.Context, try bool) (*driver.ChanValue, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var lost chanPause
	for pause := time.Millisecond; ; pause = min(2*pause, chanPoll) {
		ch.mu.Lock()
		gone, closed := ch.gone, ch.closed
		ch.mu.Unlock()
		switch {
		case gone:
			return nil, errConnClosed
		case closed && ch.config.Capacity == 0:
			return nil, errChanClosed
		}
		d, err := ch.next(ctx, try || closed)
		switch {
		case err == nil:
			return &driver.ChanValue{Data: d.data, Done: d.done, Return: d.giveBack}, nil
		case errors.Is(err, errCut), errors.Is(err, errNoConsumer):
			if err := ch.recover(ctx, nats.ErrNoResponders, &lost); err != nil {
				return nil, err
			}
			continue
		case !errors.Is(err, driver.ErrAgain):
			return nil, err
		}
		if closed { // it is over once no value is in flight either
			n, err := ch.Len(ctx)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return nil, errChanClosed
			}
		}
		if try {
			none, err := ch.confirm(ctx)
			if err != nil {
				return nil, err
			}
			ch.mu.Lock()
			found := ch.closed && !closed
			ch.mu.Unlock()
			switch {
			case found:
				continue
			case none:
				return nil, driver.ErrAgain
			}
		}
		select { // a value is in flight, or is stored and about to reach the consumer
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// confirm reports whether there is nothing to receive, and finds out whether the
// channel is closed. A server may answer a try before it has told its consumer of a
// value already stored.
func (ch *channel) confirm(ctx context.Context) (none bool, err error) {
	err = ch.conn.state.do(ctx, func(ctx context.Context) error {
		name := ch.config.Name
		info, err := ch.values.Info(ctx, jetstream.WithSubjectFilter("$HARK.*."+name))
		if err != nil {
			return chanError(ctx, err)
		}
		if info.State.Subjects[chanEndPrefix+name] > 0 {
			ch.setClosed()
		}
		if none = info.State.Subjects[chanPrefix+name] == 0; none {
			return nil
		}
		consumer, err := ch.values.Consumer(ctx, chanConsumer)
		if err != nil {
			return chanError(ctx, err)
		}
		// Everything before the consumer's place is in flight, or has been. On
		// several servers its own counts trail what is stored and removed.
		next := consumer.CachedInfo().Delivered.Stream + 1
		_, err = ch.values.GetMsg(ctx, next, jetstream.WithGetMsgSubject(chanPrefix+name))
		if none = errors.Is(err, jetstream.ErrMsgNotFound); none || err == nil {
			return nil
		}
		return chanError(ctx, err)
	})
	return none, err
}

// next receives a value; with try it returns driver.ErrAgain if there is none.
func (ch *channel) next(ctx context.Context, try bool) (*chanDelivery, error) {
	r := &chanReceiver{done: make(chan struct{})}
	d, err := ch.enter(ctx, r, try)
	if d != nil || err != nil {
		return d, err
	}
	if try {
		err = r.awaitTry(ctx)
	} else {
		err = ch.await(ctx, r)
	}
	if err != nil {
		return ch.leave(r, err)
	}
	return r.delivery, r.err
}

// enter makes r wait for a value, unless it returns one that is here already.
func (ch *channel) enter(ctx context.Context, r *chanReceiver, try bool) (*chanDelivery, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if err := ch.awaitWithdrawalLocked(ctx); err != nil {
		return nil, err
	}
	switch {
	case ch.gone:
		return nil, errConnClosed
	case len(ch.spare) > 0:
		d := ch.spare[0]
		ch.spare = slices.Delete(ch.spare, 0, 1)
		ch.left = time.Now()
		return d, nil
	case ch.closed && ch.config.Capacity == 0:
		return nil, errChanClosed
	case try:
		return nil, ch.tryLocked(r)
	}
	ch.waitLocked(r)
	return nil, nil
}

// awaitWithdrawalLocked returns when no withdrawal is in progress. It unlocks the
// channel meanwhile.
func (ch *channel) awaitWithdrawalLocked(ctx context.Context) error {
	for ch.withdrawal != nil {
		if err := ch.awaitOver(ctx, ch.withdrawal.over); err != nil {
			return err
		}
	}
	return nil
}

func (ch *channel) awaitOver(ctx context.Context, over <-chan struct{}) error {
	ch.mu.Unlock()
	defer ch.mu.Lock()
	select {
	case <-over:
		return nil
	case <-ch.quit:
		return errConnClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tryLocked asks for one value for r, if there is one.
func (ch *channel) tryLocked(r *chanReceiver) error {
	r.id = "t" + ch.conn.ids.next()
	in, err := ch.intakeLocked()
	if err == nil {
		if in.asked == 0 {
			in.at = time.Now()
		}
		err = ch.pull(in, r.id, 1, true)
	}
	switch {
	case err == nil:
		ch.tries = append(ch.tries, r)
		return nil
	case ch.passes(err):
		return errCut
	}
	return kind(err)
}

// waitLocked adds r to the receivers, and asks for a value for each of them. It
// unlocks the channel meanwhile.
func (ch *channel) waitLocked(r *chanReceiver) {
	ch.receivers = append(ch.receivers, r)
	if ch.asking {
		return
	}
	ch.asking = true
	ch.mu.Unlock()
	runtime.Gosched() // others may be about to wait too
	ch.mu.Lock()
	ch.asking = false
	if !ch.askLocked() {
		ch.tell()
	}
}

// awaitTry returns when a try has an answer, or an error when it has waited for long
// enough.
func (r *chanReceiver) awaitTry(ctx context.Context) error {
	late := time.NewTimer(chanAnswer)
	defer late.Stop()
	select {
	case <-r.done:
		return nil
	case <-late.C:
		return errNoConsumer
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await returns when a receiver has an answer, or an error when there will be none.
func (ch *channel) await(ctx context.Context, r *chanReceiver) error {
	over, pause := ch.over, time.Millisecond
	var look <-chan time.Time
	for {
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			over = nil
		case <-look:
			pause = min(2*pause, chanPoll)
		}
		var err error
		if look, err = ch.lookLeft(ctx, pause); err != nil {
			return err
		}
	}
}

// leave removes r, which gives up because of err, unless it has got an answer.
func (ch *channel) leave(r *chanReceiver, err error) (*chanDelivery, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	from := &ch.receivers
	if r.id != "" {
		from = &ch.tries
	}
	i := slices.Index(*from, r)
	if i < 0 {
		return r.delivery, r.err
	}
	*from = slices.Delete(*from, i, i+1)
	ch.leaveLocked()
	return nil, err
}

// lookLeft serves a receiver on a closed channel. It returns errChanClosed if no
// value is left, not even in flight, and otherwise when to look again. The
// requests stay in place meanwhile: after another request the server would send one
// value too many, which nobody would receive while others get later ones.
func (ch *channel) lookLeft(ctx context.Context, pause time.Duration) (again <-chan time.Time, err error) {
	n, err := ch.Len(ctx)
	if err == nil && n == 0 {
		err = errChanClosed
	}
	if err != nil {
		return nil, err
	}
	return time.After(pause), nil
}
