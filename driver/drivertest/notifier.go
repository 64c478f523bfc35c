package drivertest

import (
	"context"
	"slices"
	"testing"

	"github.com/harkbus/hark"
)

var notifierClauses = slices.Concat(notifyClauses, signalClauses, latchClauses, listenerClauses, []Clause{
	{"NTF-3", "all notifiers of a bus share one space of names", testNTF3},
})

func newNotifier(t *testing.T, bus *hark.Bus) *hark.Notifier {
	t.Helper()
	return must(hark.NewNotifier(bus))(t)
}

// notify notifies target and checks how many listeners it reached.
func notify(ctx context.Context, t *testing.T, n *hark.Notifier, target string, want int) {
	t.Helper()
	if got, err := n.Notify(ctx, target); got != want || err != nil {
		t.Errorf("notify %s: got %d, %v, want %d", target, got, err, want)
	}
}

func testNTF3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	one, two := newNotifier(t, bus), newNotifier(t, bus)
	l := listen(t, one, "a")
	notify(ctx, t, two, "a", 1)
	wantSignals(t, "the other notifier", []hark.Signal{receive(ctx, t, l)}, hark.Signal{Name: "a", Count: 1})
}
