package harktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

// closeTimeout limits the waits that have no other limit. Ten attempts with the
// default backoff take less than a minute.
const closeTimeout = 2 * time.Minute

// NewBus returns an in-process bus that is closed when the test ends, as
// described at Close.
func NewBus(t testing.TB, opts ...hark.BusOption) *hark.Bus {
	t.Helper()
	bus := hark.New(opts...)
	Close(t, bus)
	return bus
}

// Close closes bus when the test ends, before cleanups that were registered
// earlier. Published messages are handled first. If anything is left after two
// minutes, such as a handler that does not return, or messages of a paused
// subscription, the test fails. Messages that are not due do not count.
func Close(t testing.TB, bus *hark.Bus) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), closeTimeout)
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

// Settle waits until everything published on bus is done, as described at
// hark.Bus.Settle. If that has not happened after half a minute, it ends the
// test and names the subscriptions that are not done. It must not be called in a
// handler.
func Settle(t testing.TB, bus *hark.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), closeTimeout)
	defer cancel()
	if err := bus.Settle(ctx); err != nil {
		t.Fatalf("harktest: %v%s", err, busy(bus.Stats()))
	}
}
