package harktest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/harktest"
	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

type order struct {
	ID    string
	Total int
}

// billing is the program under test: it bills orders and reports each bill.
func billing(bus *hark.Bus, bill func(order) error) (*hark.Topic[order], error) {
	orders, err1 := hark.NewTopic[order](bus, "orders.placed")
	billed, err2 := hark.NewTopic[order](bus, "orders.billed")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	_, err := orders.Subscribe(func(ctx context.Context, m *hark.Message[order]) error {
		if err := bill(m.Value); err != nil {
			return err
		}
		return billed.Publish(ctx, m.Value)
	}, hark.Group("billing"))
	return orders, err
}

func TestOrdersAreBilled(t *testing.T) {
	bus := harktest.NewBus(t)
	orders, err := billing(bus, func(order) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	all := harktest.Record[order](t, bus, "orders.*")
	billed := harktest.Record[order](t, bus, "orders.billed")
	if err := orders.PublishAll(t.Context(), []order{{"o-1", 42}, {"o-2", 7}}); err != nil {
		t.Fatal(err)
	}
	if got, want := billed.Values(), []order{{"o-1", 42}, {"o-2", 7}}; !slices.Equal(got, want) {
		t.Errorf("billed: got %v, want %v", got, want)
	}
	if got := all.Messages(); len(got) != 4 {
		t.Errorf("on orders.*: got %d messages, want 4", len(got))
	}
}

func TestBillingIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen harktest.Events
		bus := harktest.NewBus(t, hark.WithHooks(&seen))
		orders, err := billing(bus, func(order) error { return errors.New("the bank is closed") })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := orders.Publish(t.Context(), order{"o-1", 42}); err != nil {
			t.Fatal(err)
		}
		harktest.Settle(t, bus) // ten attempts, with up to a minute between them, at once
		if got := len(seen.Failures()); got != 10 {
			t.Errorf("got %d attempts, want 10", got)
		}
		if dead := seen.DeadLetters(); len(dead) != 1 || dead[0].Name != "orders.placed" || dead[0].Message != nil {
			t.Errorf("dead letters: got %+v, want one of orders.placed", dead)
		}
		if time.Since(began) < time.Second {
			t.Error("no time has passed on the clock of the bubble")
		}
	})
}

func TestWaitWhileWorkGoesOn(t *testing.T) {
	bus := harktest.NewBus(t)
	ticks, err := hark.NewTopic[int](bus, "ticks")
	if err != nil {
		t.Fatal(err)
	}
	seen := harktest.Record[int](t, bus, "ticks")
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ticks.Publish(ctx, n) == nil; n++ {
		}
	}()
	got := seen.Wait(3)
	stop()
	<-stopped
	if want := []int{0, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEventsSeesDrops(t *testing.T) {
	var seen harktest.Events
	bus := harktest.NewBus(t, hark.WithHooks(&seen))
	topic, err := hark.NewTopic[int](bus, "a")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe(func(context.Context, *hark.Message[int]) error { return nil },
		hark.Buffer(1), hark.Overflow(hark.DropOldest))
	if err != nil {
		t.Fatal(err)
	}
	sub.Pause()
	if err := topic.PublishAll(t.Context(), []int{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	sub.Resume()
	harktest.Settle(t, bus)
	dropped := 0
	for _, d := range seen.Drops() {
		dropped += d.Count
	}
	if dropped != 2 {
		t.Errorf("got %d drops, want 2", dropped)
	}
}

// told is a testing.TB that records failures and runs its cleanups when end is
// called.
type told struct {
	testing.TB
	ctx      context.Context
	texts    []string
	cleanups []func()
}

func (f *told) Helper()                  {}
func (f *told) Context() context.Context { return f.ctx }
func (f *told) Cleanup(c func())         { f.cleanups = append(f.cleanups, c) }

func (f *told) Errorf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func (f *told) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

func (f *told) end() {
	for _, c := range slices.Backward(f.cleanups) {
		c()
	}
}

// fails runs f, which must fail its test, and returns what the test reports.
func fails(t *testing.T, f func(t *told)) string {
	t.Helper()
	fake := &told{TB: t, ctx: t.Context()}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(fake) {
				panic(r)
			}
		}()
		f(fake)
	}()
	fake.end()
	if len(fake.texts) == 0 {
		t.Fatal("the test did not fail")
	}
	return strings.Join(fake.texts, "\n")
}

func TestSettleSaysWhatIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sub *hark.Subscription
		text := fails(t, func(ft *told) {
			bus := harktest.NewBus(ft)
			topic, err := hark.NewTopic[int](bus, "a")
			if err != nil {
				t.Fatal(err)
			}
			sub, err = topic.Subscribe(func(context.Context, *hark.Message[int]) error { return nil }, hark.Group("g"))
			if err != nil {
				t.Fatal(err)
			}
			sub.Pause()
			if err := topic.Publish(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			harktest.Settle(ft, bus)
		})
		if want := "topic a: g has 1 waiting, 0 in handlers, 0 to be retried; it is paused"; !strings.Contains(text, want) {
			t.Errorf("got %q, want it to say %q", text, want)
		}
	})
}

func TestCloseSaysWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := fails(t, func(ft *told) {
			bus := harktest.NewBus(ft)
			topic, err := hark.NewTopic[int](bus, "a")
			if err != nil {
				t.Fatal(err)
			}
			_, err = topic.Subscribe(func(ctx context.Context, _ *hark.Message[int]) error { <-ctx.Done(); return ctx.Err() })
			if err != nil {
				t.Fatal(err)
			}
			if err := topic.Publish(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		})
		if !strings.Contains(text, "topic a") {
			t.Errorf("got %q, want it to name the topic", text)
		}
	})
}

func TestCloseForgivesWhatIsNotDue(t *testing.T) {
	bus := harktest.NewBus(t)
	topic, err := hark.NewTopic[int](bus, "a", hark.Stored(hark.Retention{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(t.Context(), 1, hark.Delay(time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func TestRecordOfAnotherType(t *testing.T) {
	text := fails(t, func(ft *told) {
		bus := harktest.NewBus(ft)
		if _, err := hark.NewTopic[int](bus, "a"); err != nil {
			t.Fatal(err)
		}
		harktest.Record[string](ft, bus, "a")
	})
	if !strings.Contains(text, "type mismatch") {
		t.Errorf("got %q, want a type mismatch", text)
	}
}
