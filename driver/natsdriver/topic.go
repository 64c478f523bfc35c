package natsdriver

import (
	"context"
	"fmt"

	"github.com/harkbus/hark/driver"
)

// OpenTopic implements driver.Conn.
func (c *Conn) OpenTopic(ctx context.Context, t driver.TopicConfig) (driver.Topic, error) {
	if c.state.isClosed() {
		return nil, errConnClosed
	}
	switch {
	case isPattern(t.Name) && t.Stored == nil:
		return nil, fmt.Errorf("%s is a pattern: only stored topics can be opened by one", t.Name)
	case isPattern(t.Name):
		return c.openPattern(ctx, t.Name)
	case t.Stored == nil:
		return &topic{conn: c, name: t.Name}, nil
	}
	return c.openStored(ctx, t.Name, *t.Stored)
}

// topic is an ephemeral topic: the subject with its name.
type topic struct {
	conn *Conn
	name string
}

// Publish implements driver.Topic. The server does not answer it. If the server
// does not permit it, messages published before that is known are lost, and later
// ones return an error.
func (t *topic) Publish(ctx context.Context, ms []*driver.Message) error {
	return each(ms, func(m *driver.Message) error { return t.publish(ctx, m) })
}

func (t *topic) publish(ctx context.Context, m *driver.Message) error {
	c := t.conn
	if !m.Due.IsZero() {
		return c.refuse(string(driver.EphemeralDelay))
	}
	if c.state.isClosed() {
		return errConnClosed
	}
	if err := c.refused(t.name); err != nil {
		return err
	}
	if c.local != nil {
		if delivered, err := c.local.deliver(t.name, m); delivered {
			return err
		}
	}
	if m.Bare && len(m.Headers) == 0 && m.Expires.IsZero() && t.send(ctx, func() error { return c.nc.Publish(t.name, m.Data) }) == nil {
		return nil
	}
	l := msgBuilders.Get().(*msgBuilder)
	defer msgBuilders.Put(l)
	msg, err := l.write(c, t.name, t.name, m)
	if err != nil {
		return err
	}
	if err = t.send(ctx, func() error { return c.nc.PublishMsg(msg) }); err == nil {
		return nil
	}
	if err := c.fits(msg); err != nil {
		return err
	}
	return c.state.do(ctx, func(ctx context.Context) error {
		return t.send(ctx, func() error { return c.nc.PublishMsg(msg) })
	})
}

// send calls f, which sends a message to the server.
func (t *topic) send(ctx context.Context, f func() error) error {
	if t.conn.local == nil {
		return f()
	}
	return t.conn.local.send(ctx, t.name, f)
}

// each calls f for each message and returns what a topic's Publish should.
func each(ms []*driver.Message, f func(m *driver.Message) error) error {
	var failed driver.PartialError
	for i, m := range ms {
		if err := f(m); err != nil {
			if failed == nil {
				failed = make(driver.PartialError, len(ms))
			}
			failed[i] = err
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}

// Stats implements driver.Topic.
func (t *topic) Stats(context.Context) (driver.TopicStats, error) { return driver.TopicStats{}, nil }

// Subscribe implements driver.Topic.
func (t *topic) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	return t.conn.subscribe(ctx, t.name, cfg)
}

// SubscribePattern implements driver.Conn.
func (c *Conn) SubscribePattern(ctx context.Context, pattern string, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	return c.subscribe(ctx, pattern, cfg)
}
