package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/harkbus/hark/driver"
)

// undo takes changes back, the last first.
type undo []func(ctx context.Context) error

func (u undo) run(ctx context.Context) error {
	var err error
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i](ctx))
	}
	return err
}

// applyTopics makes the topics that a configuration declares, and gives those
// that are there its limits. When one fails, what was done is taken back, and so
// can it be by the undo it returns. Topics that are not declared any more stay as
// they are.
func (b *Broker) applyTopics(ctx context.Context, before, c *Config) (done undo, err error) {
	declared := map[TopicConfig]bool{}
	if before != nil {
		for _, t := range before.Topics {
			declared[t] = true
		}
	}
	for i, t := range c.Topics {
		if declared[t] {
			continue
		}
		back, err := b.applyTopic(ctx, &t)
		if err != nil {
			p := c.problem(fmt.Sprintf("topics[%d]", i), "%s", err)
			p.err = err
			return nil, errors.Join(p, done.run(ctx))
		}
		if back != nil {
			done = append(done, back)
		}
	}
	return done, nil
}

// applyTopic makes a topic as it is declared, and returns what takes that back;
// nil if there was nothing to do.
func (b *Broker) applyTopic(ctx context.Context, t *TopicConfig) (func(context.Context) error, error) {
	want := t.stored()
	had, err := b.conn.HasTopic(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	_, err = b.conn.OpenTopic(ctx, driver.TopicConfig{Name: t.Name, Stored: want})
	switch {
	case err == nil && had:
		return nil, nil
	case err == nil:
		b.log.Info("topic made", "topic", t.Name)
		return func(ctx context.Context) error { return b.conn.DeleteTopic(ctx, t.Name) }, nil
	case !errors.Is(err, driver.ErrConflict) || !had:
		return nil, err
	}
	before, err := b.conn.AlterTopic(ctx, t.Name, *want)
	if err != nil {
		return nil, err
	}
	b.log.Info("topic changed", "topic", t.Name)
	return func(ctx context.Context) error {
		_, err := b.conn.AlterTopic(ctx, t.Name, before)
		return err
	}, nil
}
