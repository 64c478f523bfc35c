// Package driver is the contract between hark and an engine: what a package
// such as driver/natsdriver fulfils so that a bus can run over it. Programs use
// package hark; only those who write an engine, or make a connection by hand
// (hark.Over), need this one.
//
// An engine carries bytes and knows nothing of Go types, handlers, retries or
// workers: all of that is done by package hark, the same over every engine. An
// engine must fulfil Conn. What not every engine can do is an optional
// interface of the Conn (Requester, Chans, Values, Signals), or a Capability that it declares; package
// hark refuses with hark.ErrUnsupported what an engine does not have, when it
// is opened. The conformance suite
// (driver/drivertest) holds an engine to what it declares.
//
// # Rules for all methods
//
// Every method may be called by several goroutines at the same time, unless it
// says otherwise. A method that is given a context returns when that ends, with
// its cause, and may block until then; it never blocks longer. What it was
// given (slices, messages, byte slices, maps) it must not keep or change after
// it has returned, except where it says so; what it returns belongs to the
// caller. Connections that break are the engine's to mend: it tries again with
// a backoff, and calls wait for that in their contexts. Nothing is retried by
// the caller but what an error wraps ErrAgain for.
package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The kinds of errors that package hark acts upon; engines wrap them.
var (
	// ErrClosed says that the connection, or the thing on it, has been closed.
	ErrClosed = errors.New("closed")
	// ErrUnsupported says that this engine, or the server that it found, cannot
	// do what was asked. The text names the engine and the capability.
	ErrUnsupported = errors.New("unsupported")
	// ErrConflict says that what is opened is there with another
	// configuration.
	ErrConflict = errors.New("exists with another configuration")
	// ErrFull says that a limit of the engine is reached and nothing was stored.
	ErrFull = errors.New("full")
	// ErrTooLarge is an ErrFull that stays: the message is larger than the engine
	// takes.
	ErrTooLarge = fmt.Errorf("%w: too large", ErrFull)
	// ErrNoResponders says that nobody answers requests of that name.
	ErrNoResponders = errors.New("no responders")
	// ErrUnsure says that it is not known whether something happened: the
	// connection was lost, or the context ended, before the engine answered.
	ErrUnsure = errors.New("not known whether it happened")
	// ErrAgain says that nothing happened and that the call may be made again.
	ErrAgain = errors.New("try again")
)

// Capability is something that not every engine can do.
type Capability string

// The capabilities of topics, and of Signals. The other faces are interfaces of
// the Conn instead.
const (
	// Stored topics keep messages: Topic.Stored may be set.
	Stored Capability = "stored topics"
	// MaxBytes limits stored topics by size.
	MaxBytes Capability = "retention by size"
	// Dedup stored topics take a message ID once within a window.
	Dedup Capability = "deduplication by ID"
	// StoredPatterns can be opened as one stored topic: the name in a TopicConfig
	// may be a pattern. Which patterns that are is the engine's: others are
	// ErrUnsupported.
	StoredPatterns Capability = "patterns of stored topics"
	// Delay delivers messages of stored topics later: Message.Due may be set.
	Delay Capability = "delayed messages"
	// EphemeralDelay does that on ephemeral topics.
	EphemeralDelay Capability = "delayed messages on ephemeral topics"
	// KeyOrder keeps the order of keys across the members of a group.
	KeyOrder Capability = "order by key across a group"
	// Backpressure makes Publish on ephemeral topics wait for subscriptions.
	Backpressure Capability = "backpressure on ephemeral topics"
	// HandBack gives what a member of a group on an ephemeral topic has not
	// begun to the others when it leaves or stalls.
	HandBack Capability = "return of ephemeral messages to their group"
	// Deadlocks are recognised: handlers that wait for themselves.
	Deadlocks Capability = "detection of handlers that wait for themselves"
	// Strict, Relaxed and Memory are the classes of durability that can be
	// promised.
	Strict  Capability = "durability Strict"
	Relaxed Capability = "durability Relaxed"
	Memory  Capability = "durability Memory"
	// Latches are kept for connections that listen later, and set until somebody
	// clears them.
	Latches Capability = "latches"
)

// Info describes an engine and the server behind it.
type Info struct {
	Engine  string // such as "nats"
	Server  string // its version, empty if unknown or none
	Address string // for messages to people; without credentials
	Can     []Capability
	// Lease is how long a message that was received may be in hand before the
	// engine gives it to somebody else; Subscription.Extend renews it. 0 means
	// for as long as the subscription lives.
	Lease time.Duration
	// MaxPayload is how large the data of a message may be in bytes; 0 for no
	// limit.
	MaxPayload int
}

// Has reports whether the engine has a capability.
func (i *Info) Has(c Capability) bool {
	return slices.Contains(i.Can, c)
}

// Conn is a connection to an engine.
type Conn interface {
	// Info says what the engine can do. It does not block and always returns
	// the same.
	Info() Info

	// OpenTopic returns a topic, made if need be. A stored topic that is there
	// with another retention or durability is ErrConflict. With StoredPatterns
	// the name may be a pattern, with Stored: all stored topics that match it,
	// those made later too, as one, whose sequences grow in the order in which
	// it gives them out, and each topic's in its own. Nothing can be published
	// to it, and nothing is made.
	OpenTopic(ctx context.Context, c TopicConfig) (Topic, error)

	// SubscribePattern subscribes to what is published to the topics, ephemeral
	// and stored ones, whose names match a pattern of hark: * stands for one
	// token, a last > for one or more.
	SubscribePattern(ctx context.Context, pattern string, c SubscribeConfig) (Subscription, error)

	// Flush returns when every message that this connection published to an
	// ephemeral topic before is in the hands of the engine, and those that go
	// to Subscriptions of this connection can be received at once.
	Flush(ctx context.Context) error

	// Watch calls f when the connection is lost (down, with the reason) and
	// when it is back. f must not block. Calls do not overlap. Only one f is
	// watched at a time.
	Watch(f func(up bool, reason error))

	// Close ends the connection and everything on it, when what was accepted
	// has been written out or ctx ends. It is idempotent.
	Close(ctx context.Context) error
}
