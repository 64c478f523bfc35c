package natsdriver

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/internal/names"
)

// backing is the stream behind topics: that of one topic, or a store, which is the
// stream of all topics that match a pattern.
//
// In a store the subject of a message is $HARK.s.PARTITION.TOPIC, with - as the
// partition of messages without a key, so that one filter with one wildcard selects
// all messages of a topic. Consumers with two filters cannot be permitted to users
// who may not read the whole stream, and servers find their messages more slowly.
type backing struct {
	stream string
	store  string // its pattern; empty for the stream of one topic
}

const (
	storePrefix = "$HARK.s."
	storePlain  = "-" // the partition of messages without a key
)

// storeStream returns the name of the stream of a store.
func storeStream(pattern string) string { return streamName("store", pattern) }

// storeStreams is the prefix of the names of the streams of stores.
var storeStreams = storeStream("")

// storeSubjects returns the subjects in stores of all messages of a topic, or of
// the topics that match a pattern.
func storeSubjects(topics string) string { return storePrefix + "*." + topics }

func ownBacking(topic string) backing { return backing{stream: topicStream(topic)} }

func storeBacking(pattern string) backing { return backing{storeStream(pattern), pattern} }

// nominalBacking returns the backing of a topic that is in no store, or of a pattern.
func nominalBacking(topic string) backing {
	if isPattern(topic) {
		return storeBacking(topic)
	}
	return ownBacking(topic)
}

func (b *backing) shared() bool { return b.store != "" }

// all returns the filter for all messages of topics, empty if the stream holds
// nothing else.
func (b *backing) all(topics string) string {
	if b.shared() {
		return storeSubjects(topics)
	}
	return ""
}

// filters is all as a list, nil for everything.
func (b *backing) filters(topics string) []string {
	if f := b.all(topics); f != "" {
		return []string{f}
	}
	return nil
}

// plain returns the filter for messages without a key.
func (b *backing) plain(topics string) string {
	if b.shared() {
		return storePrefix + storePlain + "." + topics
	}
	return topics
}

// partition returns the filter for the messages of a partition, which for one topic
// is the subject they are published to.
func (b *backing) partition(topics string, n int) string {
	if b.shared() {
		return storePrefix + strconv.Itoa(n) + "." + topics
	}
	return partitionSubject(topics, n)
}

// consumer returns the name of the consumer of a group. In a store, groups on
// different topics may have the same name.
func (b *backing) consumer(topics, group string) string {
	if !b.shared() {
		return groupConsumer(group)
	}
	// No name made by assetName contains ~g.
	return cutName(assetName("", topics)+"~g"+groupConsumer(group), topics+" "+group)
}

// holds reports whether a subject belongs to a topic.
func (b *backing) holds(topic, subject string) bool {
	if !b.shared() {
		return true
	}
	of, ok := storedTopic(subject)
	return ok && names.Covers(topic, of)
}

// storedTopic returns the topic of a message in a store.
func storedTopic(subject string) (string, bool) {
	rest, ok := strings.CutPrefix(subject, storePrefix)
	if !ok {
		return "", false
	}
	_, topic, ok := strings.Cut(rest, ".")
	return topic, ok
}

// topicsOf returns the topics of a consumer of a store, as they were given: a name
// or a pattern.
func topicsOf(c *jetstream.ConsumerConfig) string {
	for _, f := range filters(c) {
		if topics, ok := storedTopic(f); ok {
			return topics
		}
	}
	return ""
}

// isKeyed reports whether a consumer belongs to a group that keeps the order of
// keys. Other consumers get the messages of all partitions.
func (b *backing) isKeyed(c *jetstream.ConsumerConfig) bool {
	have := filters(c)
	return len(have) > 0 && !strings.HasPrefix(have[0], storePrefix+"*.")
}

// backing returns where a topic is kept: in a stream of its own, even if that does not
// exist yet, or in the store of a pattern. A pattern is a store, or a part of one.
func (c *Conn) backing(ctx context.Context, topic string) (backing, error) {
	own := nominalBacking(topic)
	at, err := c.locate(ctx, topic)
	switch {
	case err != nil:
		return own, err
	case at != nil && (!at.Whole && !at.Stored || at.Store != "" && !names.Covers(at.Store, topic)):
		return own, jetstream.ErrStreamNotFound
	case at != nil && at.Store != "":
		return storeBacking(at.Store), nil
	}
	if _, err = c.api(ctx).Stream(ctx, own.stream); at == nil {
		c.served(err)
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return own, err
	}
	b, found, findErr := c.findStore(ctx, topic)
	if findErr != nil {
		return own, findErr
	}
	if found {
		return b, nil
	}
	return own, err
}

// findStore returns the store that takes messages published to a topic, or to all
// topics of a pattern.
func (c *Conn) findStore(ctx context.Context, topic string) (backing, bool, error) {
	stream, err := c.api(ctx).StreamNameBySubject(ctx, topic)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), err == nil && !strings.HasPrefix(stream, storeStreams):
		return backing{}, false, nil
	case err != nil:
		return backing{}, false, passing(err)
	}
	pattern, err := c.patternOf(ctx, stream)
	return backing{stream, pattern}, pattern != "" && names.Covers(pattern, topic), err
}

// patternOf returns the pattern of the stream of a store, or "" if it is gone.
func (c *Conn) patternOf(ctx context.Context, stream string) (string, error) {
	return c.nameOf(ctx, stream, storeStreams)
}

func isPattern(topic string) bool { return strings.ContainsAny(topic, "*>") }
