package harktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

// patience bounds what has no other bound. Ten attempts with the default backoff
// take less than a minute.
const patience = 2 * time.Minute

// NewBus returns a bus in this process that is closed when the test ends, as
// Close says.
func NewBus(t testing.TB, opts ...hark.BusOption) *hark.Bus {
	t.Helper()
	bus := hark.New(opts...)
	Close(t, bus)
	return bus
}

// Close closes bus when the test ends, before cleanups that were registered
// earlier. What was published is handled first; the test fails for what is left
// after two minutes: a handler that does not return, or messages of a
// subscription that waits for something. Messages that are not due are no fault.
func Close(t testing.TB, bus *hark.Bus) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		err := bus.Close(ctx)
		var left *hark.CloseError
		if errors.As(err, &left) && ctx.Err() == nil && onlyDelayed(left.Left) {
			return
		}
		if err != nil {
			t.Errorf("harktest: %v", err)
		}
	})
}

func onlyDelayed(left []hark.Left) bool {
	for _, l := range left {
		if l.Waiting+l.InFlight+l.Retrying > 0 {
			return false
		}
	}
	return true
}

// Settle waits until everything that was published on bus is done, as
// hark.Bus.Settle says, and ends the test if that has not come true after half a
// minute, with the subscriptions that are not done. It must not be called in a
// handler.
func Settle(t testing.TB, bus *hark.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := bus.Settle(ctx); err != nil {
		t.Fatalf("harktest: %v%s", err, busy(bus.Stats()))
	}
}
