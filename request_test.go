package hark_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
)

// TestRequestsLeaveNothing checks that requests without a responder leave no
// trace on their bus, and do not determine the type of a later responder.
func TestRequestsLeaveNothing(t *testing.T) {
	for name, bus := range map[string]*hark.Bus{"in process": hark.New(), "over an engine": hark.Over(memdriver.New().Connect())} {
		t.Run(name, func(t *testing.T) {
			defer closeBus(t, bus)
			for i := range 100 {
				if _, err := hark.Request[int, int](t.Context(), bus, fmt.Sprintf("nobody.%d", i), 1); !errors.Is(err, hark.ErrNoResponders) {
					t.Fatalf("got %v, want ErrNoResponders", err)
				}
			}
			if _, err := hark.Request[int, int](t.Context(), bus, "no body", 1); !errors.Is(err, hark.ErrInvalidName) {
				t.Errorf("got %v, want ErrInvalidName", err)
			}
			if s, nodes := bus.Stats(), bus.Topology().Nodes; len(s.Requests) != 0 || len(nodes) != 0 {
				t.Errorf("%d names in Stats and %d in Topology, want none", len(s.Requests), len(nodes))
			}
			upper := func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }
			if _, err := hark.Reply(bus, "nobody.1", upper); err != nil {
				t.Fatal(err)
			}
			if got, err := hark.Request[string, string](t.Context(), bus, "nobody.1", "a"); got != "A" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			const have, want = "func(string) string", "func(int) int"
			if _, err := hark.Request[int, int](t.Context(), bus, "nobody.1", 1); !errors.Is(err, hark.ErrTypeMismatch) || !strings.HasSuffix(err.Error(), "it carries "+have+", not "+want) {
				t.Errorf("got %v, want ErrTypeMismatch", err)
			}
			if node := bus.Topology().Nodes[0]; node.Type != have {
				t.Errorf("Topology has type %q, want %s", node.Type, have)
			}
		})
	}
}

// kinds passes on the kinds of what failed.
type kinds chan hark.Kind

func (k kinds) OnFail(e hark.FailEvent) { k <- e.Kind }

// TestRespondersAreOfKindRequest checks that responders are reported with their
// own kind, to hooks and in what Close leaves behind.
func TestRespondersAreOfKindRequest(t *testing.T) {
	told := make(kinds, 1)
	bus := hark.New(hark.WithHooks(told), hark.Grace(1))
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	if _, err := hark.Reply(bus, "r", func(_ context.Context, stay bool) (int, error) {
		if !stay {
			return 0, errTrap
		}
		close(entered)
		<-leave
		return 0, nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := hark.Request[bool, int](t.Context(), bus, "r", false); !errors.Is(err, errTrap) {
		t.Errorf("got %v, want the responder's error", err)
	}
	if kind := <-told; kind != hark.KindRequest {
		t.Errorf("the hook was told of a %s, want a request", kind)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = hark.Request[bool, int](ctx, bus, "r", true) // the bus closes before there is an answer
	}()
	<-entered
	cancel()
	<-asked
	var left *hark.CloseError
	if err := bus.Close(ctx); !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0].Kind != hark.KindRequest {
		t.Errorf("got %v, want what the responder left", err)
	} else if !strings.Contains(err.Error(), "request r (responders): 1 in flight") {
		t.Errorf("got %v", err)
	}
}
