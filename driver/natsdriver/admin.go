package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// What follows is for those who run a server rather than use it: it changes
// topics and groups that others rely on.

// AlterTopic gives a stored topic that is there another retention and window of
// deduplication, and makes it one for dead letters if that is wanted, and returns what it had before. Another durability is
// ErrConflict: the topic would have to be made anew.
func (c *Conn) AlterTopic(ctx context.Context, name string, to driver.StoredConfig) (before driver.StoredConfig, err error) {
	if c.js == nil {
		return before, c.refuse(string(driver.Stored))
	}
	t := &stored{conn: c, topic: name, stream: topicStream(name), wanted: to}
	err = c.state.do(ctx, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, t.stream)
		if err != nil {
			return t.openError(ctx, err)
		}
		have, want := stream.CachedInfo().Config, t.streamConfig()
		class := durabilities[to.Durability].name
		if had := have.Metadata[metaDurability]; had != class || have.Storage != want.Storage {
			return fmt.Errorf("%w: topic %s is there with durability %s, not %s", driver.ErrConflict, name, had, class)
		}
		before = storedConfig(&have)
		have.MaxMsgs, have.MaxBytes, have.MaxAge = want.MaxMsgs, want.MaxBytes, want.MaxAge
		have.Duplicates = want.Duplicates
		if mark := deadPrefix + name; slices.Contains(want.Subjects, mark) && !slices.Contains(have.Subjects, mark) {
			have.Subjects = append(have.Subjects, mark)
		}
		if _, err := c.js.UpdateStream(ctx, have); err != nil {
			return t.openError(ctx, err)
		}
		return nil
	})
	return before, err
}

// DeleteTopic deletes a stored topic with its messages and groups. One that is
// not there is no error.
func (c *Conn) DeleteTopic(ctx context.Context, name string) error {
	return c.admin(ctx, func(ctx context.Context) error { return c.js.DeleteStream(ctx, topicStream(name)) })
}

// DeleteMessage deletes a message of a stored topic. One that is not there is no
// error.
func (c *Conn) DeleteMessage(ctx context.Context, topic string, seq uint64) error {
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, topicStream(topic))
		if err != nil {
			return err
		}
		err = stream.DeleteMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // which does not say why
			if _, getErr := stream.GetMsg(ctx, seq); errors.Is(getErr, jetstream.ErrMsgNotFound) {
				return nil
			}
		}
		return err
	})
}

// ResetGroup makes a group of a stored topic begin again at its first message
// that is not acknowledged, at once and in order, instead of when the lease of
// that message ends. It must have no members. One that is not there is no error.
func (c *Conn) ResetGroup(ctx context.Context, topic, group string) error {
	return c.admin(ctx, func(ctx context.Context) error {
		// The server does not answer for one that is not there.
		if _, err := c.js.Consumer(ctx, topicStream(topic), groupConsumer(group)); err != nil {
			return err
		}
		_, err := c.js.ResetConsumer(ctx, topicStream(topic), groupConsumer(group))
		return err
	})
}

// admin calls f until it succeeds, fails for good, or ctx ends. What is not
// there is no error.
func (c *Conn) admin(ctx context.Context, f func(ctx context.Context) error) error {
	if c.js == nil {
		return c.refuse(string(driver.Stored))
	}
	return c.state.do(ctx, func(ctx context.Context) error {
		err := f(ctx)
		for _, absent := range []error{jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound} {
			if errors.Is(err, absent) {
				return nil
			}
		}
		if isUnavailable(err) {
			return fmt.Errorf("%w: %w", driver.ErrAgain, err)
		}
		return err
	})
}

// HasTopic reports whether a stored topic is there.
func (c *Conn) HasTopic(ctx context.Context, name string) (bool, error) {
	found := false
	err := c.admin(ctx, func(ctx context.Context) error {
		_, err := c.js.Stream(ctx, topicStream(name))
		found = err == nil
		return err
	})
	return found, err
}
