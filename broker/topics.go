package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// undo reverts changes, the last one first.
type undo []func(ctx context.Context) error

func (u undo) run(ctx context.Context) error {
	ctx, cancel := lastly(ctx)
	defer cancel()
	var err error
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i](ctx))
	}
	return err
}

// makeTopics creates the topics and stores that a configuration declares and that
// do not exist. If one fails it reverts what it has done; the undo it returns does
// the same later. It returns the existing ones with other limits, to be altered
// once nothing else can fail, because a smaller limit removes messages.
func (b *Broker) makeTopics(ctx context.Context, before, c *Config) (alter []int, done undo, err error) {
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
		made, differs, err := b.makeTopic(ctx, &t)
		if err != nil {
			return nil, nil, errors.Join(c.topicProblem(i, err), done.run(ctx))
		}
		if differs {
			alter = append(alter, i)
		}
		if made {
			b.log.Info("topic created", "topic", t.Name)
			done = append(done, func(ctx context.Context) error { return b.deleteDeclared(ctx, t.Name) })
		}
	}
	return alter, done, nil
}

// topicProblem describes what is wrong with a declared topic.
func (c *Config) topicProblem(i int, err error) error {
	p := c.problem(fmt.Sprintf("topics[%d]", i), "%s", err)
	p.err = err
	return p
}

// makeTopic creates a topic as declared, unless it exists. It reports whether it
// did, and whether an existing one has other limits.
func (b *Broker) makeTopic(ctx context.Context, t *TopicConfig) (made, differs bool, err error) {
	if !t.isStore() {
		switch store, err := b.conn.StoreOf(ctx, t.Name); {
		case err != nil:
			return false, false, err
		case store != "":
			return false, false, fmt.Errorf("%w: the store %s exists without being declared, and stores what is published to %s; delete it with all of its messages (hark topic delete-store), or declare it", driver.ErrConflict, store, t.Name)
		}
	}
	had, err := b.hasDeclared(ctx, t)
	if err != nil {
		return false, false, err
	}
	if t.isStore() {
		_, err = b.conn.OpenStore(ctx, t.store())
	} else {
		_, err = b.conn.OpenTopic(ctx, driver.TopicConfig{Name: t.Name, Stored: t.stored()})
	}
	switch {
	case err == nil:
		return !had, false, nil
	case !errors.Is(err, driver.ErrConflict) || !had:
		return false, false, err
	}
	info, infoErr := b.conn.TopicInfo(ctx, t.Name)
	if infoErr != nil {
		return false, false, infoErr
	}
	if have := info.Config.Durability; have != durabilities[t.Durability] {
		return false, false, fmt.Errorf("%w: its durability is %s, not %s, which cannot change; declare it as %s, or start without it and delete it with all of its messages (hark topic delete or delete-store)",
			driver.ErrConflict, durabilityName(have), durabilityName(durabilities[t.Durability]), durabilityName(have))
	}
	return false, true, nil
}

func (b *Broker) hasDeclared(ctx context.Context, t *TopicConfig) (bool, error) {
	if t.isStore() {
		return b.conn.HasStore(ctx, t.Name)
	}
	return b.conn.HasTopic(ctx, t.Name)
}

func (b *Broker) deleteDeclared(ctx context.Context, name string) error {
	if names.IsPattern(name) {
		return b.conn.DeleteStore(ctx, name)
	}
	return b.conn.DeleteTopic(ctx, name)
}

// alterTopics gives existing topics and stores the declared limits, whether or not ctx
// ends meanwhile. If one fails, those that have been changed get their former limits back.
func (b *Broker) alterTopics(ctx context.Context, c *Config, numbers []int) error {
	ctx, cancel := lastly(ctx)
	defer cancel()
	var done undo
	for _, i := range numbers {
		t := &c.Topics[i]
		back, err := b.alterTopic(ctx, t)
		if errors.Is(err, natsdriver.ErrAltered) || errors.Is(err, driver.ErrUnsure) {
			done = append(done, back)
		}
		if err != nil {
			return errors.Join(c.topicProblem(i, err), done.run(ctx))
		}
		b.log.Info("topic changed", "topic", t.Name)
		done = append(done, back)
	}
	return nil
}

// alterTopic alters a topic and returns a function that reverts the change.
func (b *Broker) alterTopic(ctx context.Context, t *TopicConfig) (func(context.Context) error, error) {
	if t.isStore() {
		before, err := b.conn.AlterStore(ctx, t.store())
		return func(ctx context.Context) error {
			_, err := b.conn.AlterStore(ctx, before)
			return err
		}, err
	}
	before, err := b.conn.AlterTopic(ctx, t.Name, *t.stored())
	return func(ctx context.Context) error {
		_, err := b.conn.AlterTopic(ctx, t.Name, before)
		return err
	}, err
}

// openDeclared opens a declared topic, or store, as it exists.
func openDeclared(ctx context.Context, conn *natsdriver.Conn, name string) (driver.Topic, error) {
	asItIs := driver.StoredConfig{Existing: true}
	if names.IsPattern(name) {
		return conn.OpenStore(ctx, natsdriver.StoreConfig{Pattern: name, StoredConfig: asItIs})
	}
	return conn.OpenTopic(ctx, driver.TopicConfig{Name: name, Stored: &asItIs})
}
