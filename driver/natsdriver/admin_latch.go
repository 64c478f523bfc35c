package natsdriver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// LatchInfo is a latch as the server has it.
type LatchInfo struct {
	Name    string
	Set     bool
	Changed time.Time
}

// LatchNames returns the sorted names of the latches that match a pattern, or of
// all latches if it is empty: those that are set, and those that were cleared
// recently.
func (c *Conn) LatchNames(ctx context.Context, pattern string) ([]string, error) {
	names, err := c.streamSubjects(ctx, latchStream, latchPrefix, pattern)
	slices.Sort(names)
	return names, err
}

// LatchInfo describes a latch. A latch that nobody has set is not set.
func (c *Conn) LatchInfo(ctx context.Context, name string) (LatchInfo, error) {
	m, err := c.lastMessage(ctx, latchStream, latchPrefix+name)
	if m == nil || err != nil {
		return LatchInfo{Name: name}, err
	}
	return LatchInfo{Name: name, Set: string(m.Data) == latchSet, Changed: m.Time}, nil
}

// SetLatch sets or clears a latch, as Latch does, for a connection that does not
// listen.
func (c *Conn) SetLatch(ctx context.Context, name string, set bool) error {
	if c.js == nil {
		return c.refuse(string(driver.Latches))
	}
	var fades bool
	err := c.state.do(ctx, func(ctx context.Context) error {
		stream, err := c.ensureLatches(ctx)
		if err == nil {
			fades = stream.CachedInfo().Config.AllowMsgTTL
		}
		return err
	})
	if err == nil {
		_, err = c.storeLatch(ctx, name, set, fades)
	}
	return err
}

// lastMessage returns the newest message on a subject of a stream, or nil if there
// is none.
func (c *Conn) lastMessage(ctx context.Context, stream, subject string) (m *jetstream.RawStreamMsg, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		s, err := c.api(ctx).Stream(ctx, stream)
		if err != nil {
			return err
		}
		m, err = s.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return passing(err)
	})
	return m, err
}
