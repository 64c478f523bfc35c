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

// TopicConfig names a topic, and says how to create it if it does not exist.
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
	AnyClass    bool // take it with another Durability too, if it is there
	Existing    bool // take it as it is if it is there
	DeadLetters bool // for dead letters, which tools can find by that
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

	// Subscribe begins to receive. Messages published after it has returned are
	// received.
	Subscribe(ctx context.Context, c SubscribeConfig) (Subscription, error)

	// Stats returns what the engine knows of a topic.
	Stats(ctx context.Context) (TopicStats, error)
}

// Placer is a Topic that can say where it has stored messages.
type Placer interface {
	// PublishPlaced is like Publish, and returns the place of each accepted
	// message. If the error is not a PartialError there are no places.
	PublishPlaced(ctx context.Context, ms []*Message) ([]Place, error)
}

// Place says where a published message is stored.
type Place struct {
	Seq uint64 // 0 for one that is not due, or that was not accepted
	// Repeated says that deduplication has recognised a repeat: Seq is that of
	// the message already stored.
	Repeated bool
}

// TopicStats are the numbers of a stored topic; all 0 for others.
type TopicStats struct {
	Stored       uint64 // messages kept now
	First, Last  uint64 // their sequences; 0 without any
	Newest       uint64 // the sequence that was given last, whether or not its message is kept
	Deduplicated uint64 // repeats recognised, as far as this connection knows
	Delayed      uint64 // messages that are not due
	// Created is when the topic was created. Its sequences are unique only together with this time,
	// because a topic that is deleted and created again uses the same sequences again. It is zero,
	// and so is Newest, if the engine does not report them.
	Created time.Time
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

// SubscribeConfig says what a subscription receives.
type SubscribeConfig struct {
	// Group is empty for a subscription that receives everything. The members of
	// a group share the messages; on a stored topic the group has a place that
	// outlives them.
	Group string
	// Keyed asks for the order of keys across the members of the group
	// (KeyOrder): no two members ever hold messages of one key.
	Keyed bool
	From  From
	Seq   uint64
	Time  time.Time
	// Window is how many messages of a stored topic may be received and neither
	// acknowledged nor returned; at least 1. On an ephemeral topic it is how
	// many the engine holds for Receive before it drops the newest, and counts
	// them.
	Window int
}

// Subscription receives messages. Receive is called by one goroutine at a time,
// the other methods by any.
type Subscription interface {
	// Receive returns between 1 and most messages, as soon as there is one. It
	// returns ErrEnded when no more will come, after Drain or Close.
	Receive(ctx context.Context, most int) ([]*Received, error)

	// Ack says that messages are done. If the subscription has a place, the
	// place is stored with the topic's durability, perhaps after Ack returns,
	// but before Close does. If Ack fails, the messages may come again. On
	// ephemeral topics and without a group it does nothing.
	Ack(ctx context.Context, ms []*Received) error

	// Extend says that what is here is still being handled, or will be, so that
	// it is not given to another receiver: messages received and neither
	// acknowledged nor returned, and those that wait for Receive. It should be
	// called well within Info.Lease, for as long as anything may take long.
	Extend(ctx context.Context) error

	// Return hands back messages that are not done: other members of the group
	// get them, or this one later. Without a group it does nothing.
	Return(ctx context.Context, ms []*Received) error

	// Drain makes the messages published before the call the last that Receive
	// returns. On a stored topic with a group the last are those already
	// fetched; the group keeps the rest.
	Drain(ctx context.Context) error

	// Lag returns how many messages the subscription, or its group, has not
	// received yet, and how many were lost: to the Window of an ephemeral
	// topic, or to retention.
	Lag(ctx context.Context) (Lag, error)

	// CaughtUp reports whether Receive, of this subscription or another of its
	// group, has returned everything up to sequence seq of a stored topic; on an
	// ephemeral topic, where seq is 0, everything that has arrived. It may wait
	// for messages in flight to this subscription, so Receive must be called
	// meanwhile.
	CaughtUp(ctx context.Context, seq uint64) (bool, error)

	// Close ends the subscription: Receive returns ErrEnded. Messages that are
	// held are returned. A group on a stored topic keeps its place. It is
	// idempotent.
	Close(ctx context.Context) error
}

// Recycler is a Subscription that reuses what Receive returned.
type Recycler interface {
	// Recycle says that the messages that Receive last returned, and their
	// slice, are no longer used; their data and headers may still be. The
	// goroutine that calls Receive calls it.
	Recycle(ms []*Received)
}

// Bounded is a Subscription to an ephemeral topic that bounds in bytes what its receiver
// holds.
type Bounded interface {
	// MaxHeld returns how large the messages may be together (Message.Size) that
	// were received and are not done; 0 means any size. While they are as large,
	// Receive should not be called. It may return another number each time, and does
	// not block.
	MaxHeld() int
}

// Lag says how far a subscription is behind.
type Lag struct {
	Waiting uint64
	Lost    uint64
	Members int // of the group, as far as known; at least 1
}
