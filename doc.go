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
// unbounded, waits no longer than a context, and is closed without a panic. A
// [Notifier] lets goroutines tell each other that something happened, by name,
// and remembers it for the late if it is latched. A [Value] is shared state that
// others observe. These three work without a bus as well.
//
// # Delivery
//
// Every subscription gets every message published while it exists; the members
// of a [Group] share them. A message is published once it is in the topic's
// log; handlers run later, on goroutines of the bus. What a handler returns
// decides what becomes of the message: nil, it is done; [Drop], [Reject] and
// [RetryAfter] say so; any other error, and a panic, is retried with backoff
// and becomes a dead letter after that. On an ephemeral topic messages live as
// long as somebody has to handle them; a topic made with [Stored] keeps them,
// for as long as the bus lives.
//
// # Ordering
//
// Everybody sees the messages of a topic in the order in which they were
// published. A subscription with one worker handles them in that order, except
// that a message that is retried lets others pass. With several workers, or in
// a group, messages of one key ([KeyBy], [Key]) are handled in order and one at
// a time, also when one is retried. A [Publisher] gives up the common order of
// a topic for speed: its own messages stay in order.
//
// # Backpressure
//
// Each subscription says how much may wait for it ([Buffer]) and what happens
// beyond that ([Overflow]). By default 1,024 messages may wait, and then
// publishers wait, until their context ends. A handler that publishes to a
// topic that waits for that handler is let in, so that no circle hangs.
//
// # Concurrency
//
// Everything may be used by several goroutines, except where it says
// otherwise: a [Publisher] and a [Message]. A handler runs on one goroutine at
// a time for each worker. No lock is held while code of the program runs.
//
// # Errors
//
// Errors are returned, say what was attempted on what, and wrap a kind to be
// checked with errors.Is, such as [ErrClosed] or [ErrTypeMismatch]. Mistakes in
// names and options are errors where they are made. The bus does not log; it
// tells the hooks ([WithHooks]).
//
// # Closing
//
// [Bus.Close] refuses new work, waits until what was accepted is done, and
// when its context ends first cancels the handlers and reports what was left.
//
// # Testing
//
// A bus works in a testing/synctest bubble: nothing in it waits for anything
// but time and other goroutines.
package hark
