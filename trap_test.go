package hark_test

// The traps below are those into which users of other libraries have fallen.
// Each test shows that hark does not have it.

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

var errTrap = errors.New("failed on purpose")

// trapBus returns a topic and its bus, which is closed when the test ends and
// must leave nothing.
func trapBus[T any](t *testing.T, opts ...hark.TopicOption) (*hark.Bus, *hark.Topic[T]) {
	t.Helper()
	bus := hark.New()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := bus.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	topic, err := hark.NewTopic[T](bus, "trap", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return bus, topic
}

func mustSubscribe[T any](t *testing.T, topic *hark.Topic[T], h hark.Handler[T], opts ...hark.SubscribeOption) *hark.Subscription {
	t.Helper()
	sub, err := topic.Subscribe(h, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func mustPublish[T any](t *testing.T, topic *hark.Topic[T], v T, opts ...hark.PublishOption) {
	t.Helper()
	if err := topic.Publish(t.Context(), v, opts...); err != nil {
		t.Fatal(err)
	}
}

// Seen in Watermill: with the Deduplicator and the Retry middleware, in either
// order, a message that fails once is taken for a repeat of itself and lost.
func TestTrapDedupThenRetryLosesMessage(t *testing.T) {
	_, topic := trapBus[int](t, hark.Stored(hark.Retention{}))
	var handled atomic.Int32
	sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		if m.Attempt() == 1 {
			return errTrap
		}
		handled.Add(1)
		return nil
	}, hark.Backoff(hark.BackoffPolicy{Min: time.Millisecond, Max: time.Millisecond}))
	mustPublish(t, topic, 1, hark.ID("one"))
	if err := sub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := handled.Load(); got != 1 {
		t.Errorf("handled %d times, want once", got)
	}
}

// Seen in Watermill: the default Deduplicator hashes the payload, so five
// messages with the same value become one.
func TestTrapDedupByPayload(t *testing.T) {
	_, topic := trapBus[string](t, hark.Stored(hark.Retention{}))
	var handled atomic.Int32
	sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[string]) error {
		handled.Add(1)
		return nil
	})
	for i := range 5 {
		mustPublish(t, topic, "same", hark.ID(fmt.Sprint(i)))
	}
	if err := sub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := handled.Load(); got != 5 {
		t.Errorf("handled %d, want 5", got)
	}
}

// Seen in Watermill's in-memory transport: 498 of 10,000 messages from one
// publisher to one subscriber come out of order.
func TestTrapOneToOneOutOfOrder(t *testing.T) {
	_, topic := trapBus[int](t)
	next := 0
	sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		if m.Value != next {
			t.Errorf("got %d, want %d", m.Value, next)
		}
		next = m.Value + 1
		return nil
	})
	for i := range 10_000 {
		mustPublish(t, topic, i)
	}
	if err := sub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next != 10_000 {
		t.Errorf("handled %d, want 10000", next)
	}
}

// Seen in Watermill's in-memory transport: 50,000 messages for a stuck
// subscriber create some 100,000 goroutines.
func TestTrapStalledSubscriberGrowsGoroutines(t *testing.T) {
	_, topic := trapBus[int](t)
	began, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error {
		once.Do(func() { close(began) })
		<-release
		return nil
	}, hark.Buffer(100), hark.Overflow(hark.DropOldest))
	mustPublish(t, topic, 0)
	<-began
	before := runtime.NumGoroutine()
	for i := range 50_000 {
		mustPublish(t, topic, i)
	}
	if got := runtime.NumGoroutine(); got > before+2 {
		t.Errorf("%d goroutines, %d before", got, before)
	}
	if s := sub.Stats(); s.Dropped != 49_900 || s.Waiting != 100 {
		t.Errorf("got %+v, want 49900 dropped and 100 waiting", s)
	}
	close(release)
}

// Seen in Watermill: by default, a message that always fails is handled 509,248
// times in a second.
func TestTrapPoisonMessageSpins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, topic := trapBus[int](t)
		var handled atomic.Int32
		sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error {
			handled.Add(1)
			return errTrap
		}, hark.Backoff(hark.BackoffPolicy{Exact: true}))
		mustPublish(t, topic, 1)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := handled.Load(); got != 4 { // at 0, 100, 300 and 700 ms
			t.Errorf("handled %d times in the first second, want 4", got)
		}
		if err := bus.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := handled.Load(); got != 10 {
			t.Errorf("handled %d times in all, want 10", got)
		}
		if s := sub.Stats(); s.Dead != 1 {
			t.Errorf("got %+v, want a dead letter", s)
		}
	})
}

// Seen in Watermill: Close first cancels the handlers' contexts and closes the
// publisher that they use.
func TestTrapCloseWhileHandlerWorks(t *testing.T) {
	bus, topic := trapBus[int](t)
	follow, err := hark.NewTopic[int](bus, "follow")
	if err != nil {
		t.Fatal(err)
	}
	var followed atomic.Int32
	mustSubscribe(t, follow, func(context.Context, *hark.Message[int]) error {
		followed.Add(1)
		return nil
	})
	began, goOn := make(chan struct{}), make(chan struct{})
	mustSubscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		close(began)
		<-goOn
		if err := ctx.Err(); err != nil {
			t.Errorf("context of the handler: %v", err)
		}
		return follow.Publish(ctx, m.Value)
	})
	mustPublish(t, topic, 1)
	<-began
	closed := make(chan error, 1)
	go func() { closed <- bus.Close(t.Context()) }()
	for {
		if _, err := hark.NewTopic[int](bus, "new"); errors.Is(err, hark.ErrClosed) {
			break
		}
		runtime.Gosched()
	}
	close(goOn)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := followed.Load(); got != 1 {
		t.Errorf("handled %d of what the handler published, want 1", got)
	}
}

// Seen in Watermill: if Retry is added before PoisonQueue, there is 1 attempt
// instead of 4. In hark no order of middleware changes that.
func TestTrapOrderOfMiddlewareChangesRetries(t *testing.T) {
	wrap := func(next hark.MessageHandler) hark.MessageHandler {
		return func(ctx context.Context, m hark.AnyMessage) error {
			return errors.Join(next(ctx, m))
		}
	}
	count := func(n *atomic.Int32) hark.Middleware {
		return func(next hark.MessageHandler) hark.MessageHandler {
			return func(ctx context.Context, m hark.AnyMessage) error {
				n.Add(1)
				return next(ctx, m)
			}
		}
	}
	for _, counterFirst := range []bool{true, false} {
		bus, topic := trapBus[int](t)
		var n atomic.Int32
		mw := []hark.Middleware{wrap, count(&n)}
		if counterFirst {
			slices.Reverse(mw)
		}
		bus.Use(mw...)
		sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error { return errTrap },
			hark.MaxAttempts(4), hark.Backoff(hark.BackoffPolicy{Min: time.Millisecond, Max: time.Millisecond}))
		mustPublish(t, topic, 1)
		if err := sub.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := sub.Stats(); n.Load() != 4 || s.Dead != 1 {
			t.Errorf("%d attempts and %d dead, want 4 and 1", n.Load(), s.Dead)
		}
	}
}

// Seen in Watermill (23 allocations per message) and in Go CDK's mem (71).
func TestTrapAllocationsPerMessage(t *testing.T) {
	_, topic := trapBus[[3]int](t)
	var handled atomic.Int64
	mustSubscribe(t, topic, func(context.Context, *hark.Message[[3]int]) error {
		handled.Add(1)
		return nil
	})
	ctx := t.Context()
	sent := int64(0)
	got := testing.AllocsPerRun(2000, func() {
		for range 10 {
			if err := topic.Publish(ctx, [3]int{1, 2, 3}); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		for handled.Load() < sent {
			runtime.Gosched()
		}
	})
	if got >= 1 { // for ten messages
		t.Errorf("%v allocations for 10 messages, want none", got)
	}
}

// Seen in tailscale's event bus (tailscale#17973, #18012): a bounded queue, a
// publish that blocks and a handler that publishes together deadlock.
func TestTrapHandlerPublishesIntoFullQueue(t *testing.T) {
	for what, own := range map[string]func(context.Context) context.Context{
		"with its context":    func(ctx context.Context) context.Context { return ctx },
		"with the background": func(context.Context) context.Context { return context.Background() },
	} {
		_, topic := trapBus[int](t)
		done := make(chan struct{})
		var handled atomic.Int32
		mustSubscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
			for range 3 * m.Value {
				if err := topic.Publish(own(ctx), m.Value-1); err != nil {
					t.Error(err)
				}
			}
			if handled.Add(1) == 1+9+9*6+9*6*3 {
				close(done)
			}
			return nil
		}, hark.Buffer(1))
		mustPublish(t, topic, 3)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the handler waits for itself", what)
		}
	}
}

// Seen in EventBus: a handler that publishes or subscribes runs with a lock
// held that publishing and subscribing need.
func TestTrapHandlerRunsUnderLock(t *testing.T) {
	bus, topic := trapBus[int](t)
	done := make(chan struct{})
	var sub *hark.Subscription
	ready := make(chan struct{})
	sub = mustSubscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		<-ready
		if m.Value == 0 {
			other, err := topic.Subscribe(func(context.Context, *hark.Message[int]) error {
				close(done)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			sub.Pause()
			sub.Resume()
			_, _, _ = sub.Stats(), bus.Stats(), bus.Topology()
			if err := topic.Publish(ctx, 1); err != nil {
				t.Error(err)
			}
			<-done
			return other.Close()
		}
		return nil
	})
	close(ready)
	mustPublish(t, topic, 0)
	<-done
}

// Seen in many libraries: the error of a batch does not say which of its
// messages failed.
func TestTrapBatchPublishDoesNotSayWhich(t *testing.T) {
	_, topic := trapBus[int](t)
	release := make(chan struct{})
	defer close(release)
	began := make(chan struct{}, 10)
	mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error {
		began <- struct{}{}
		<-release
		return nil
	}, hark.Buffer(2), hark.Overflow(hark.Fail))
	mustPublish(t, topic, 0)
	<-began
	var batch *hark.BatchError
	if err := topic.PublishAll(t.Context(), []int{1, 2, 3, 4}); !errors.As(err, &batch) || len(batch.Items) != 2 || batch.Items[0].Index != 2 {
		t.Errorf("got %v, want the items 2 and 3", err)
	}
}

// Seen in Watermill (#445) and others: publishing takes no context, so a full
// queue blocks forever.
func TestTrapPublishCannotBeGivenUp(t *testing.T) {
	_, topic := trapBus[int](t)
	began, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error {
		began <- struct{}{}
		<-release
		return nil
	}, hark.Buffer(1))
	mustPublish(t, topic, 0)
	<-began
	mustPublish(t, topic, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := topic.Publish(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

// Seen in Go CDK (Nack panics on some drivers) and go-micro#4930: returning a
// message panics or does nothing, depending on the engine.
func TestTrapOutcomeIsIgnored(t *testing.T) {
	_, topic := trapBus[error](t)
	sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[error]) error {
		if m.Attempt() > 1 {
			return nil
		}
		return m.Value
	})
	for _, outcome := range []error{nil, hark.RetryAfter(0, errTrap), hark.Drop(errTrap), hark.Reject(errTrap)} {
		mustPublish(t, topic, outcome)
	}
	if err := sub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := sub.Stats(); s.Delivered != 2 || s.Redelivered != 1 || s.Dropped != 1 || s.Dead != 1 {
		t.Errorf("got %+v, want 2 delivered (1 redelivered), 1 dropped, 1 dead", s)
	}
}

// Seen in many libraries: messages are fetched ahead of the workers, so a slow
// handler keeps messages that it has not begun from the others.
func TestTrapPrefetchBehindSlowHandler(t *testing.T) {
	_, topic := trapBus[int](t)
	release := make(chan struct{})
	var handled atomic.Int32
	all := make(chan struct{})
	h := func(_ context.Context, m *hark.Message[int]) error {
		if m.Value == 500 { // after many quick ones
			<-release
		}
		if handled.Add(1) == 1000 {
			close(all)
		}
		return nil
	}
	for range 2 {
		mustSubscribe(t, topic, h, hark.Group("g"), hark.Buffer(hark.Unbounded))
	}
	for i := range 1000 {
		mustPublish(t, topic, i)
	}
	limit := time.After(20 * time.Second)
	for handled.Load() < 1000-1-32 { // the rest is what one worker takes at a time
		select {
		case <-limit:
			t.Fatalf("handled %d while one handler is stuck", handled.Load())
		default:
			runtime.Gosched()
		}
	}
	close(release)
	<-all
}

// Seen in many libraries: goroutines and timers remain after Close.
func TestTrapCloseLeavesGoroutines(t *testing.T) {
	leak.Check(t)
	bus := hark.New()
	topic, err := hark.NewTopic[int](bus, "trap")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			if m.Value%10 == 0 && m.Attempt() == 1 {
				return hark.RetryAfter(time.Millisecond, nil)
			}
			return nil
		}, hark.Workers(3))
	}
	for i := range 500 {
		mustPublish(t, topic, i)
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
