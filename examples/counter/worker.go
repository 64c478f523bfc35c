package counter

import (
	"context"
	"fmt"

	"github.com/harkbus/hark"
)

// worker is one goroutine that counts, up or down.
type worker struct {
	bus      *hark.Bus
	notifier *hark.Notifier
	out      *lines
	name     string // the name under which it is notified
	step     int    // +1 or -1
	rounds   int
	partner  *worker

	// made is the number after its last step. It is written before the partner
	// is notified, and the partner reads it before it notifies back.
	made int
}

func newPair(bus *hark.Bus, notifier *hark.Notifier, out *lines, i int, o Options) (up, down *worker) {
	up = &worker{bus: bus, notifier: notifier, out: out, rounds: o.Rounds, step: +1, name: fmt.Sprintf("counter.up%d", i)}
	down = &worker{bus: bus, notifier: notifier, out: out, rounds: o.Rounds, step: -1, name: fmt.Sprintf("counter.down%d", i)}
	up.partner, down.partner = down, up
	return up, down
}

// ready is latched while the worker can be notified.
func (w *worker) ready() string { return w.name + ".ready" }

// work takes turns with the partner. The one that counts up begins.
func (w *worker) work(ctx context.Context) (err error) {
	if err := w.notifier.Wait(ctx, initialized); err != nil {
		return err
	}
	counter, err := hark.NewValue(w.bus, "counter", 0) // the value exists, so 0 is not used
	if err != nil {
		return err
	}
	l, err := w.notifier.Listen(w.name)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := w.notifier.Latch(ctx, w.ready()); err != nil {
		return err
	}
	if err := w.notifier.Wait(ctx, w.partner.ready()); err != nil {
		return err
	}
	// No one else waits for this latch, so it can be cleared. Its owner must
	// not clear it: with nothing to count, it could be done before its partner
	// has looked.
	if err := w.notifier.Unlatch(ctx, w.partner.ready()); err != nil {
		return err
	}
	for range w.rounds {
		if w.step < 0 {
			if err := w.hear(ctx, l); err != nil {
				return err
			}
		}
		if w.made, err = counter.Update(ctx, func(n int) int { return n + w.step }); err != nil {
			return err
		}
		reached, err := w.notifier.Notify(ctx, w.partner.name)
		if err != nil {
			return err
		}
		if reached != 1 {
			return fmt.Errorf("counter: %s reached %d listeners, want its partner", w.name, reached)
		}
		if w.step > 0 {
			if err := w.hear(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// hear waits for the partner's signal and prints what the partner did.
func (w *worker) hear(ctx context.Context, l *hark.Listener) error {
	select {
	case s := <-l.C():
		if s.Count != 1 {
			return fmt.Errorf("counter: %s got %d signals at once, want one", w.name, s.Count)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	what := "incremented"
	if w.partner.step < 0 {
		what = "decremented"
	}
	w.out.printf("%d was %s by another goroutine\n", w.partner.made, what)
	return w.out.failed()
}
