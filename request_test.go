package hark_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// TestBusyResponderOverEngine checks that requests are taken while a responder is at
// work, in the goroutine that takes them, and ends in unusual ways.
func TestBusyResponderOverEngine(t *testing.T) {
	start := func(t *testing.T, h func(string) string, opts ...hark.SubscribeOption) (ask func(string) (string, error), sub *hark.Subscription) {
		bus := hark.Over(memdriver.New().Connect())
		t.Cleanup(func() { closeBus(t, bus) })
		sub, err := hark.Reply(bus, "r", func(_ context.Context, s string) (string, error) { return h(s), nil }, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return func(s string) (string, error) { return hark.Request[string, string](t.Context(), bus, "r", s) }, sub
	}
	t.Run("blocks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			ask, _ := start(t, func(s string) string { <-gate; return s }, hark.Buffer(1), hark.Overflow(hark.Fail))
			var wg sync.WaitGroup
			for _, s := range []string{"at work", "waiting"} {
				wg.Go(func() {
					if got, err := ask(s); got != s || err != nil {
						t.Errorf("got %q, %v", got, err)
					}
				})
				synctest.Wait()
			}
			if _, err := ask("too many"); !errors.Is(err, hark.ErrFull) {
				t.Errorf("got %v, want ErrFull", err)
			}
			close(gate)
			wg.Wait()
		})
	})
	t.Run("closes its subscription", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sub *hark.Subscription
			var ask func(string) (string, error)
			ask, sub = start(t, func(s string) string {
				if err := sub.Close(); err != nil {
					t.Error(err)
				}
				return s
			})
			begun := time.Now()
			for range 2 {
				if _, err := ask("x"); !errors.Is(err, hark.ErrNoResponders) || time.Since(begun) > 0 {
					t.Errorf("got %v after %v, want ErrNoResponders at once", err, time.Since(begun))
				}
			}
		})
	})
	t.Run("ends its goroutine", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ask, _ := start(t, func(s string) string {
				if s == "exit" {
					runtime.Goexit()
				}
				return s
			})
			for range 3 {
				if _, err := ask("exit"); err == nil {
					t.Error("a request whose responder ends its goroutine has no error")
				}
				if got, err := ask("x"); got != "x" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	})
}
