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

	"github.com/harkbus/hark/driver"
)

// GroupInfo describes a group on a stored topic as the server has it.
type GroupInfo struct {
	Topic, Name string
	Keyed       bool // it keeps the order of keys
	Created     time.Time
	Done        uint64    // everything up to this sequence is done
	Waiting     uint64    // messages that no member has received
	InFlight    uint64    // messages in flight
	Redelivered uint64    // how many of those were in flight before
	Listening   int       // members that are waiting for messages, as far as the server knows
	Oldest      time.Time // when the first message not yet done was stored; zero if there is none
	PausedUntil time.Time // zero if it is not paused
}

// Groups returns the groups on a stored topic, sorted by name.
func (c *Conn) Groups(ctx context.Context, topic string) (all []GroupInfo, err error) {
	b, err := c.backingNow(ctx, topic)
	if err != nil {
		return nil, err
	}
	return c.groups(ctx, b, func(part *jetstream.ConsumerConfig) (string, bool) {
		return topic, !b.shared() || topicsOf(part) == topic
	})
}

// StoreGroups returns the groups on all topics of a store and on its pattern,
// sorted by topic and then by name.
func (c *Conn) StoreGroups(ctx context.Context, pattern string) ([]GroupInfo, error) {
	return c.groups(ctx, storeBacking(pattern), func(part *jetstream.ConsumerConfig) (string, bool) { return topicsOf(part), true })
}

// groups returns the groups on a stream. of returns the topic that a consumer's
// group is on, and whether the group is wanted.
func (c *Conn) groups(ctx context.Context, b backing, of func(part *jetstream.ConsumerConfig) (string, bool)) (all []GroupInfo, err error) {
	var parts []*jetstream.ConsumerInfo
	err = c.find(ctx, "stream "+b.stream, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
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
		if !ok || !wanted || isStandIn(part, parts) {
			continue
		}
		g := byName[key{topics, name}]
		if g == nil {
			g = &GroupInfo{Topic: topics, Name: name}
			byName[key{topics, name}] = g
		}
		g.add(part, b.isKeyed(&part.Config))
	}
	for _, k := range slices.SortedFunc(maps.Keys(byName), func(a, b key) int {
		return cmp.Or(strings.Compare(a.topics, b.topics), strings.Compare(a.group, b.group))
	}) {
		g := byName[k]
		if err := c.age(ctx, b, g); err != nil {
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
	return part.Name, true // not made by hark
}

// groupDescription begins the descriptions of the consumers of groups.
const groupDescription = "hark group "

// add adds the counts of one consumer of the group.
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
	// A part with nothing to do has done everything: what lies beyond its floor
	// belongs to other parts.
	if part.NumPending > 0 || part.NumAckPending > 0 || first {
		if first || g.Done == 0 || part.AckFloor.Stream < g.Done {
			g.Done = part.AckFloor.Stream
		}
	}
}

// age finds out when the first message that a group has not done was stored.
func (c *Conn) age(ctx context.Context, b backing, g *GroupInfo) error {
	if g.Waiting == 0 && g.InFlight == 0 {
		return nil
	}
	m, err := c.firstFrom(ctx, b, g.Topic, map[string]any{"seq": g.Done + 1})
	g.Oldest = m.Time // zero if it is done meanwhile
	return err
}

// GroupInfo describes a group as the server has it, or returns ErrNotFound.
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
	b, err := c.backingNow(ctx, topic)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := -1; n < partitions; n++ {
		part := b.part(topic, group, n)
		for _, name := range []string{part, standIn(part)} {
			err := c.admin(ctx, func(ctx context.Context) error {
				consumer, err := c.api(ctx).Consumer(ctx, b.stream, name)
				switch {
				case err != nil:
					return err
				case n < 0 && !b.isKeyed(&consumer.CachedInfo().Config):
					n = partitions // the group has no more of them
				}
				return f(ctx, b.stream, name)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// part returns the name of a consumer of a group: that of a slot, or with -1 that of
// the messages without a key, or of all.
func (b *backing) part(topic, group string, n int) string {
	name := b.consumer(topic, group)
	if n >= 0 {
		name = slotConsumer(name, n)
	}
	return name
}

// DeleteGroup makes a group of a stored topic forget its place. It is no error if
// there is no such group.
func (c *Conn) DeleteGroup(ctx context.Context, topic, group string) error {
	if c.js == nil {
		return c.refuse(string(driver.Stored))
	}
	if err := c.groupParts(ctx, topic, group, c.js.DeleteConsumer); err != nil {
		return err
	}
	return c.forgetRoster(ctx, topic, group)
}

// forgetRoster removes the roster that the members of a group with ordered keys
// share.
func (c *Conn) forgetRoster(ctx context.Context, topic, group string) error {
	return c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, groupsStream)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(rosterOf(topic, group)))
	})
}

// PauseGroup stops delivery to a group until the given time, or until ResumeGroup.
func (c *Conn) PauseGroup(ctx context.Context, topic, group string, until time.Time) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.api(ctx).PauseConsumer(ctx, stream, consumer, until)
		return err
	})
}

// ResumeGroup ends a pause. It does nothing if there is none.
func (c *Conn) ResumeGroup(ctx context.Context, topic, group string) error {
	return c.groupParts(ctx, topic, group, func(ctx context.Context, stream, consumer string) error {
		_, err := c.api(ctx).ResumeConsumer(ctx, stream, consumer)
		return err
	})
}

// SeqAt returns the sequence of the first message stored at or after a time, or the
// sequence after the last message if there is none.
func (c *Conn) SeqAt(ctx context.Context, topic string, at time.Time) (seq uint64, err error) {
	b, err := c.backingNow(ctx, topic)
	if err != nil {
		return 0, err
	}
	return c.seqAt(ctx, b, topic, at)
}

func (c *Conn) seqAt(ctx context.Context, b backing, topic string, at time.Time) (seq uint64, err error) {
	err = c.find(ctx, "topic "+topic, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		seq = info.State.LastSeq + 1
		m, err := c.firstFrom(ctx, b, topic, map[string]any{"start_time": at.UTC()})
		if err == nil && m.Seq > 0 {
			seq = m.Seq
		}
		return err
	})
	return seq, err
}

// rawMsg is a stored message, as JetStream's API encodes it.
type rawMsg struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
}

// firstFrom returns the first message of a topic at or after a place. Its Seq is 0 if
// there is none.
func (c *Conn) firstFrom(ctx context.Context, b backing, topic string, place map[string]any) (rawMsg, error) {
	place["next_by_subj"] = cmp.Or(b.all(topic), ">")
	return c.messageAt(ctx, b.stream, place)
}

// lastOf returns the last message of a topic. Its Seq is 0 if there is none.
func (c *Conn) lastOf(ctx context.Context, b backing, topic string) (rawMsg, error) {
	return c.messageAt(ctx, b.stream, map[string]any{"last_by_subj": cmp.Or(b.all(topic), ">")})
}

// messageAt returns the message at a place of a stream. Its Seq is 0 if there is none. The
// leader answers; other servers of a cluster, which a client asks for streams that
// allow direct access, may not have yet what has just been stored.
func (c *Conn) messageAt(ctx context.Context, stream string, place map[string]any) (rawMsg, error) {
	var answer struct {
		Message rawMsg `json:"message"`
	}
	err := c.askAPI(ctx, "STREAM.MSG.GET."+stream, place, &answer)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return rawMsg{}, nil
	}
	return answer.Message, err
}
