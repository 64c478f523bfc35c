package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrListening says that a group has members that would not notice the change.
	ErrListening = errors.New("the group has members that would not notice the change; stop them first")
	// ErrPartlyMoved says that SeekGroup has begun to move a group, and does not know
	// that it has moved all of it. The same call moves it.
	ErrPartlyMoved = errors.New("the group may have been moved in part; repeat the call before members join")
)

// SeekGroup makes a group go on with the message at seq, or the first one after it, or
// past the end with the next message published.
// Messages in flight may come again. SeekGroup returns ErrListening for a group that keeps
// the order of keys while it has members; so it does, once in the life of a group that
// started with the next message published, while members listen, because its consumer has
// to be recreated. It has changed nothing then, unless the error wraps ErrPartlyMoved too.
//
// A group that keeps the order of keys has several consumers, which are moved one after
// the other. If ctx ends meanwhile, the error wraps ErrPartlyMoved: some are moved, the
// others are where they were, and the same call moves the rest. A member that joins
// before that misses nothing from where each of them is, except that one which was to be
// recreated may have lost its place: it begins where that member says.
func (c *Conn) SeekGroup(ctx context.Context, topic, group string, seq uint64) error {
	if c.level < levelReset {
		return c.refuse("moving the position of a group (needs NATS 2.14)")
	}
	b, err := c.backingNow(ctx, topic)
	if err != nil {
		return err
	}
	info, err := c.topicInfo(ctx, b, topic)
	if err != nil {
		return err
	}
	parts, err := c.partsToMove(ctx, b, topic, group)
	if err != nil || len(parts) == 0 {
		return err
	}
	keyed := b.isKeyed(&parts[0].cfg)
	if keyed {
		err = c.hasNoMembers(ctx, topic, group, parts[0].cfg.AckWait)
	} else if parts[0].remade && parts[0].listening {
		err = ErrListening
	}
	if err != nil {
		return err
	}
	if keyed { // what the roster says would keep members from handling messages again
		if err := c.forgetRoster(ctx, topic, group); err != nil {
			return err
		}
	}
	seq = max(min(seq, info.newest+1), 1) // past the end, what is published until then would be skipped
	for i := 0; i < len(parts) && err == nil; i++ {
		err = c.movePart(ctx, b.stream, &parts[i], seq)
	}
	if err == nil && keyed {
		err = c.isForgotten(ctx, topic, group) // what members have agreed on since may be about the former place
	}
	if err != nil {
		return fmt.Errorf("group %s of topic %s: %w: %w", group, topic, ErrPartlyMoved, err)
	}
	return nil
}

// groupPart is a consumer of a group that is to be moved.
type groupPart struct {
	cfg       jetstream.ConsumerConfig
	remade    bool // it has to be recreated in a form whose place can be set freely
	listening bool // somebody waits for its messages
}

// partsToMove returns the consumers of a group. If recreating one of them was begun and
// not completed, its stand-in says what it was.
func (c *Conn) partsToMove(ctx context.Context, b backing, topic, group string) (parts []groupPart, err error) {
	for n := -1; n < partitions; n++ {
		name := b.part(topic, group, n)
		var info *jetstream.ConsumerInfo
		err := c.admin(ctx, func(ctx context.Context) error {
			have, err := c.api(ctx).Consumer(ctx, b.stream, name)
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				have, err = c.api(ctx).Consumer(ctx, b.stream, standIn(name))
			}
			if err == nil {
				info = have.CachedInfo()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if info == nil {
			continue
		}
		cfg := info.Config
		cfg.Name, cfg.Durable = name, name
		parts = append(parts, groupPart{
			cfg: cfg, remade: info.Name != name || cfg.DeliverPolicy != jetstream.DeliverAllPolicy, listening: info.NumWaiting > 0,
		})
		if !b.isKeyed(&cfg) {
			break
		}
	}
	return parts, nil
}

// movePart moves a consumer of a group.
func (c *Conn) movePart(ctx context.Context, stream string, part *groupPart, seq uint64) error {
	if part.remade {
		if err := c.remakeConsumer(ctx, stream, part.cfg); err != nil {
			return err
		}
	}
	err := c.admin(ctx, func(ctx context.Context) error {
		// The server does not answer if there is no such consumer.
		if _, err := c.api(ctx).Consumer(ctx, stream, part.cfg.Name); err != nil {
			return err
		}
		_, err := c.api(ctx).ResetConsumerToSequence(ctx, stream, part.cfg.Name, seq)
		return err
	})
	if err != nil {
		return err
	}
	return c.admin(ctx, func(ctx context.Context) error {
		return c.api(ctx).DeleteConsumer(ctx, stream, standIn(part.cfg.Name))
	})
}

// remakeConsumer recreates a consumer in a form whose place can be set freely. A
// stand-in with the same settings keeps the group from being forgotten if it is ended
// when there is no consumer; the caller deletes it.
func (c *Conn) remakeConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) error {
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverAllPolicy, 0, nil
	stand := cfg
	stand.Name, stand.Durable = standIn(cfg.Name), standIn(cfg.Name)
	return c.state.do(ctx, func(ctx context.Context) error {
		if _, err := c.api(ctx).CreateOrUpdateConsumer(ctx, stream, stand); err != nil {
			return passing(err)
		}
		if err := c.api(ctx).DeleteConsumer(ctx, stream, cfg.Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return passing(err)
		}
		_, err := c.api(ctx).CreateConsumer(ctx, stream, cfg)
		return passing(err)
	})
}

// standInSuffix ends the names of stand-ins. No other names made by hark contain ~m.
const standInSuffix = "~m"

// standIn returns the name of the stand-in of a consumer of a group.
func standIn(consumer string) string { return consumer + standInSuffix }

// isStandIn reports whether part is the stand-in of another consumer of a stream.
func isStandIn(part *jetstream.ConsumerInfo, all []*jetstream.ConsumerInfo) bool {
	name, ok := strings.CutSuffix(part.Name, standInSuffix)
	return ok && slices.ContainsFunc(all, func(other *jetstream.ConsumerInfo) bool { return other.Name == name })
}

// hasNoMembers returns ErrListening if a group that keeps the order of keys has
// members. They are in the roster, write it again within their lease, and want to know
// when it changes as long as they live. Whether they wait for messages says nothing:
// those who have enough do not, and the requests of one that was cut off stand for a
// while.
func (c *Conn) hasNoMembers(ctx context.Context, topic, group string, lease time.Duration) error {
	r, age, err := c.readRosterOf(ctx, topic, group)
	if err != nil || r == nil || len(r.Members) == 0 || age > lease {
		return err
	}
	heeded, err := c.heeded(ctx, newsOf(rosterOf(topic, group)))
	if err != nil || !heeded {
		return err
	}
	return ErrListening
}

// isForgotten returns ErrListening if a group has got a roster again. If it is without
// members, they have left in it what they had done at the former place.
func (c *Conn) isForgotten(ctx context.Context, topic, group string) error {
	r, _, err := c.readRosterOf(ctx, topic, group)
	if err == nil && r != nil {
		return ErrListening
	}
	return err
}

// readRosterOf returns the roster of a group, and how long ago it was written; nil if
// there is none.
func (c *Conn) readRosterOf(ctx context.Context, topic, group string) (r *roster, age time.Duration, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, groupsStream)
		if err != nil {
			return err
		}
		m, err := stream.GetLastMsgForSubject(ctx, rosterOf(topic, group))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err == nil {
			r, age = readRoster(m.Data), stream.CachedInfo().TimeStamp.Sub(m.Time)
		}
		return err
	})
	return r, age, err
}

// heeded reports whether anybody subscribes to a subject. The server says that nobody
// does before it answers a flush.
func (c *Conn) heeded(ctx context.Context, subject string) (heeded bool, err error) {
	answers, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		return false, kind(err)
	}
	defer func() { _ = answers.Unsubscribe() }() // the connection may be closed
	err = c.state.do(ctx, func(ctx context.Context) error {
		watchSubject(ctx, subject)
		if err := c.nc.PublishRequest(subject, answers.Subject, nil); err != nil {
			return err
		}
		if err := c.nc.FlushWithContext(ctx); err != nil {
			return err
		}
		_, err := answers.NextMsg(0)
		heeded = !errors.Is(err, nats.ErrNoResponders)
		return nil
	})
	return heeded, err
}
