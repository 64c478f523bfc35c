package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// ackedMember is a groupMember whose client acknowledges each message. A message
// that is not acknowledged in time, or that the client returns, goes to another
// member of the group, or comes again.
type ackedMember struct {
	*groupMember
	wait time.Duration // for an acknowledgement, at most

	mu      sync.Mutex // guards unacked
	unacked map[uint64]unackedMessage
	room    chan struct{} // has a token when the client may get more messages
}

// unackedMessage is a message that a client has and has not acknowledged.
type unackedMessage struct {
	m     *driver.Received
	since time.Time
}

func newAckedMember(g *groupMember, wait time.Duration) *ackedMember {
	return &ackedMember{groupMember: g, wait: wait, unacked: map[uint64]unackedMessage{}, room: make(chan struct{}, 1)}
}

// next implements source. While the client has as many messages as it may have, it
// waits for acknowledgements.
func (a *ackedMember) next(ctx context.Context, beat <-chan time.Time) (p frameBatch, err error) {
	for until := time.Now().Add(a.timeout); ; {
		a.mu.Lock()
		room := a.window - len(a.unacked)
		a.mu.Unlock()
		if room > 0 {
			ms, err := a.receive(ctx, room, time.Until(until))
			if errors.Is(err, errNothingYet) {
				return p, nil
			}
			if err != nil {
				return p, err
			}
			p.frames, err = a.frames(ctx, ms)
			a.hold(p.frames)
			switch {
			case err != nil, len(p.frames) > 0:
				return p, err
			case ctx.Err() != nil: // Receive returns what is there, even then
				return p, context.Cause(ctx)
			case !time.Now().Before(until):
				return p, nil
			}
			continue
		}
		select {
		case <-a.room:
			until = time.Now().Add(a.timeout)
		case <-beat:
			return p, nil
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

func (a *ackedMember) hold(frames []*frame) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range frames {
		a.unacked[f.seq] = unackedMessage{f.received, now}
	}
}

// written implements source. It does nothing: the client itself acknowledges.
func (a *ackedMember) written(context.Context) error { return nil }

// settle carries out what a client says about messages. It ignores messages that
// are no longer in flight: the client was too late.
func (a *ackedMember) settle(ctx context.Context, said clientMessage) error {
	if err := a.sub.Ack(ctx, a.release(said.Ack)); err != nil {
		return err
	}
	return a.sub.Return(ctx, a.release(said.Nack))
}

// release forgets messages that the client has acknowledged or returned, and returns
// those that it had.
func (a *ackedMember) release(seqs []uint64) (ms []*driver.Received) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, seq := range seqs {
		if h, ok := a.unacked[seq]; ok {
			delete(a.unacked, seq)
			ms = append(ms, h.m)
		}
	}
	select {
	case a.room <- struct{}{}:
	default:
	}
	return ms
}

// watch returns messages that are not acknowledged in time, until ctx ends.
func (a *ackedMember) watch(ctx context.Context) error {
	tick := time.NewTicker(min(a.wait, ackWait) / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := a.review(ctx, now); err != nil {
				return err
			}
		}
	}
}

// review returns the messages that are not acknowledged in time.
func (a *ackedMember) review(ctx context.Context, now time.Time) error {
	var late []uint64
	a.mu.Lock()
	for seq, h := range a.unacked {
		if now.Sub(h.since) >= a.wait {
			late = append(late, seq)
		}
	}
	a.mu.Unlock()
	if len(late) == 0 {
		return nil
	}
	return a.sub.Return(ctx, a.release(late))
}
