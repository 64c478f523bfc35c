package hark

import "time"

// A hook is any value that implements one or more of the one-method interfaces
// below. Pass it to WithHooks. Hooks are called synchronously where the event
// happens, from many goroutines at once and without a lock held, so they must
// be quick and safe for concurrent use. A hook that panics crashes the program.

// PublishHook is called for each call that published messages, once they are accepted.
type PublishHook interface{ OnPublish(PublishEvent) }

// DeliverHook is called for each message whose handler returned without an
// error.
type DeliverHook interface{ OnDeliver(DeliverEvent) }

// FailHook is called for each handler that returned an error or panicked.
type FailHook interface{ OnFail(FailEvent) }

// DropHook is called for messages that will not reach a subscription.
type DropHook interface{ OnDrop(DropEvent) }

// DeadLetterHook is called for each message that was given up.
type DeadLetterHook interface{ OnDeadLetter(FailEvent) }

// SlowHook is called for a handler that has been running for longer than the
// threshold set by SlowAfter. It is called once per run, while the handler is
// still running.
type SlowHook interface{ OnSlow(SlowEvent) }

// ConnHook is called when the connection to an engine is lost and when it is
// back. In process there is no connection.
type ConnHook interface{ OnConn(ConnEvent) }

// ConnEvent reports a change of a connection to an engine. If it is up with an
// Err, something on it has failed that does not recover by itself.
type ConnEvent struct {
	Engine  string // such as "nats"
	Address string
	Up      bool
	Err     error // why it is down, or what failed
}

// PublishEvent says what was published.
type PublishEvent struct {
	Topic string
	Count int // messages accepted by the call
}

// Source says where on a bus something happened.
type Source struct {
	Kind         Kind
	Name         string // of the topic, pattern, request, channel or value; what a listener is registered under
	Subscription string // its name or group, the listener's ID; empty where there is none
}

// DeliverEvent says which message was handled.
type DeliverEvent struct {
	Source
	Attempt int // 1 for the first
}

// FailEvent says which handler failed and what follows.
type FailEvent struct {
	Source
	Message Envelope // nil for a notification or an observer; must not be kept
	Attempt int      // 1 for the first
	Err     error    // a *PanicError if the handler panicked
	Retry   bool     // another attempt follows
	After   time.Duration
}

// DropEvent says how many messages did not reach a subscription, and why.
type DropEvent struct {
	Source
	Count  int
	Reason DropReason
}

// DropReason says why a message did not reach a subscription.
type DropReason string

// The reasons for a drop.
const (
	DropOverflow  DropReason = "overflow"  // the subscription's overflow policy
	DropExpired   DropReason = "expired"   // the message's TTL had passed
	DropRetention DropReason = "retention" // the stored topic no longer had it
	DropByHandler DropReason = "handler"   // the handler returned Drop
	DropGivenUp   DropReason = "given up"  // attempts used up and no dead-letter topic
	DropClosed    DropReason = "closed"    // the subscription was closed with messages waiting
	// DropUnreachable is for a delayed message of an ephemeral topic that could
	// not be sent when it was due.
	DropUnreachable DropReason = "unreachable"
	// DropUndecodable is for a value of a channel that cannot be decoded, or was
	// put into In and cannot be encoded or is larger than the engine takes.
	DropUndecodable DropReason = "undecodable"
)

// SlowEvent says which handler is slow.
type SlowEvent struct {
	Source
	For time.Duration // how long it has been running
}

// hooks holds the hooks of a bus by kind, so that an event without a hook costs
// only a length check.
type hooks struct {
	publish    []PublishHook
	deliver    []DeliverHook
	fail       []FailHook
	drop       []DropHook
	deadLetter []DeadLetterHook
	slow       []SlowHook
	conn       []ConnHook
}

// add files h under each interface that it implements, and reports whether
// there was one.
func (hs *hooks) add(h any) bool {
	n := addHook(&hs.publish, h) + addHook(&hs.deliver, h) + addHook(&hs.fail, h) +
		addHook(&hs.drop, h) + addHook(&hs.deadLetter, h) + addHook(&hs.slow, h) +
		addHook(&hs.conn, h)
	return n > 0
}

func addHook[H any](to *[]H, h any) int {
	if hook, ok := h.(H); ok {
		*to = append(*to, hook)
		return 1
	}
	return 0
}

func (hs *hooks) onPublish(e PublishEvent) {
	for _, h := range hs.publish {
		h.OnPublish(e)
	}
}

func (hs *hooks) onDeliver(e DeliverEvent) {
	for _, h := range hs.deliver {
		h.OnDeliver(e)
	}
}

func (hs *hooks) onFail(e FailEvent) {
	for _, h := range hs.fail {
		h.OnFail(e)
	}
}

func (hs *hooks) onDrop(e DropEvent) {
	for _, h := range hs.drop {
		h.OnDrop(e)
	}
}

func (hs *hooks) onDeadLetter(e FailEvent) {
	for _, h := range hs.deadLetter {
		h.OnDeadLetter(e)
	}
}

func (hs *hooks) onConn(e ConnEvent) {
	for _, h := range hs.conn {
		h.OnConn(e)
	}
}

func (hs *hooks) onSlow(e SlowEvent) {
	for _, h := range hs.slow {
		h.OnSlow(e)
	}
}
