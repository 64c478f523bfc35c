package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	var parts []*jetstream.ConsumerInfo
	err = c.find(ctx, "topic "+topic, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, topicStream(topic))
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
	byName := map[string]*GroupInfo{}
	var names []string
	for _, part := range parts {
		name, ok := groupOf(part)
		if !ok {
			continue
		}
		g := byName[name]
		if g == nil {
			g = &GroupInfo{Topic: topic, Name: name}
			byName[name] = g
			names = append(names, name)
		}
		g.add(part)
	}
	slices.Sort(names)
	for _, name := range names {
		g := byName[name]
		if err := c.age(ctx, g); err != nil {
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
func (g *GroupInfo) add(part *jetstream.ConsumerInfo) {
	first := g.Created.IsZero()
	g.Keyed = g.Keyed || len(filters(&part.Config)) > 0
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
func (c *Conn) age(ctx context.Context, g *GroupInfo) error {
	if g.Waiting == 0 && g.InFlight == 0 {
		return nil
	}
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, topicStream(g.Topic))
		if err != nil {
			return err
		}
		m, err := stream.GetMsg(ctx, g.Done+1, jetstream.WithGetMsgSubject(">"))
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
	stream := topicStream(topic)
	for n := -1; n < partitions; n++ {
		name := groupConsumer(group)
		if n >= 0 {
			name = slotConsumer(group, n)
		}
		err := c.admin(ctx, func(ctx context.Context) error {
			consumer, err := c.js.Consumer(ctx, stream, name)
			switch {
			case err != nil:
				return err
			case n < 0 && len(filters(&consumer.CachedInfo().Config)) == 0:
				n = partitions // it has no others
			}
			return f(ctx, stream, name)
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
		stream, err := c.js.Stream(ctx, groupsStream)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(rosterOf(topic, group)))
	})
}

// PauseGroup makes a group get no messages until a time, or until ResumeGroup.
func (c *Conn) PauseGroup(ctx context.Context, topic, group string, until time.Time) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.js.PauseConsumer(ctx, stream, consumer, until)
		return err
	})
}

// ResumeGroup ends a pause. Without one it does nothing.
func (c *Conn) ResumeGroup(ctx context.Context, topic, group string) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.js.ResumeConsumer(ctx, stream, consumer)
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
	err := c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		have, err := c.js.Consumer(ctx, stream, consumer)
		if err != nil {
			return err
		}
		info := have.CachedInfo()
		remade := info.Config.DeliverPolicy != jetstream.DeliverAllPolicy
		if info.NumWaiting > 0 && (remade || len(filters(&info.Config)) > 0) {
			return ErrListening
		}
		if remade {
			if err := c.remakeConsumer(ctx, stream, info.Config); err != nil {
				return err
			}
		}
		_, err = c.js.ResetConsumerToSequence(ctx, stream, consumer, max(seq, 1))
		return err
	})
	if err != nil {
		return err
	}
	return c.forgetRoster(ctx, topic, group)
}

// remakeConsumer makes a consumer anew that can be given any place.
func (c *Conn) remakeConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) error {
	if err := c.js.DeleteConsumer(ctx, stream, cfg.Name); err != nil {
		return err
	}
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverAllPolicy, 0, nil
	_, err := c.js.CreateConsumer(ctx, stream, cfg)
	return err
}

// SeqAt returns the sequence of the first message that was stored at a time or later,
// and that behind the last one if there is none.
func (c *Conn) SeqAt(ctx context.Context, topic string, at time.Time) (seq uint64, err error) {
	err = c.find(ctx, "topic "+topic, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, topicStream(topic))
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		seq = info.State.LastSeq + 1
		var answer struct {
			Message struct {
				Seq uint64 `json:"seq"`
			} `json:"message"`
		}
		err = c.askAPI(ctx, "STREAM.MSG.GET."+info.Config.Name, json.RawMessage(fmt.Sprintf(`{"start_time":%q,"next_by_subj":">"}`, at.UTC().Format(time.RFC3339Nano))), &answer)
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil
		}
		if err == nil && answer.Message.Seq > 0 {
			seq = answer.Message.Seq
		}
		return err
	})
	return seq, err
}
