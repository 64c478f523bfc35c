package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// This file reads what a store knows about each of its topics.

// shareInfo is TopicInfo for a topic of a store.
func (c *Conn) shareInfo(ctx context.Context, b backing, name string) (info TopicInfo, err error) {
	err = c.find(ctx, "topic "+name, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err != nil {
			return err
		}
		have, err := stream.Info(ctx, jetstream.WithSubjectFilter(b.all(name)))
		if err != nil {
			return passing(err)
		}
		info = TopicInfo{Name: name, Store: b.store, Config: storedConfig(&have.Config), Created: have.Created, newest: have.State.LastSeq}
		for _, n := range have.State.Subjects {
			info.Messages += n
		}
		if info.Groups, err = c.consumersOf(ctx, stream, b, name); err != nil || info.Messages == 0 {
			return err
		}
		first, err := c.firstFrom(ctx, b, name, map[string]any{"seq": max(have.State.FirstSeq, 1)})
		if err != nil {
			return err
		}
		last, err := c.lastOf(ctx, b, name)
		if err == nil && (first.Seq == 0 || last.Seq == 0) { // deleted meanwhile
			info.Messages = 0
			return nil
		}
		if err == nil {
			info.First, info.FirstTime, info.Last, info.LastTime = first.Seq, first.Time, last.Seq, last.Time
		}
		return err
	})
	return info, err
}

// consumersOf returns how many consumers the groups on a topic of a store have.
func (c *Conn) consumersOf(ctx context.Context, stream jetstream.Stream, b backing, topic string) (n int, err error) {
	prefix := b.consumer(topic, "")
	if len(prefix) > cutLength { // the names may have been cut; their filters tell
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			if info.Config.Durable != "" && topicsOf(&info.Config) == topic {
				n++
			}
		}
		return n, passing(list.Err())
	}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n, passing(names.Err())
}

// StoreInfo describes a store as the server has it.
type StoreInfo struct {
	TopicInfo // of all topics together; Name and Store are the pattern
	// MaxPerTopic is as in StoreConfig.
	MaxPerTopic int
}

// StoreInfo describes the store of a pattern as the server has it, or returns
// ErrNotFound.
func (c *Conn) StoreInfo(ctx context.Context, pattern string) (info StoreInfo, err error) {
	err = c.find(ctx, "store "+pattern, func(ctx context.Context) error {
		b := storeBacking(pattern)
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err == nil {
			have := stream.CachedInfo()
			info = StoreInfo{topicInfo(pattern, have), int(max(have.Config.MaxMsgsPerSubject, 0))}
			info.Store = pattern
		}
		return err
	})
	return info, err
}

// Stores returns the patterns of all stores, sorted by the names of their streams.
func (c *Conn) Stores(ctx context.Context) (patterns []string, err error) {
	at, err := c.seekStream(ctx, "", storeStreams)
	if err != nil {
		return nil, err
	}
	for {
		page, total, err := c.streamNames(ctx, "", at)
		if err != nil {
			return nil, err
		}
		for _, stream := range page {
			switch {
			case strings.HasPrefix(stream, storeStreams):
				pattern, err := c.patternOf(ctx, stream)
				if err != nil {
					return nil, err
				}
				if pattern != "" {
					patterns = append(patterns, pattern)
				}
			case stream > storeStreams:
				return patterns, nil
			}
		}
		if at += len(page); at >= total || len(page) == 0 {
			return patterns, nil
		}
	}
}

// TopicCount is how many messages a topic of a store has.
type TopicCount struct {
	Topic    string
	Messages uint64
}

// StoreTopics returns the topics of a store that have messages, sorted; only those
// that match the pattern, if that is not empty.
func (c *Conn) StoreTopics(ctx context.Context, store, pattern string) (all []TopicCount, err error) {
	b := storeBacking(store)
	counts := map[string]uint64{}
	err = c.find(ctx, "store "+store, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, b.stream)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(storeSubjects(cmp.Or(pattern, ">"))))
		if err != nil {
			return passing(err)
		}
		clear(counts)
		for subject, n := range info.State.Subjects {
			if topic, ok := storedTopic(subject); ok {
				counts[topic] += n
			}
		}
		return nil
	})
	for topic, n := range counts {
		all = append(all, TopicCount{topic, n})
	}
	slices.SortFunc(all, func(a, b TopicCount) int { return strings.Compare(a.Topic, b.Topic) })
	return all, err
}

// storeNames returns the names of topics in stores that a query selects, and
// whether there may be more of them. It changes the query into one for the
// remaining topics.
func (c *Conn) storeNames(ctx context.Context, q *TopicQuery) (names []string, more bool, err error) {
	if q.Own {
		return nil, false, nil
	}
	stores, err := c.Stores(ctx)
	if err != nil || len(stores) == 0 {
		return nil, false, err
	}
	from, after := 0, q.After
	if after != "" {
		b, err := c.backingNow(ctx, after)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && !b.shared():
			return nil, false, nil // the topics of stores come before it
		case err != nil:
			return nil, false, err
		}
		from = max(slices.Index(stores, b.store), 0)
	}
	q.After = ""
	for i, store := range stores[from:] {
		if i > 0 {
			after = ""
		}
		topics, err := c.listTopics(ctx, store, q.Pattern, after)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		for _, t := range topics {
			switch {
			case q.Dead && !strings.HasSuffix(t, deadSuffix) && !q.noted[t], q.Match != nil && !q.Match(t):
			case q.Limit == 0:
				return names, true, nil
			default:
				names = append(names, t)
				q.Limit--
			}
		}
		c.lists.end(store, q.Pattern)
	}
	return names, false, nil
}
