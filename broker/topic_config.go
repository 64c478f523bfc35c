package broker

import (
	"time"

	"github.com/harkbus/hark/driver"
)

// TopicConfig declares a stored topic. Zero limits are none.
type TopicConfig struct {
	Name       string
	Age        time.Duration // how long messages are kept
	Bytes      int64         // how much is kept
	Count      int64         // how many messages are kept
	PerKey     int64         // how many messages of each key are kept
	Durability string        // strict, relaxed or memory; empty for strict
	Dedup      time.Duration // how long IDs are remembered
	// DeadLetters lists it among the topics for dead letters, as those are whose
	// names end in .dead.
	DeadLetters bool
}

// newTopicConfig returns what is not said of a topic.
func newTopicConfig() TopicConfig {
	return TopicConfig{Durability: "strict", Dedup: 2 * time.Minute}
}

var topicFields = []field[TopicConfig]{
	text("name", "topic", "", "the name of the topic", func(t *TopicConfig) *string { return &t.Name }),
	duration("age", "", "how long messages are kept; for ever if it is left out", func(t *TopicConfig) *time.Duration { return &t.Age }),
	size("bytes", "", "how much is kept; beyond that the oldest messages go", func(t *TopicConfig) *int64 { return &t.Bytes }),
	count("count", "", "how many messages are kept; beyond that the oldest go", func(t *TopicConfig) *int64 { return &t.Count }),
	count("per_key", "", "how many messages of each key are kept, 1 for the last value; the broker removes older ones soon after, whether or not groups have read them. Messages without a key stay", func(t *TopicConfig) *int64 { return &t.PerKey }),
	choice("durability", "strict", "what an acknowledged message survives: strict the loss of power, relaxed the end of the process, memory nothing", func(t *TopicConfig) *string { return &t.Durability }, "strict", "relaxed", "memory"),
	duration("dedup", "2m", "how long a message ID is remembered, so that repeats are not stored; 0s for not at all", func(t *TopicConfig) *time.Duration { return &t.Dedup }),
	boolean("dead_letters", "false", "list it among the topics for dead letters (`hark dlq list`), as those are whose names end in .dead", func(t *TopicConfig) *bool { return &t.DeadLetters }),
}

var durabilities = map[string]driver.Durability{
	"": driver.DurableStrict, "strict": driver.DurableStrict, "relaxed": driver.DurableRelaxed, "memory": driver.DurableMemory,
}

// stored returns what an engine is asked for.
func (t *TopicConfig) stored() *driver.StoredConfig {
	return &driver.StoredConfig{
		MaxMessages: int(t.Count), MaxAge: t.Age, MaxBytes: t.Bytes, Dedup: t.Dedup, Durability: durabilities[t.Durability], DeadLetters: t.DeadLetters,
	}
}
