// Package driver is the contract between hark and an engine: what a package such
// as driver/natsdriver implements so that a bus can run over it. Programs use
// package hark; only those who write an engine, or open a connection by hand
// (hark.Over), need this package.
//
// An engine carries bytes and knows nothing of Go types, handlers, retries or
// workers: package hark does all of that, in the same way over every engine. An
// engine must implement Conn. A feature that not every engine has is an optional
// interface of the Conn (Requester, Chans, Values, Signals), or a Capability
// that the engine declares. If the engine lacks one, package hark returns
// hark.ErrUnsupported when something that needs it is opened. The conformance
// suite (driver/drivertest) tests what an engine declares.
//
// # Rules for all methods
//
// Every method is safe for concurrent use, unless it says otherwise. A method
// with a context may block until the context ends, but no longer; then it
// returns its cause. It must not keep or change its arguments (slices, messages,
// byte slices, maps) after it has returned, except where it says so; its results
// belong to the caller. The engine repairs broken connections: it retries with a
// backoff, and calls wait for that, at most until their contexts end. The caller retries nothing
// except errors that wrap ErrAgain.
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
	// ErrConflict says that the thing to open exists with another configuration.
	ErrConflict = errors.New("exists with another configuration")
	// ErrFull says that a limit of the engine is reached and nothing was stored.
	ErrFull = errors.New("full")
	// ErrTooLarge is an ErrFull that does not pass: the message is larger than
	// the engine accepts.
	ErrTooLarge = fmt.Errorf("%w: too large", ErrFull)
	// ErrNoResponders says that nobody answers requests of that name.
	ErrNoResponders = errors.New("no responders")
	// ErrUnsure says that it is not known whether something happened: the
	// connection was lost, or the context ended, before the engine answered.
	ErrUnsure = errors.New("it is not known whether this was done")
	// ErrAgain says that nothing happened and that the call may be made again.
	ErrAgain = errors.New("try again")
)

// Capability is a feature that not every engine has.
type Capability string

// The capabilities of topics, and of Signals. The other features are interfaces of
// the Conn instead.
const (
	// Stored topics keep messages: Topic.Stored may be set.
	Stored Capability = "stored topics"
	// MaxBytes limits stored topics by size.
	MaxBytes Capability = "retention by size"
	// Dedup stored topics accept a message ID once within a window.
	Dedup Capability = "deduplication by ID"
	// StoredPatterns can be opened as one stored topic: the name in a
	// TopicConfig may be a pattern. The engine decides which patterns; others
	// are ErrUnsupported.
	StoredPatterns Capability = "patterns of stored topics"
	// Delay delivers messages of stored topics later: Message.Due may be set.
	Delay Capability = "delayed messages"
	// EphemeralDelay does that on ephemeral topics.
	EphemeralDelay Capability = "delayed messages on ephemeral topics"
	// KeyOrder keeps the order of keys across the members of a group.
	KeyOrder Capability = "order by key across a group"
	// Backpressure makes Publish on ephemeral topics wait for subscriptions.
	Backpressure Capability = "backpressure on ephemeral topics"
	// HandBack gives messages that a member of a group on an ephemeral topic has
	// not begun to the other members, when it leaves or stalls.
	HandBack Capability = "return of ephemeral messages to their group"
	// Deadlocks are detected: handlers that wait for themselves.
	Deadlocks Capability = "detection of handlers that wait for themselves"
	// Strict, Relaxed and Memory are the classes of durability that can be
	// promised.
	Strict  Capability = "durability Strict"
	Relaxed Capability = "durability Relaxed"
	Memory  Capability = "durability Memory"
	// Latches are kept for connections that listen later, and stay set until
	// someone clears them.
	Latches Capability = "latches"
)

// Info describes an engine and the server behind it.
type Info struct {
	Engine  string // such as "nats"
	Server  string // its version, empty if unknown or none
	Address string // for messages to people; without credentials
	Can     []Capability
	// Lease is how long a received message may be held before the engine gives
	// it to another receiver; Subscription.Extend renews it. 0 means for as long
	// as the subscription lives.
	Lease time.Duration
	// MaxPayload is the maximum size of a message's data in bytes; 0 means no
	// limit.
	MaxPayload int
}

// Has reports whether the engine has a capability.
func (i *Info) Has(c Capability) bool {
	return slices.Contains(i.Can, c)
}

// Conn is a connection to an engine.
type Conn interface {
	// Info describes what the engine can do. It does not block and always
	// returns the same.
	Info() Info

	// OpenTopic returns a topic, and creates it if it does not exist. If a
	// stored topic exists with another retention or durability, that is
	// ErrConflict. With StoredPatterns the name of a stored topic may be a
	// pattern. It then stands for all stored topics that match, including those
	// made later, as one topic: its sequences grow in the order in which it
	// delivers messages, which keeps the order of each topic. Nothing can be
	// published to it, and opening it creates nothing.
	OpenTopic(ctx context.Context, c TopicConfig) (Topic, error)

	// SubscribePattern subscribes to messages published to the topics, ephemeral
	// and stored, whose names match a hark pattern: * matches one token, a final
	// > one or more.
	SubscribePattern(ctx context.Context, pattern string, c SubscribeConfig) (Subscription, error)

	// Flush returns when the engine has every message that this connection
	// published to an ephemeral topic before the call, and those for
	// Subscriptions of this connection can be received at once.
	Flush(ctx context.Context) error

	// Watch calls f when the connection is lost (down, with the reason) and when
	// it is back. f must not block. Calls do not overlap. Only one f is
	// registered at a time.
	Watch(f func(up bool, reason error))

	// Close ends the connection and everything on it, once what was accepted has
	// been written out or ctx ends. It is idempotent.
	Close(ctx context.Context) error
}
