package harktest

import (
	"slices"
	"sync"

	"github.com/harkbus/hark"
)

// Events is a hook that records what went wrong on a bus. Give it to the bus
// with hark.WithHooks; the zero Events is ready for use, and safe for concurrent
// use.
type Events struct {
	mu          sync.Mutex // guards the fields below
	failures    []hark.FailEvent
	deadLetters []hark.FailEvent
	drops       []hark.DropEvent
}

// OnFail implements hark.FailHook.
func (e *Events) OnFail(ev hark.FailEvent) { note(e, &e.failures, withoutMessage(ev)) }

// OnDeadLetter implements hark.DeadLetterHook.
func (e *Events) OnDeadLetter(ev hark.FailEvent) { note(e, &e.deadLetters, withoutMessage(ev)) }

// OnDrop implements hark.DropHook.
func (e *Events) OnDrop(ev hark.DropEvent) { note(e, &e.drops, ev) }

// Failures returns the runs of handlers that ended in an error or a panic, in
// the order in which they ended. Their Message is nil, because it must not be
// kept.
func (e *Events) Failures() []hark.FailEvent { return noted(e, &e.failures) }

// DeadLetters returns the messages that were given up. Their Message is nil.
func (e *Events) DeadLetters() []hark.FailEvent { return noted(e, &e.deadLetters) }

// Drops returns what did not reach a subscription, and why.
func (e *Events) Drops() []hark.DropEvent { return noted(e, &e.drops) }

func withoutMessage(ev hark.FailEvent) hark.FailEvent {
	ev.Message = nil
	return ev
}

func note[E any](e *Events, to *[]E, ev E) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*to = append(*to, ev)
}

func noted[E any](e *Events, from *[]E) []E {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(*from)
}
