// Package hark is typed messaging for Go: an event bus, channels, notifications
// and shared values.
//
// # Overview
//
// A [Bus] connects the parts of a program by name. A [Topic] is a named stream
// of values of one Go type; handlers subscribe to it, alone or as members of a
// group, or to all topics that match a pattern. [Request] and [Reply] ask and
// answer.
//
// A [Chan] is a queue of values, each for one receiver: a Go channel that may be
// unbounded, whose waits end with a context, and which anyone may close without
// a panic. A [Notifier] lets goroutines tell each other by name that something
// happened; a latched name tells latecomers too. A [Value] is shared state that
// others observe. These three work without a bus as well.
//
// # Delivery
//
// Every subscription gets every message published while it exists; the members
// of a [Group] share them. A message is published once it is in the topic's log;
// handlers run later, on goroutines of the bus. What a handler returns decides
// what happens to the message. After nil, it is done. After [Drop], [Reject] or
// [RetryAfter], it is dropped, dead-lettered or retried as they say. After any
// other error, or a panic, it is retried with backoff, and finally becomes a
// dead letter. On an ephemeral topic a message lives until it has been handled;
// a topic made with [Stored] keeps messages for as long as the bus lives, or over an
// engine for as long as its store does.
//
// # Engines
//
// [New] makes a bus in this process. [Open] makes one over an engine that a URL names:
// a directory, a broker (hark serve), or a NATS server or cluster. The program stays the
// same, and what it shares by name it then shares with other processes. Values are
// encoded, by default as JSON; waits may also be for a connection; and asking an engine
// for something it cannot do is [ErrUnsupported]. Packages driver/filedriver and
// driver/natsdriver are the engines; a program imports those it uses:
//
//	import _ "github.com/harkbus/hark/driver/natsdriver"
//
// # Ordering
//
// Every subscription sees the messages of a topic in the order in which they
// were published. A subscription with one worker handles them in that order,
// except that a message waiting for a retry lets others pass. With several
// workers, or in a group, messages with the same key ([KeyBy], [Key]) are handled in
// order and one at a time, even when one is retried. A [Publisher] trades the
// common order of a topic for speed: only its own messages stay in order.
//
// # Backpressure
//
// Each subscription says how many messages may wait for it ([Buffer]) and what
// happens when more arrive ([Overflow]). By default 1,024 messages may wait, and
// then publishers wait until their context ends. If a handler publishes to a
// topic that is waiting for that handler, its message is let in, so a cycle
// never deadlocks.
//
// # Concurrency
//
// Everything is safe for concurrent use, except where it says otherwise: a
// [Publisher] and a [Message]. A handler runs on one goroutine at a time per worker.
// The bus holds no lock while it calls code of the program.
//
// # Errors
//
// Errors are returned, say what was attempted on what, and wrap a kind to check
// with errors.Is, such as [ErrClosed] or [ErrTypeMismatch]. Mistakes in names and
// options are reported where they are made; a nil option is none. The bus does not
// log; it calls the hooks ([WithHooks]).
//
// # Closing
//
// [Bus.Close] refuses new work and waits until what was accepted is done. If its
// context ends first, it cancels the handlers and reports what was left.
//
// # Testing
//
// A bus works in a testing/synctest bubble: nothing in it waits for anything
// but time and other goroutines.
package hark
