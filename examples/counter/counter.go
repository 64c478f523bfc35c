// Package counter is the program in which two goroutines change one number:
// one counts up, the other down, and each tells the other after every step and
// waits to be told before its next one.
//
// Written with what comes to hand first it goes wrong in four ways:
//
//   - The count is a plain variable, so that steps are lost: two goroutines
//     read 7, and both write 8. Here it is a hark.Value, whose Update loses no
//     change (VAL-3), and returns the value that was true at that moment.
//   - The notification calls its listeners, or sends on their channels, while
//     it holds the lock of its list of listeners. A listener that notifies
//     back, or one that has stopped reading, then holds up everybody. Notify
//     holds no lock while functions run and never waits for a reader:
//     notifications that meet a signal are counted in it (NTF-5, NTF-6, NTF-21).
//   - A listener registers a moment after "initialized" was announced, and
//     waits for ever. Here that is a latch: who comes later sees it (NTF-14,
//     NTF-17). In the same way no worker sends its first signal before its
//     partner listens.
//   - Listeners that are done stay in the map, with all they refer to. Close
//     removes one at once, and the name with the last one (NTF-18, NTF-23).
//
// What one worker leaves for its partner before it notifies, the partner sees
// (NTF-13): the field that carries the number across needs no lock.
package counter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/harkbus/hark"
)

// Options say how much there is to count.
type Options struct {
	Rounds     int // steps of each goroutine; at least 0
	Goroutines int // an even number, at least 2: half of them count up, half down
	Start      int // the initial number
}

// initialized is latched once the counter has its first value.
const initialized = "counter.initialized"

// Run counts, prints a line for each step to w, and returns nil when all is
// done, or when ctx ends its cause. The last line says what the number is then.
// It leaves no goroutine behind. An error of w ends it too.
func Run(ctx context.Context, w io.Writer, o Options) error {
	if o.Rounds < 0 || o.Goroutines < 2 || o.Goroutines%2 != 0 {
		return fmt.Errorf("counter: %d rounds of %d goroutines: want at least 0, and an even number of at least 2", o.Rounds, o.Goroutines)
	}
	bus := hark.New()
	err := run(ctx, bus, &lines{w: w}, o)
	return errors.Join(err, bus.Close(context.WithoutCancel(ctx)))
}

func run(ctx context.Context, bus *hark.Bus, out *lines, o Options) error {
	notifier, err := hark.NewNotifier(bus)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	begin := func(from, to int) {
		for i := from; i < to; i++ {
			up, down := newPair(bus, notifier, out, i, o)
			for _, w := range []*worker{up, down} {
				all.Go(func() {
					if err := w.work(ctx); err != nil {
						cancel(err) // only the first error counts
					}
				})
			}
		}
	}
	pairs := o.Goroutines / 2
	begin(0, pairs/2) // these wait for the counter to exist
	counter, err := hark.NewValue(bus, "counter", o.Start)
	if err == nil {
		out.printf("initialized with %d\n", counter.Get())
		err = notifier.Latch(ctx, initialized)
	}
	if err != nil {
		cancel(err)
	}
	begin(pairs/2, pairs) // and these come late
	all.Wait()
	if ctx.Err() != nil {
		if counter != nil {
			out.printf("stopped with %d after %d changes\n", counter.Get(), counter.Version()-1)
		}
		return context.Cause(ctx)
	}
	if s := notifier.Stats(); s.Listeners != 0 || len(s.Latched) != 1 {
		return fmt.Errorf("counter: something is left registered: %+v", s)
	}
	if got := counter.Get(); got != o.Start {
		return fmt.Errorf("counter: the final value is %d, want %d", got, o.Start)
	}
	out.printf("the final value is %d after %d changes\n", counter.Get(), counter.Version()-1)
	return out.err
}

// lines writes whole lines for many goroutines.
type lines struct {
	mu  sync.Mutex // guards the fields below
	w   io.Writer
	err error // the first error
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format, args...)
	}
}

func (l *lines) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
