package hark_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/internal/leak"
)

// load is an allocation whose collection can be observed.
type load struct{ _ [1024]byte }

// loads records what has been published.
type loads []weak.Pointer[load]

func (l *loads) publish(t *testing.T, topic *hark.Topic[*load], n int) {
	t.Helper()
	for range n {
		v := new(load)
		*l = append(*l, weak.Make(v))
		if err := topic.Publish(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
}

// wantAlive waits until at most n of the loads are left.
func (l loads) wantAlive(t *testing.T, n int) {
	t.Helper()
	limit := time.Now().Add(10 * time.Second)
	for {
		runtime.GC()
		alive := 0
		for _, p := range l {
			if p.Value() != nil {
				alive++
			}
		}
		if alive <= n {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d of %d messages are still there, want at most %d", alive, len(l), n)
		}
		runtime.Gosched()
	}
}

// stuckOn subscribes with a handler that blocks on its first message until the
// test ends.
func stuckOn(t *testing.T, topic *hark.Topic[*load], opts ...hark.SubscribeOption) *hark.Subscription {
	t.Helper()
	release, began := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(release) })
	var once sync.Once
	sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[*load]) error {
		once.Do(func() { close(began) })
		<-release
		return nil
	}, opts...)
	mustPublish(t, topic, nil)
	<-began
	return sub
}

// slack is what a log may retain in addition: the segment being written, and
// the one before it.
const slack = 2 * 256

func TestMEM1StalledLossySubscriberPinsNothing(t *testing.T) {
	for _, opts := range [][]hark.SubscribeOption{
		{hark.Overflow(hark.Latest)},
		{hark.Overflow(hark.DropOldest), hark.Buffer(10)},
		{hark.Overflow(hark.DropNewest), hark.Buffer(10)},
	} {
		_, topic := trapBus[*load](t)
		stuckOn(t, topic, opts...)
		var all loads
		all.publish(t, topic, 20_000)
		all.wantAlive(t, 10+slack)
	}
}

func TestMEM2StalledBlockingSubscriberPinsItsBuffer(t *testing.T) {
	_, topic := trapBus[*load](t)
	stuckOn(t, topic, hark.Buffer(100))
	mustSubscribe(t, topic, func(context.Context, *hark.Message[*load]) error { return nil })
	var all loads
	all.publish(t, topic, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := topic.Publish(ctx, new(load)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	all.wantAlive(t, 100)
}

func TestMEM3UnboundedSubscriberGivesBackWhatItHasRead(t *testing.T) {
	_, topic := trapBus[*load](t)
	turn := make(chan struct{})
	t.Cleanup(func() { close(turn) })
	sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[*load]) error {
		<-turn
		return nil
	}, hark.Buffer(hark.Unbounded))
	var all loads
	all.publish(t, topic, 1000)
	for range 30 { // it stays 1000 behind
		all.publish(t, topic, 1000)
		for range 1000 {
			turn <- struct{}{}
		}
	}
	if s := sub.Stats(); s.Waiting < 900 {
		t.Errorf("got %+v, want some 1000 waiting", s)
	}
	all.publish(t, topic, 256) // when the log grows, what has been read is released
	all.wantAlive(t, 1256+slack)
}

func TestMEM4PublishersThatGiveUpLeaveNothing(t *testing.T) {
	_, topic := trapBus[*load](t)
	stuckOn(t, topic, hark.Buffer(1))
	mustPublish(t, topic, nil)
	give := func(n int) {
		for range n {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Microsecond)
			if err := topic.Publish(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want DeadlineExceeded", err)
			}
			cancel()
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	give(100)
	before := heap()
	give(3000)
	if grown := heap() - before; grown > 100_000 { // with a channel each it would be 300 kB
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

func TestMEM5EndedSubscriptionsPinNothing(t *testing.T) {
	for _, end := range []func(*hark.Subscription) error{
		(*hark.Subscription).Close,
		func(sub *hark.Subscription) error { return sub.Drain(context.Background()) },
	} {
		bus, topic := trapBus[*load](t)
		h := func(context.Context, *hark.Message[*load]) error { return nil }
		mustSubscribe(t, topic, h)
		pattern, err := hark.SubscribePattern(bus, "*", h)
		if err != nil {
			t.Fatal(err)
		}
		subs := []*hark.Subscription{
			pattern,
			mustSubscribe(t, topic, h),
			mustSubscribe(t, topic, h, hark.Workers(3)),
			mustSubscribe(t, topic, h, hark.Group("g")),
			mustSubscribe(t, topic, h, hark.Overflow(hark.Latest)),
		}
		var all loads
		all.publish(t, topic, 100)
		for _, sub := range subs {
			if err := end(sub); err != nil {
				t.Fatal(err)
			}
		}
		all.publish(t, topic, 5000)
		all.wantAlive(t, slack)
	}
}

func TestMEM6IdleSubscriptionsHaveNoGoroutine(t *testing.T) {
	bus, topic := trapBus[int](t)
	before := runtime.NumGoroutine()
	var mu sync.Mutex
	got := 0
	all := make(chan struct{})
	for i := range 1000 {
		h := func(context.Context, *hark.Message[int]) error {
			mu.Lock()
			defer mu.Unlock()
			if got++; got == 1000 {
				close(all)
			}
			return nil
		}
		if i%2 == 0 {
			mustSubscribe(t, topic, h, hark.Workers(2))
		} else if _, err := hark.SubscribePattern(bus, "trap", h); err != nil {
			t.Fatal(err)
		}
	}
	mustPublish(t, topic, 1)
	<-all
	limit := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(limit) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

// An idle subscription without options is one object, its places in the lists of
// the topic and of the log, and its name only while somebody asks for it.
func TestIdleSubscriptionsAreSmall(t *testing.T) {
	const n, limit = 10_000, 540
	_, topic := trapBus[[3]uint64](t)
	h := func(context.Context, *hark.Message[[3]uint64]) error { return nil }
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		mustSubscribe(t, topic, h)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d bytes each", each)
	if each > limit {
		t.Errorf("an idle subscription takes %d bytes, want at most %d", each, limit)
	}
}

func TestCLS11CloseLeavesNothing(t *testing.T) {
	leak.Check(t)
	bus := hark.New()
	topic, err := hark.NewTopic[int](bus, "a", hark.KeyBy(func(n int) string { return string(rune('a' + n%5)) }))
	if err != nil {
		t.Fatal(err)
	}
	h := func(_ context.Context, m *hark.Message[int]) error {
		if m.Value%50 == 0 && m.Attempt() < 3 {
			return hark.RetryAfter(time.Millisecond, nil)
		}
		return nil
	}
	mustSubscribe(t, topic, h, hark.Workers(4))
	mustSubscribe(t, topic, h, hark.Group("g"), hark.Workers(2))
	if _, err := topic.SubscribeBatch(func(context.Context, []*hark.Message[int]) error { return nil }, hark.Batch(7, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := hark.SubscribePattern(bus, ">", h); err != nil {
		t.Fatal(err)
	}
	pub := topic.Publisher()
	for i := range 500 {
		mustPublish(t, topic, i)
		if err := pub.Publish(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	mustPublish(t, topic, 1, hark.Delay(time.Hour))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var left *hark.CloseError // of the batch, which waits for an hour
	if err := bus.Close(ctx); !errors.As(err, &left) {
		t.Errorf("got %v, want a *CloseError", err)
	}
}

func TestHDL5RoomForHandlersHasALimit(t *testing.T) {
	_, topic := trapBus[int](t)
	result := make(chan error, 1)
	accepted := 0
	sub := mustSubscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value > 0 {
			return nil
		}
		for {
			if err := topic.Publish(ctx, 1); err != nil {
				result <- err
				return nil
			}
			accepted++
		}
	}, hark.Buffer(16))
	mustPublish(t, topic, 0)
	if err := <-result; !errors.Is(err, hark.ErrWouldDeadlock) {
		t.Errorf("got %v, want ErrWouldDeadlock", err)
	}
	if want := 16 + 65536; accepted != want {
		t.Errorf("let in %d, want %d", accepted, want)
	}
	if err := sub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := sub.Stats(); s.BufferExceeded != 65536 || s.Delivered != uint64(1+accepted) {
		t.Errorf("got %+v, want 65536 overgrown and all delivered", s)
	}
}

// dropNotes is a DropHook.
type dropNotes struct {
	mu    sync.Mutex
	drops map[hark.DropReason]int
}

func (d *dropNotes) OnDrop(e hark.DropEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drops[e.Reason] += e.Count
}

// What retention takes from a subscription that is ending counts as dropped, and nothing
// newer comes in its place (ITR-6, SUB-5).
func TestOvertakenWhileEnding(t *testing.T) {
	const held, newer = 100, 4000
	end := func(t *testing.T, read func(topic *hark.Topic[int], overtake func()) (last int, err error)) {
		notes := &dropNotes{drops: map[hark.DropReason]int{}}
		bus := hark.New(hark.WithHooks(notes))
		topic, err := hark.NewTopic[int](bus, "a", hark.Stored(hark.Retention{MaxMessages: held}))
		if err != nil {
			t.Fatal(err)
		}
		for i := range held {
			mustPublish(t, topic, i+1)
		}
		got, once := 0, sync.Once{}
		last, err := read(topic, func() {
			got++
			once.Do(func() {
				for i := range newer {
					mustPublish(t, topic, held+i+1)
				}
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		closeBus(t, bus)
		if dropped := notes.drops[hark.DropRetention]; last > held || dropped == 0 || got+dropped != held {
			t.Errorf("got %d up to %d, and %d were dropped; want %d in all, none after them", got, last, dropped, held)
		}
	}
	t.Run("UntilNow", func(t *testing.T) {
		end(t, func(topic *hark.Topic[int], overtake func()) (last int, err error) {
			for m, err := range topic.Messages(t.Context(), hark.FromStart(), hark.UntilNow()) {
				if err != nil {
					return last, err
				}
				last = m.Value
				overtake()
			}
			return last, nil
		})
	})
	t.Run("Drain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			end(t, func(topic *hark.Topic[int], overtake func()) (last int, err error) {
				gate := make(chan struct{})
				sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
					<-gate
					last = m.Value
					overtake()
					return nil
				}, hark.FromStart())
				drained := make(chan error)
				go func() { drained <- sub.Drain(t.Context()) }()
				synctest.Wait()
				close(gate)
				err = <-drained
				return last, err
			})
		})
	})
}

func TestBUF11DropsAreReported(t *testing.T) {
	notes := &dropNotes{drops: map[hark.DropReason]int{}}
	bus := hark.New(hark.WithHooks(notes))
	topic, err := hark.NewTopic[int](bus, "a")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := hark.NewTopic[int](bus, "kept", hark.Stored(hark.Retention{MaxMessages: 10}))
	if err != nil {
		t.Fatal(err)
	}
	h := func(_ context.Context, m *hark.Message[int]) error {
		if m.Value == 0 {
			return hark.Drop(nil)
		}
		return nil
	}
	lossy := mustSubscribe(t, topic, h, hark.Buffer(3), hark.Overflow(hark.DropOldest))
	closing := mustSubscribe(t, topic, h)
	slow := mustSubscribe(t, kept, h)
	for _, sub := range []*hark.Subscription{lossy, closing, slow} {
		sub.Pause()
	}
	for i := range 10 {
		mustPublish(t, topic, i)
	}
	for i := range 1000 {
		mustPublish(t, kept, i)
	}
	if err := closing.Close(); err != nil {
		t.Fatal(err)
	}
	if s := lossy.Stats(); s.Dropped != 7 {
		t.Errorf("got %+v, want 7 dropped", s)
	}
	mustPublish(t, topic, 0, hark.TTL(1))
	mustPublish(t, topic, 0)
	if err := bus.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	notes.mu.Lock()
	defer notes.mu.Unlock()
	retained := int(slow.Stats().Dropped)
	for reason, want := range map[hark.DropReason]int{
		hark.DropOverflow: 9, hark.DropClosed: 10, hark.DropExpired: 1, hark.DropByHandler: 1, hark.DropRetention: retained,
	} {
		if got := notes.drops[reason]; got != want {
			t.Errorf("%s: told of %d, want %d", reason, got, want)
		}
	}
	if retained < 500 {
		t.Errorf("%d lost to retention, want most of 1000", retained)
	}
	if got := slices.Sorted(func(yield func(hark.DropReason) bool) {
		for reason := range notes.drops {
			if !yield(reason) {
				return
			}
		}
	}); len(got) != 5 {
		t.Errorf("reasons: %v", got)
	}
}

// TestNoDropsAreNotReported closes a subscription and a bus with nothing
// waiting. No hook may be told of drops.
func TestNoDropsAreNotReported(t *testing.T) {
	var events []hark.DropEvent
	bus := hark.New(hark.WithHooks(dropFunc(func(e hark.DropEvent) { events = append(events, e) })))
	topic, err := hark.NewTopic[int](bus, "a")
	if err != nil {
		t.Fatal(err)
	}
	h := func(context.Context, *hark.Message[int]) error { return nil }
	first := mustSubscribe(t, topic, h)
	mustSubscribe(t, topic, h, hark.Buffer(1), hark.Overflow(hark.Latest))
	mustPublish(t, topic, 1)
	if err := first.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(events) > 0 {
		t.Errorf("got %+v, want no drops", events)
	}
}

type dropFunc func(hark.DropEvent)

func (f dropFunc) OnDrop(e hark.DropEvent) { f(e) }
