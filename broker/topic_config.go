package broker

import (
	"fmt"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// TopicConfig declares a stored topic, or a store: all topics that match a pattern, kept
// together. Zero limits are none; those of a store are those of its topics together.
type TopicConfig struct {
	Name       string        // or pattern
	Age        time.Duration // how long messages are kept
	Bytes      int64         // how much is kept
	Count      int64         // how many messages are kept
	PerKey     int64         // how many messages of each key are kept, of each topic
	PerTopic   int64         // how many messages of each topic of a store are kept
	Durability string        // strict, relaxed or memory; empty for strict
	Dedup      time.Duration // how long IDs are remembered
	// DeadLetters lists it among the topics for dead letters, as those are whose
	// names end in .dead.
	DeadLetters bool
}

// newTopicConfig returns the defaults of a topic.
func newTopicConfig() TopicConfig {
	return TopicConfig{Durability: "strict", Dedup: 2 * time.Minute}
}

// shortenDedup limits the default deduplication time to the time that messages are
// kept.
func (c *Config) shortenDedup() {
	for i := range c.Topics {
		t := &c.Topics[i]
		if _, said := c.places[fmt.Sprintf("topics[%d].dedup", i)]; !said && t.Age > 0 {
			t.Dedup = min(t.Dedup, t.Age)
		}
	}
}

var topicFields = []field[TopicConfig]{
	text("name", "topic or pattern", "", "the name of the topic, or a pattern that begins with a name, such as orders.>: all topics that match it are stored from their first message on, in one store (see [Patterns](#patterns))", func(t *TopicConfig) *string { return &t.Name }),
	duration("age", "", "how long to keep messages; for ever by default", func(t *TopicConfig) *time.Duration { return &t.Age }),
	size("bytes", "", "how much to keep; beyond that the oldest messages are removed", func(t *TopicConfig) *int64 { return &t.Bytes }),
	count("count", "", "how many messages to keep; beyond that the oldest are removed", func(t *TopicConfig) *int64 { return &t.Count }),
	count("per_key", "", "how many messages of each key to keep, 1 for the last value; the broker removes older ones soon after, whether or not groups have read them. Messages without a key are kept", func(t *TopicConfig) *int64 { return &t.PerKey }),
	choice("durability", "strict", "what an acknowledged message survives: strict a loss of power, relaxed the death of the process, memory nothing", func(t *TopicConfig) *string { return &t.Durability }, "strict", "relaxed", "memory"),
	duration("dedup", "2m", "how long to remember message IDs, so that repeats are not stored; 0s for not at all. By default no longer than `age`", func(t *TopicConfig) *time.Duration { return &t.Dedup }),
	count("per_topic", "", "for a pattern: how many messages of each topic to keep, 1 for the last value. The server removes older ones at once; if they have keys, the broker does so soon after", func(t *TopicConfig) *int64 { return &t.PerTopic }),
	boolean("dead_letters", "false", "list it among the dead-letter topics (`hark dlq list`), like those whose names end in .dead", func(t *TopicConfig) *bool { return &t.DeadLetters }),
}

var durabilities = map[string]driver.Durability{
	"": driver.DurableStrict, "strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed, "memory": driver.DurableMemory,
}

// isStore reports whether it declares a store.
func (t *TopicConfig) isStore() bool { return names.IsPattern(t.Name) }

// store returns the configuration for the engine, for a store.
func (t *TopicConfig) store() natsdriver.StoreConfig {
	return natsdriver.StoreConfig{Pattern: t.Name, StoredConfig: *t.stored(), MaxPerTopic: int(t.PerTopic)}
}

// keeps reports whether it keeps all topics of a name or pattern.
func (t *TopicConfig) keeps(topics string) bool { return names.Covers(t.Name, topics) }

// keeper returns the declared topic or store that keeps all topics of a name or
// pattern, or nil if none does.
func keeper(topics []TopicConfig, of string) *TopicConfig {
	for i := range topics {
		if topics[i].keeps(of) {
			return &topics[i]
		}
	}
	return nil
}

// keptInPart says why a configuration does not keep everything that a name or
// pattern covers, and what to do; it returns "" if it does.
func (c *Config) keptInPart(topics string) string {
	if keeper(c.Topics, topics) != nil || names.CheckPattern(topics) != nil {
		return "" // an invalid one is reported elsewhere
	}
	var parts []string
	for _, t := range c.Topics {
		if overlap(t.Name, topics) {
			parts = append(parts, t.Name)
		}
	}
	if len(parts) > 0 {
		return fmt.Sprintf("%s is stored in part only, by %s: declare one pattern under topics that covers it, or write one for each of them", topics, strings.Join(parts, ", "))
	}
	return fmt.Sprintf("nothing stores %s: declare it under topics, or a pattern that covers it", topics)
}

// declaredTopics are the topics of a configuration, for lookups.
type declaredTopics struct {
	names  map[string]bool
	stores []string // patterns
}

func newDeclaredTopics(topics []TopicConfig) declaredTopics {
	d := declaredTopics{names: map[string]bool{}}
	for _, t := range topics {
		if t.isStore() {
			d.stores = append(d.stores, t.Name)
		} else {
			d.names[t.Name] = true
		}
	}
	return d
}

// has reports whether messages of a topic, or of all topics of a pattern, are
// stored.
func (d declaredTopics) has(topic string) bool { return d.names[topic] || d.storeOf(topic) != "" }

// storeOf returns the pattern of the declared store that keeps a topic, or all
// topics of a pattern, or "" if there is none.
func (d declaredTopics) storeOf(topic string) string {
	for _, pattern := range d.stores {
		if names.Covers(pattern, topic) {
			return pattern
		}
	}
	return ""
}

// stored returns the configuration for the engine.
func (t *TopicConfig) stored() *driver.StoredConfig {
	return &driver.StoredConfig{
		MaxMessages: int(t.Count), MaxAge: t.Age, MaxBytes: t.Bytes, Dedup: t.Dedup, Durability: durabilities[t.Durability], DeadLetters: t.DeadLetters,
	}
}
