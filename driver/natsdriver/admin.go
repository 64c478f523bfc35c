package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The methods below are for those who operate a server rather than use it: they
// change topics and groups that others rely on.

// ErrAltered says that the settings of a topic or store have been changed, but that
// messages delayed to it may not arrive until the same change is made again.
var ErrAltered = errors.New("the settings have been changed, but delayed messages may not arrive until this is repeated")

// AlterTopic changes the retention and the deduplication window of an existing
// stored topic, makes it a topic for dead letters if that is asked for, and returns
// the settings it had before. Another durability is ErrConflict, because the topic
// would have to be recreated. After ErrAltered the change has been made, and after
// driver.ErrUnsure it may have been; before is known after both. If another process
// delays the first message of the topic at this very moment, it may undo the change.
func (c *Conn) AlterTopic(ctx context.Context, name string, to driver.StoredConfig) (before driver.StoredConfig, err error) {
	if c.js == nil {
		return before, c.refuse(string(driver.Stored))
	}
	t := &stored{conn: c, topic: name, backing: ownBacking(name), wanted: to}
	err = c.alter(ctx, t, func(have *jetstream.StreamConfig) { before = storedConfig(have) })
	return before, err
}

// alter changes an existing stream to match t. It calls was with the configuration
// found, but not with one that an attempt whose answer was lost may have made.
func (c *Conn) alter(ctx context.Context, t *stored, was func(have *jetstream.StreamConfig)) error {
	unsure := false
	err := c.reconfigure(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, t.stream)
		if err != nil {
			return t.openError(ctx, err)
		}
		have, want := stream.CachedInfo().Config, t.streamConfig()
		class := durabilities[t.wanted.Durability].name
		if had := have.Metadata[metaDurability]; had != class || have.Storage != want.Storage {
			return fmt.Errorf("%w: topic %s exists with durability %s, not %s", driver.ErrConflict, t.topic, had, class)
		}
		if !unsure {
			was(&have)
		}
		have.MaxMsgs, have.MaxBytes, have.MaxAge = want.MaxMsgs, want.MaxBytes, want.MaxAge
		have.Duplicates, have.MaxMsgsPerSubject = want.Duplicates, want.MaxMsgsPerSubject
		if mark := deadPrefix + t.topic; slices.Contains(want.Subjects, mark) && !slices.Contains(have.Subjects, mark) {
			have.Subjects = append(have.Subjects, mark)
		}
		if _, err := c.api(ctx).UpdateStream(ctx, have); err != nil {
			unsure = unsure || apiCode(err) == 0 // the server has not refused it
			return t.openError(ctx, err)
		}
		return nil
	})
	switch {
	case err != nil && unsure && !errors.Is(err, ErrNotAllowed):
		return fmt.Errorf("topic %s: %w: %w", t.topic, driver.ErrUnsure, err)
	case err != nil:
		return err
	}
	err = c.reconfigure(ctx, func(ctx context.Context) error {
		// Another process may have added that meanwhile.
		delayed, err := c.hasDue(ctx)
		if err != nil {
			return t.openError(ctx, err)
		}
		if delayed {
			return t.addDue(ctx)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("topic %s: %w: %w", t.topic, ErrAltered, err)
	}
	return nil
}

// DeleteTopic deletes a stored topic with its messages and groups. It is no error
// if there is no such topic. For a topic in a store it deletes the topic's messages
// and groups; what is published to it is still stored.
func (c *Conn) DeleteTopic(ctx context.Context, name string) error {
	b, err := c.backingNow(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case !b.shared():
		return c.deleteStream(ctx, b.stream)
	}
	all, err := c.Groups(ctx, name)
	if err != nil {
		return err
	}
	for _, g := range all {
		if err := c.DeleteGroup(ctx, name, g.Name); err != nil {
			return err
		}
	}
	_, err = c.PurgeTopic(ctx, name, 0, 0)
	return err
}

// deleteStream deletes the stream of a topic, or of a store.
func (c *Conn) deleteStream(ctx context.Context, name string) error {
	defer c.due.forget(name)
	return c.admin(ctx, func(ctx context.Context) error { return c.api(ctx).DeleteStream(ctx, name) })
}

// DeleteMessage deletes a message of a stored topic. It is no error if there is no
// such message.
func (c *Conn) DeleteMessage(ctx context.Context, topic string, seq uint64) error {
	b, err := c.backingNow(ctx, topic)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	place := map[string]any{"seq": seq}
	if b.shared() && b.store != topic { // it may belong to another topic
		if m, err := c.messageAt(ctx, b.stream, place); err != nil || m.Seq == 0 || !b.holds(topic, m.Subject) {
			return err
		}
	}
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err != nil {
			return err
		}
		err = stream.DeleteMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // the error does not say why
			if m, getErr := c.messageAt(ctx, b.stream, place); getErr == nil && m.Seq == 0 {
				return nil
			}
		}
		return err
	})
}

// ResetGroup makes a group of a stored topic start again at its first
// unacknowledged message, at once and in order, rather than when the lease of that
// message ends. The group must have no members. It is no error if there is no such
// group.
func (c *Conn) ResetGroup(ctx context.Context, topic, group string) error {
	b, err := c.backingNow(ctx, topic)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.admin(ctx, func(ctx context.Context) error {
		// The server does not answer if there is no such consumer.
		if _, err := c.api(ctx).Consumer(ctx, b.stream, b.consumer(topic, group)); err != nil {
			return err
		}
		_, err := c.api(ctx).ResetConsumer(ctx, b.stream, b.consumer(topic, group))
		return err
	})
}

// admin calls f until it succeeds, fails for good, or ctx ends. It is no error if
// the object does not exist.
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
		return passing(err)
	})
}

// HasTopic reports whether messages published to a topic are stored: whether the
// topic or a store for it exists.
func (c *Conn) HasTopic(ctx context.Context, name string) (bool, error) {
	_, err := c.backingNow(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// backingNow returns where a topic is kept, or ErrNotFound.
func (c *Conn) backingNow(ctx context.Context, topic string) (b backing, err error) {
	err = c.find(ctx, "topic "+topic, func(ctx context.Context) error {
		b, err = c.backing(ctx, topic)
		return err
	})
	return b, err
}

func (c *Conn) hasStream(ctx context.Context, name string) (found bool, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		_, err := c.api(ctx).Stream(ctx, name)
		found = err == nil
		return err
	})
	return found, err
}
