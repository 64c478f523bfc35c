package driver

import (
	"context"
	"time"
)

// Durability says what a stored message survives once Publish has returned.
type Durability uint8

// The classes of durability.
const (
	// DurableStrict messages are on disk: they survive the loss of power.
	DurableStrict Durability = iota
	// DurableRelaxed messages are written in the background: they survive the
	// end of the process at any moment, not the loss of power.
	DurableRelaxed
	// DurableMemory messages last as long as the engine runs.
	DurableMemory
)

// TopicConfig says which topic, and how it is made if it is not there.
type TopicConfig struct {
	// Name is valid by hark's rules for names: tokens separated by dots. With
	// StoredPatterns it may be a pattern.
	Name string
	// Stored is nil for an ephemeral topic.
	Stored *StoredConfig
}

// StoredConfig configures a stored topic. Zero limits are none.
type StoredConfig struct {
	MaxMessages int
	MaxAge      time.Duration
	MaxBytes    int64
	Dedup       time.Duration // how long IDs are remembered; 0 not at all
	Durability  Durability
	Existing    bool // take it as it is if it is there
	DeadLetters bool // made for dead letters, which tools can find by that
}

// Topic is a topic of an engine.
type Topic interface {
	// Publish sends messages in their order and returns when all are accepted:
	// stored with the topic's durability, or for an ephemeral topic handed over
	// such that nothing published later on this connection overtakes them. If
	// some are not accepted the error is a PartialError; with any other error
	// none is. A repeat that deduplication recognises is accepted. Engines
	// gather the messages of concurrent calls into batches.
	//
	// The byte slices and headers of the messages may be kept until Publish
	// returns.
	Publish(ctx context.Context, ms []*Message) error

	// Subscribe begins to receive. What is published after it has returned is
	// received.
	Subscribe(ctx context.Context, c SubscribeConfig) (Subscription, error)

	// Stats returns what the engine knows of a topic.
	Stats(ctx context.Context) (TopicStats, error)
}

// Placer is a Topic that can say where it has stored messages.
type Placer interface {
	// PublishPlaced is Publish that says where each message is that was
	// accepted. With an error that is no PartialError there are no places.
	PublishPlaced(ctx context.Context, ms []*Message) ([]Place, error)
}

// Place says where a message is that was published.
type Place struct {
	Seq uint64 // 0 for one that is not due, or that was not accepted
	// Repeated says that deduplication has recognised it: Seq is that of the
	// message that was stored.
	Repeated bool
}

// TopicStats are the numbers of a stored topic; all 0 for others.
type TopicStats struct {
	Stored       uint64 // messages kept now
	First, Last  uint64 // their sequences; 0 without any
	Deduplicated uint64 // repeats recognised, as far as this connection knows
	Delayed      uint64 // messages that are not due
}

// PartialError says what became of each message of a Publish: an error, or nil
// for one that was accepted.
type PartialError []error

func (e PartialError) Error() string {
	for _, err := range e {
		if err != nil {
			return "some messages were not accepted: " + err.Error()
		}
	}
	return "all messages were accepted"
}

// Unwrap returns the errors.
func (e PartialError) Unwrap() []error { return e }

// From says where on a stored topic a subscription begins.
type From uint8

// The places to begin. A group that has a place goes on from there.
const (
	FromNow   From = iota // with what is published next
	FromStart             // with the oldest message kept
	FromSeq               // with sequence Seq, or the oldest kept after it
	FromTime              // with the first message of Time or later
	FromLast              // with the newest Seq messages
)

// SubscribeConfig says what a subscription is to receive.
type SubscribeConfig struct {
	// Group is empty for a subscription that gets everything. The members of a
	// group share the messages; on a stored topic the group has a place that
	// outlives them.
	Group string
	// Keyed asks for the order of keys across the members of the group
	// (KeyOrder): messages of one key are never in the hands of two members.
	Keyed bool
	From  From
	Seq   uint64
	Time  time.Time
	// Window is how many messages of a stored topic may be in hand, received
	// and neither acknowledged nor returned; at least 1. On an ephemeral topic
	// it is how many the engine holds for Receive before it drops the newest,
	// counted.
	Window int
}

// Subscription receives messages. Receive is called by one goroutine at a time,
// the other methods by any.
type Subscription interface {
	// Receive returns between 1 and most messages, as soon as there is one. It
	// returns ErrEnded when there will be none any more, after Drain or Close.
	Receive(ctx context.Context, most int) ([]*Received, error)

	// Ack says that messages are done with. When the subscription has a place,
	// that is remembered with the topic's durability; it may be remembered
	// later than Ack returns, but before Close does. On ephemeral topics and
	// without a group it does nothing.
	Ack(ctx context.Context, ms []*Received) error

	// Extend says that messages are still being worked on, so that they are
	// not given to somebody else. It is called well within Info.Lease.
	Extend(ctx context.Context, ms []*Received) error

	// Return hands messages back that are not done: others in the group get
	// them, or this one later on. Without a group it does nothing.
	Return(ctx context.Context, ms []*Received) error

	// Drain makes what was published before the call the last that Receive
	// returns. On a stored topic with a group it makes what has been fetched
	// the last; the group keeps the rest.
	Drain(ctx context.Context) error

	// Lag returns how many messages the subscription, or its group, has not
	// received yet, and how many were lost: to the Window of an ephemeral
	// topic, or to retention.
	Lag(ctx context.Context) (Lag, error)

	// CaughtUp reports whether everything up to sequence seq of a stored topic
	// has been returned by Receive, of this subscription or another one of its
	// group; on an ephemeral topic, where seq is 0, everything that has arrived.
	// It may wait for what is on its way to this one, of which Receive has to be
	// called meanwhile.
	CaughtUp(ctx context.Context, seq uint64) (bool, error)

	// Close ends it: Receive returns ErrEnded. Messages in hand are returned.
	// A group on a stored topic keeps its place. It is idempotent.
	Close(ctx context.Context) error
}

// Recycler is a Subscription that uses what Receive returned again.
type Recycler interface {
	// Recycle says that nobody looks any more at messages that Receive returned
	// last, nor at their slice; their data and headers may still be in use. It is
	// called by who calls Receive.
	Recycle(ms []*Received)
}

// Lag says how far a subscription is behind.
type Lag struct {
	Waiting uint64
	Lost    uint64
	Members int // of the group, as far as known; at least 1
}
