package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// GroupInfo describes a group on a stored topic as the server has it.
type GroupInfo struct {
	Topic, Name string
	Keyed       bool // it keeps the order of keys
	Created     time.Time
	Done        uint64    // the sequence up to which everything is done
	Waiting     uint64    // messages that no member has received
	InFlight    uint64    // messages in hand
	Redelivered uint64    // of those, messages that were in hand before
	Listening   int       // members that wait for messages now, as far as the server knows
	Oldest      time.Time // when the first message that is not done was stored; zero without any
	PausedUntil time.Time // zero if it is not paused
}

// Groups returns the groups on a stored topic, in order of their names.
func (c *Conn) Groups(ctx context.Context, topic string) (all []GroupInfo, err error) {
	h, err := c.homeNow(ctx, topic)
	if err != nil {
		return nil, err
	}
	return c.groups(ctx, h, func(part *jetstream.ConsumerConfig) (string, bool) {
		return topic, !h.shared() || topicsOf(part) == topic
	})
}

// StoreGroups returns the groups on all topics of a store and on its pattern, in order
// of these and of their names.
func (c *Conn) StoreGroups(ctx context.Context, pattern string) ([]GroupInfo, error) {
	return c.groups(ctx, storeHome(pattern), func(part *jetstream.ConsumerConfig) (string, bool) { return topicsOf(part), true })
}

// groups returns the groups on a stream. of says on which topics the group of a consumer
// is, and whether it is wanted.
func (c *Conn) groups(ctx context.Context, h home, of func(part *jetstream.ConsumerConfig) (string, bool)) (all []GroupInfo, err error) {
	var parts []*jetstream.ConsumerInfo
	err = c.find(ctx, "stream "+h.stream, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, h.stream)
		if err != nil {
			return err
		}
		parts = parts[:0]
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			parts = append(parts, info)
		}
		return passing(list.Err())
	})
	if err != nil {
		return nil, err
	}
	type key struct{ topics, group string }
	byName := map[key]*GroupInfo{}
	for _, part := range parts {
		name, ok := groupOf(part)
		topics, wanted := of(&part.Config)
		if !ok || !wanted {
			continue
		}
		g := byName[key{topics, name}]
		if g == nil {
			g = &GroupInfo{Topic: topics, Name: name}
			byName[key{topics, name}] = g
		}
		g.add(part, h.isKeyed(&part.Config))
	}
	for _, k := range slices.SortedFunc(maps.Keys(byName), func(a, b key) int {
		return cmp.Or(strings.Compare(a.topics, b.topics), strings.Compare(a.group, b.group))
	}) {
		g := byName[k]
		if err := c.age(ctx, h, g); err != nil {
			return nil, err
		}
		all = append(all, *g)
	}
	return all, nil
}

// groupOf returns the group that a consumer is a part of.
func groupOf(part *jetstream.ConsumerInfo) (string, bool) {
	if part.Config.Durable == "" {
		return "", false // a subscription without a group
	}
	if name, ok := strings.CutPrefix(part.Config.Description, groupDescription); ok {
		return name, true
	}
	return part.Name, true // none of hark's
}

// groupDescription begins the descriptions of the consumers of groups.
const groupDescription = "hark group "

// add takes the numbers of a consumer of the group.
func (g *GroupInfo) add(part *jetstream.ConsumerInfo, keyed bool) {
	first := g.Created.IsZero()
	g.Keyed = g.Keyed || keyed
	if first || part.Created.Before(g.Created) {
		g.Created = part.Created
	}
	g.Waiting += part.NumPending
	g.InFlight += uint64(part.NumAckPending)
	g.Redelivered += uint64(part.NumRedelivered)
	g.Listening = max(g.Listening, part.NumWaiting)
	if part.Paused {
		g.PausedUntil = part.TimeStamp.Add(part.PauseRemaining)
	}
	// Where there is nothing to do everything is done: what others have to do is
	// in between.
	if part.NumPending > 0 || part.NumAckPending > 0 || first {
		if first || g.Done == 0 || part.AckFloor.Stream < g.Done {
			g.Done = part.AckFloor.Stream
		}
	}
}

// age finds out when the first message that a group has not done was stored.
func (c *Conn) age(ctx context.Context, h home, g *GroupInfo) error {
	if g.Waiting == 0 && g.InFlight == 0 {
		return nil
	}
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, h.stream)
		if err != nil {
			return err
		}
		m, err := stream.GetMsg(ctx, g.Done+1, jetstream.WithGetMsgSubject(cmp.Or(h.all(g.Topic), ">")))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound): // done meanwhile
			return nil
		case err != nil:
			return passing(err)
		}
		g.Oldest = m.Time
		return nil
	})
}

// GroupInfo returns what the server has of a group, or ErrNotFound.
func (c *Conn) GroupInfo(ctx context.Context, topic, group string) (GroupInfo, error) {
	all, err := c.Groups(ctx, topic)
	if err != nil {
		return GroupInfo{}, err
	}
	i := slices.IndexFunc(all, func(g GroupInfo) bool { return g.Name == group })
	if i < 0 {
		return GroupInfo{}, fmt.Errorf("group %s of topic %s is %w", group, topic, ErrNotFound)
	}
	return all[i], nil
}

// groupParts calls f for each consumer of a group.
func (c *Conn) groupParts(ctx context.Context, topic, group string, f func(ctx context.Context, stream, consumer string) error) error {
	h, err := c.homeNow(ctx, topic)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := -1; n < partitions; n++ {
		name := h.consumer(topic, group)
		if n >= 0 {
			name = slotConsumer(name, n)
		}
		err := c.admin(ctx, func(ctx context.Context) error {
			consumer, err := c.api(ctx).Consumer(ctx, h.stream, name)
			switch {
			case err != nil:
				return err
			case n < 0 && !h.isKeyed(&consumer.CachedInfo().Config):
				n = partitions // it has no others
			}
			return f(ctx, h.stream, name)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteGroup makes a group of a stored topic forget its place. One that is not
// there is no error.
func (c *Conn) DeleteGroup(ctx context.Context, topic, group string) error {
	if err := c.groupParts(ctx, topic, group, c.js.DeleteConsumer); err != nil {
		return err
	}
	return c.forgetRoster(ctx, topic, group)
}

// forgetRoster removes what the members of a group that keeps the order of keys have
// agreed upon.
func (c *Conn) forgetRoster(ctx context.Context, topic, group string) error {
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, groupsStream)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(rosterOf(topic, group)))
	})
}

// PauseGroup makes a group get no messages until a time, or until ResumeGroup.
func (c *Conn) PauseGroup(ctx context.Context, topic, group string, until time.Time) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.api(ctx).PauseConsumer(ctx, stream, consumer, until)
		return err
	})
}

// ResumeGroup ends a pause. Without one it does nothing.
func (c *Conn) ResumeGroup(ctx context.Context, topic, group string) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.api(ctx).ResumeConsumer(ctx, stream, consumer)
		return err
	})
}

// ErrListening says that a group has members that would not notice what is done to
// it.
var ErrListening = errors.New("the group has members that would not notice: stop them first")

// SeekGroup makes a group go on with the message that has a sequence, or the first
// one behind it. What is in hand may come again. While members listen that is
// ErrListening for a group that keeps the order of keys, and once in its life for one
// that began with what was published next, which has to be made anew.
func (c *Conn) SeekGroup(ctx context.Context, topic, group string, seq uint64) error {
	if c.level < levelReset {
		return c.refuse("groups that are given another place (they need NATS 2.14)")
	}
	h, err := c.homeNow(ctx, topic)
	if err != nil {
		return err
	}
	err = c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		have, err := c.api(ctx).Consumer(ctx, stream, consumer)
		if err != nil {
			return err
		}
		info := have.CachedInfo()
		remade := info.Config.DeliverPolicy != jetstream.DeliverAllPolicy
		if info.NumWaiting > 0 && (remade || h.isKeyed(&info.Config)) {
			return ErrListening
		}
		if remade {
			if err := c.remakeConsumer(ctx, stream, info.Config); err != nil {
				return err
			}
		}
		_, err = c.api(ctx).ResetConsumerToSequence(ctx, stream, consumer, max(seq, 1))
		return err
	})
	if err != nil {
		return err
	}
	return c.forgetRoster(ctx, topic, group)
}

// remakeConsumer makes a consumer anew that can be given any place.
func (c *Conn) remakeConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) error {
	if err := c.api(ctx).DeleteConsumer(ctx, stream, cfg.Name); err != nil {
		return err
	}
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverAllPolicy, 0, nil
	_, err := c.api(ctx).CreateConsumer(ctx, stream, cfg)
	return err
}

// SeqAt returns the sequence of the first message that was stored at a time or later,
// and that behind the last one if there is none.
func (c *Conn) SeqAt(ctx context.Context, topic string, at time.Time) (seq uint64, err error) {
	h, err := c.homeNow(ctx, topic)
	if err != nil {
		return 0, err
	}
	err = c.find(ctx, "topic "+topic, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, h.stream)
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		seq = info.State.LastSeq + 1
		m, err := c.firstFrom(ctx, h, topic, map[string]any{"start_time": at.UTC()})
		if err == nil && m.Seq > 0 {
			seq = m.Seq
		}
		return err
	})
	return seq, err
}

// spot is where a message is, as JetStream's API says it.
type spot struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
}

// firstFrom returns where the first message of a topic is from a place on, with a Seq of
// 0 if there is none.
func (c *Conn) firstFrom(ctx context.Context, h home, topic string, place map[string]any) (spot, error) {
	var answer struct {
		Message spot `json:"message"`
	}
	place["next_by_subj"] = cmp.Or(h.all(topic), ">")
	err := c.askAPI(ctx, "STREAM.MSG.GET."+h.stream, place, &answer)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return spot{}, nil
	}
	return answer.Message, err
}
