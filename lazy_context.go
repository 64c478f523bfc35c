package hark

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// lazyContext is a context that is made when somebody first looks at it. Most are
// never looked at, and a context that can end costs a timer, or places in the lists of
// its parents.
type lazyContext struct {
	handler context.Context // of the handler that has it; nil for none
	make    func() (context.Context, context.CancelFunc)

	mu     sync.Mutex // guards the fields below
	made   context.Context
	cancel context.CancelFunc
	over   bool
}

// end ends the context.
func (l *lazyContext) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over = true; l.cancel != nil {
		l.cancel()
	}
}

func (l *lazyContext) get() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		if l.made, l.cancel = l.make(); l.over {
			l.cancel()
		}
	}
	return l.made
}

// Deadline implements context.Context.
func (l *lazyContext) Deadline() (time.Time, bool) { return l.get().Deadline() }

// Done implements context.Context.
func (l *lazyContext) Done() <-chan struct{} { return l.get().Done() }

// Err implements context.Context.
func (l *lazyContext) Err() error { return l.get().Err() }

// Value implements context.Context.
func (l *lazyContext) Value(key any) any {
	if key == (handlerKey{}) && l.handler != nil {
		return l.handler.Value(key)
	}
	return l.get().Value(key)
}

// String implements fmt.Stringer.
func (l *lazyContext) String() string { return fmt.Sprint(l.get()) }
