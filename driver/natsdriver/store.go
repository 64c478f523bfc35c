package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// StoreConfig configures a store: the topics that match a pattern, kept together.
// Its limits apply to all of them together.
type StoreConfig struct {
	Pattern string
	driver.StoredConfig
	// MaxPerTopic is how many messages are kept of each topic without a key, and
	// how many in each of the 16 partitions of those with one; 0 for no limit.
	MaxPerTopic int
}

// OpenStore opens a store, and creates it if it does not exist. Everything that
// anybody publishes to a topic that matches its pattern is stored there, and
// OpenTopic finds the store for such a topic. The returned Topic stands for all of
// them: received messages name their topic, and publishing to a pattern fails. If
// the store overlaps another store or a stored topic, or exists with other limits,
// the error wraps driver.ErrConflict.
//
// Sequences are per store, so those of a single topic have gaps.
func (c *Conn) OpenStore(ctx context.Context, cfg StoreConfig) (driver.Topic, error) {
	if err := c.storable(); err != nil {
		return nil, err
	}
	t := c.store(&cfg)
	return t, t.begins(ctx)
}

// OpenInStore opens a topic of a store as OpenTopic does, without looking for the
// store. For a pattern it opens all matching topics of the store, as OpenStore
// does.
func (c *Conn) OpenInStore(ctx context.Context, pattern, topic string, cfg driver.StoredConfig) (driver.Topic, error) {
	if err := c.storable(); err != nil {
		return nil, err
	}
	t := &stored{conn: c, topic: topic, backing: storeBacking(pattern), wanted: cfg}
	return t, t.begins(ctx)
}

// openPattern opens all topics that match a pattern in the store that covers it.
func (c *Conn) openPattern(ctx context.Context, pattern string) (driver.Topic, error) {
	if err := c.storable(); err != nil {
		return nil, err
	}
	store, err := c.StoreOf(ctx, pattern)
	switch {
	case err != nil:
		return nil, err
	case store == "":
		return nil, c.refuse(noStoreHasAll)
	}
	return c.OpenInStore(ctx, store, pattern, driver.StoredConfig{Existing: true})
}

const noStoreHasAll = "stored topics of a pattern that no one store keeps (declare one that covers it under topics in the configuration of hark serve, or make it with natsdriver.OpenStore; or subscribe to the topics)"

// storable returns an error on servers that do not support stores.
func (c *Conn) storable() error {
	switch {
	case c.js == nil:
		return c.refuse(string(driver.Stored))
	case c.level < levelTTL:
		return c.refuse("stores of patterns (need NATS 2.11)")
	}
	return nil
}

func (c *Conn) store(cfg *StoreConfig) *stored {
	return &stored{conn: c, topic: cfg.Pattern, backing: storeBacking(cfg.Pattern), wanted: cfg.StoredConfig, perTopic: cfg.MaxPerTopic}
}

// AlterStore changes the limits and the deduplication window of an existing store,
// and returns the settings it had before. Another durability is ErrConflict; after
// ErrAltered the change has been made, and after driver.ErrUnsure it may have been.
func (c *Conn) AlterStore(ctx context.Context, to StoreConfig) (before StoreConfig, err error) {
	if err := c.storable(); err != nil {
		return before, err
	}
	before = StoreConfig{Pattern: to.Pattern}
	err = c.alter(ctx, c.store(&to), func(have *jetstream.StreamConfig) {
		before.StoredConfig, before.MaxPerTopic = storedConfig(have), int(max(have.MaxMsgsPerSubject, 0))
	})
	return before, err
}

// DeleteStore deletes a store with all topics in it, their messages and groups. It
// is no error if there is no such store.
func (c *Conn) DeleteStore(ctx context.Context, pattern string) error {
	return c.deleteStream(ctx, storeStream(pattern))
}

// HasStore reports whether the store of a pattern exists.
func (c *Conn) HasStore(ctx context.Context, pattern string) (bool, error) {
	return c.hasStream(ctx, storeStream(pattern))
}

// StoreOf returns the pattern of the store that keeps a topic, or all topics of a
// pattern, or "" if there is none.
func (c *Conn) StoreOf(ctx context.Context, topic string) (string, error) {
	b, err := c.backingNow(ctx, topic)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return b.store, err
}

// moveIn makes the store that takes what is published to the topic its backing, and
// reports whether there is one.
func (t *stored) moveIn(ctx context.Context) (bool, error) {
	at, found, err := t.conn.findStore(ctx, t.topic)
	if found {
		t.backing = at
	}
	return found, err
}

// fitsStore returns how the requested configuration of a topic differs from that of
// its store. Settings left out, or below the store's, are no difference.
func (t *stored) fitsStore(have *jetstream.StreamConfig) error {
	w := &t.wanted
	var differ []string
	check := func(what string, have, want any, said bool) {
		if said && have != want {
			differ = append(differ, fmt.Sprintf("%s is %v, not %v", what, have, want))
		}
	}
	check("MaxMessages of all of them together", max(have.MaxMsgs, 0), int64(w.MaxMessages), w.MaxMessages > 0)
	check("MaxBytes of all of them together", max(have.MaxBytes, 0), w.MaxBytes, w.MaxBytes > 0)
	check("MaxAge", maxAge(have), w.MaxAge, w.MaxAge > 0)
	check("the durability", have.Metadata[metaDurability], durabilities[w.Durability].name, !w.AnyClass && w.Durability < storedConfig(have).Durability)
	if len(differ) == 0 {
		return nil
	}
	return fmt.Errorf("%w: topic %s is in the store of all topics that match %s: %s (leave out the options that the store sets, or change the store)",
		driver.ErrConflict, t.topic, t.store, strings.Join(differ, ", "))
}

// moved returns the destination of a subject transform for a pattern: the same
// subject after a prefix, which contains some of the wildcards.
func moved(pattern, prefix string, wildcards int) string {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		if token == "*" {
			wildcards++
			tokens[i] = "{{wildcard(" + strconv.Itoa(wildcards) + ")}}"
		}
	}
	return prefix + strings.Join(tokens, ".")
}

// shareStats is Stats for a topic of a store.
func (t *stored) shareStats(ctx context.Context) (driver.TopicStats, error) {
	if isPattern(t.topic) && t.topic != t.store {
		return t.partStats(ctx)
	}
	info, err := t.conn.topicInfo(ctx, t.backing, t.topic)
	if err != nil {
		return driver.TopicStats{}, err
	}
	s := driver.TopicStats{Stored: info.Messages, Deduplicated: t.deduplicated.Load(), Newest: info.newest, Created: info.Created}
	if s.Stored > 0 {
		s.First, s.Last = info.First, info.Last
	}
	if !isPattern(t.topic) {
		s.Delayed, err = t.delayed(ctx)
	}
	return s, err
}

// partStats is Stats for the topics of a store that match a pattern. They may be
// many, so it does not ask for each.
func (t *stored) partStats(ctx context.Context) (s driver.TopicStats, err error) {
	info, err := t.info(ctx)
	if err != nil {
		return s, err
	}
	s.Deduplicated, s.Newest, s.Created = t.deduplicated.Load(), info.State.LastSeq, info.Created
	begin := max(info.State.FirstSeq, 1)
	if s.Stored, err = t.countFrom(ctx, begin); err != nil || s.Stored == 0 {
		return s, err
	}
	err = t.conn.find(ctx, "topic "+t.topic, func(ctx context.Context) error {
		first, err := t.conn.firstFrom(ctx, t.backing, t.topic, map[string]any{"seq": begin})
		if err != nil {
			return err
		}
		last, err := t.conn.lastOf(ctx, t.backing, t.topic)
		if err == nil && (first.Seq == 0 || last.Seq == 0) { // deleted meanwhile
			s.Stored = 0
			return nil
		}
		if err == nil {
			s.First, s.Last = first.Seq, last.Seq
		}
		return err
	})
	return s, err
}

// newestShared is newest for a topic in a store, where sequences of other topics
// lie in between. It asks how many messages follow a sequence until it finds the
// one with n.
func (t *stored) newestShared(ctx context.Context, n uint64) (uint64, error) {
	info, err := t.info(ctx)
	if err != nil {
		return 0, err
	}
	low, high := max(info.State.FirstSeq, 1), info.State.LastSeq+1
	for high-low > 1 {
		middle := low + (high-low)/2
		count, err := t.countFrom(ctx, middle)
		if err != nil {
			return 0, err
		}
		if count >= n {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// leaderTries is how often a consumer is made at once until it is on the leader of a
// stream with three replicas, which by then has failed in one of 200,000 cases.
const leaderTries = 30

// countFrom returns how many messages there are from a sequence on. On a cluster the
// server counts on which the consumer is made, and others than the leader may not have
// the newest messages yet. It cannot be chosen.
func (t *stored) countFrom(ctx context.Context, seq uint64) (count uint64, err error) {
	if t.config.Load().Replicas <= 1 {
		count, _, err = t.countOnce(ctx, seq)
		return count, err
	}
	err = t.conn.state.do(ctx, func(ctx context.Context) error {
		for range leaderTries {
			info, err := t.info(ctx)
			if err != nil {
				return err
			}
			var on string
			if count, on, err = t.countOnce(ctx, seq); err != nil || on == leaderOf(info.Cluster) {
				return err
			}
		}
		return fmt.Errorf("%w: the messages were counted on servers that may be behind", driver.ErrAgain)
	})
	return count, err
}

// countOnce is countFrom on any server, and returns on which.
func (t *stored) countOnce(ctx context.Context, seq uint64) (count uint64, on string, err error) {
	cfg := jetstream.ConsumerConfig{
		Name: "hark-" + t.conn.ids.next(), FilterSubject: t.all(t.topic), DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: seq,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: consumerIdle,
	}
	err = t.conn.state.do(ctx, func(ctx context.Context) error {
		consumer, err := t.conn.api(ctx).CreateOrUpdateConsumer(ctx, t.stream, cfg)
		if err != nil {
			return t.consumerError(ctx, err)
		}
		count, on = consumer.CachedInfo().NumPending, leaderOf(consumer.CachedInfo().Cluster)
		return nil
	})
	if err == nil {
		t.forget(cfg.Name)
	}
	return count, on, err
}
