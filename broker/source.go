package broker

import (
	"context"
	"errors"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
)

// source is where a client over HTTP gets messages from.
type source interface {
	// next waits until there is something for the client, and returns with an
	// empty batch when beat ticks, or now and then. It returns the cause when ctx
	// ends. The batch is valid until the next call.
	next(ctx context.Context, beat <-chan time.Time) (frameBatch, error)
	// written says that what next has returned has been written out.
	written(ctx context.Context) error
	// close ends it.
	close(ctx context.Context) error
}

// written implements source. Nobody counts on it.
func (w *follower) written(context.Context) error { return nil }

// heartbeat is how often a client is written to if there is nothing to say.
const heartbeat = 15 * time.Second

// groupMember gives one client its share of what a group gets.
type groupMember struct {
	sub    driver.Subscription
	filter *filter.Filter
	maker  *frameMaker
	mark   string // of the stored topic; empty where events have no IDs
	window int
	// timeout is how long next waits.
	timeout time.Duration
	gathers bool               // it waits a little for more, up to its window
	sent    []*driver.Received // given to the client and not acknowledged
	letGo   func()             // stops extending the leases of what it has; nil if nothing is stored
}

// next implements source.
func (g *groupMember) next(ctx context.Context, _ <-chan time.Time) (p frameBatch, err error) {
	most, until := g.window, time.Now().Add(g.timeout)
	for {
		ms, err := g.receive(ctx, most, time.Until(until))
		if errors.Is(err, errNothingYet) {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		frames, err := g.frames(ctx, ms)
		if err != nil {
			return p, err
		}
		for _, f := range frames {
			g.sent = append(g.sent, f.received)
		}
		p.frames = append(p.frames, frames...)
		most -= len(frames)
		switch {
		case most == 0, len(frames) > 0 && !g.gathers:
			return p, nil
		case len(frames) > 0:
			until = time.Now().Add(gatherTimeout)
		case ctx.Err() != nil: // Receive returns what is there, even then
			return p, context.Cause(ctx)
		case !time.Now().Before(until):
			return p, nil
		}
	}
}

// gatherTimeout is how long one who gathers waits for one message more that is for the client.
const gatherTimeout = 50 * time.Millisecond

// receive receives, or returns errNothingYet.
func (g *groupMember) receive(ctx context.Context, most int, timeout time.Duration) ([]*driver.Received, error) {
	wait, cancel := context.WithTimeoutCause(ctx, timeout, errNothingYet)
	defer cancel()
	ms, err := g.sub.Receive(wait, most)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return ms, err
}

// frames makes frames of those messages that are for the client, and acknowledges the
// others: they are for nobody in the group.
func (g *groupMember) frames(ctx context.Context, ms []*driver.Received) (frames []*frame, err error) {
	var others []*driver.Received
	for _, m := range ms {
		if g.filter != nil && !g.filter.Match(&Event{Message: m}) {
			others = append(others, m)
			continue
		}
		f, err := g.maker.frame(m, g.mark)
		if err != nil {
			return nil, err
		}
		f.received = m
		frames = append(frames, f)
	}
	if len(others) > 0 {
		err = g.sub.Ack(ctx, others)
	}
	return frames, err
}

var errNothingYet = errors.New("nothing has come yet")

// written implements source: what has been written out is done.
func (g *groupMember) written(ctx context.Context) error {
	err := g.sub.Ack(ctx, g.sent)
	g.sent = g.sent[:0]
	return err
}

// close implements source: what has not been written out goes back to the group.
func (g *groupMember) close(ctx context.Context) error {
	if g.letGo != nil {
		g.letGo()
	}
	return g.sub.Close(ctx)
}
