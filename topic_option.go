package hark

import (
	"fmt"
	"time"
)

// TopicOption configures NewTopic.
type TopicOption interface{ applyTopic(*topicConfig) error }

type topicConfig struct {
	keyOf     any // func(T) string
	retention *Retention
	dedup     time.Duration
	codec     Codec
	bare      bool
	existing  bool // a stored topic is accepted with whatever limits it has
	dead      bool // it is for dead letters
}

type topicOption func(*topicConfig) error

func (f topicOption) applyTopic(c *topicConfig) error { return f(c) }

// KeyBy sets the key of a topic's messages: parallel handlers get messages with
// the same key in order, one at a time. An empty key means none. The function
// may be called more than once per message, by subscriptions that need the key
// and concurrently, so it must be fast and deterministic. If it panics, the
// message fails where the key was needed, as if the handler had panicked. A key
// passed to Publish with Key takes precedence.
func KeyBy[T any](key func(T) string) TopicOption {
	return topicOption(func(c *topicConfig) error {
		if key == nil {
			return fmt.Errorf("%w: KeyBy(nil)", ErrInvalidOption)
		}
		c.keyOf = key
		return nil
	})
}

// Retention says how long a stored topic keeps messages. The zero Retention
// keeps all of them for as long as the store lives: in process, the bus.
type Retention struct {
	// MaxMessages is how many are kept, 0 for all.
	MaxMessages int
	// MaxAge is how long each is kept, 0 for ever; a delayed one from when it is
	// due.
	MaxAge time.Duration
	// MaxBytes limits their encoded size, 0 for no limit. In process nothing
	// is encoded: NewTopic refuses it with ErrUnsupported.
	MaxBytes int64
	// Durability says what a message survives once Publish has returned. 0 is
	// that of the topic, if the engine has it already, or else the strongest
	// that the engine promises. In process that is Memory.
	Durability Durability
}

// Durability says what a stored message survives. An engine that cannot
// guarantee a class returns ErrUnsupported.
type Durability uint8

// The classes of durability.
const (
	// Strict messages are on disk: they survive the loss of power.
	Strict Durability = iota + 1
	// Relaxed messages are written in the background: they survive the end of
	// the process at any moment, but not the loss of power.
	Relaxed
	// Memory messages last as long as the engine runs; in process, the bus.
	Memory
)

func (d Durability) String() string {
	switch d {
	case Strict:
		return "strict"
	case Relaxed:
		return "relaxed"
	case Memory:
		return "memory"
	}
	return fmt.Sprintf("Durability(%d)", uint8(d))
}

// Stored makes a topic keep its messages, so that subscriptions can start in the
// past and groups keep their place while they have no members. Publishing to it
// never waits for subscriptions.
func Stored(r Retention) TopicOption {
	return topicOption(func(c *topicConfig) error {
		if r.MaxMessages < 0 || r.MaxAge < 0 || r.MaxBytes < 0 {
			return fmt.Errorf("%w: Stored(%+v): a limit must not be negative", ErrInvalidOption, r)
		}
		if r.Durability > Memory {
			return fmt.Errorf("%w: Stored(%+v): unknown durability", ErrInvalidOption, r)
		}
		c.retention = &r
		return nil
	})
}

// Existing takes a stored topic that is there already as it is, whatever its limits,
// durability and window of deduplication. Stored, without which Existing is
// ErrInvalidOption, and DedupWindow, which must not be 0, then only say how to create the
// topic if it is not there. So those who run a broker can change the limits of its topics
// without a change to the programs that use them. Existing may come with a later call of a
// process than the first, if that one had Stored too.
func Existing() TopicOption {
	return topicOption(func(c *topicConfig) error {
		c.existing = true
		return nil
	})
}

// DedupWindow makes publishing a message whose ID was published within the last
// d do nothing and succeed. Stored topics have a window of two minutes by
// default, other topics none; d = 0 means none.
func DedupWindow(d time.Duration) TopicOption {
	return topicOption(func(c *topicConfig) error {
		if d < 0 {
			return fmt.Errorf("%w: DedupWindow(%v): want at least 0", ErrInvalidOption, d)
		}
		c.dedup = d
		return nil
	})
}

const storedDedupWindow = 2 * time.Minute
