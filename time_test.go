package hark_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
)

// inBubble runs a test with a topic in a bubble, where time stands still until
// all goroutines wait.
func inBubble(t *testing.T, opts []hark.TopicOption, test func(t *testing.T, bus *hark.Bus, topic *hark.Topic[int])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New(hark.Grace(5 * time.Second))
		topic, err := hark.NewTopic[int](bus, "trap", opts...)
		if err != nil {
			t.Fatal(err)
		}
		test(t, bus, topic)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		bus.Close(ctx)
	})
}

// diary records when something happened, relative to when the diary was made.
type diary struct {
	mu    sync.Mutex
	began time.Time
	lines []time.Duration
}

func newDiary() *diary { return &diary{began: time.Now()} }

func (d *diary) note() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, time.Since(d.began))
}

func (d *diary) want(t *testing.T, what string, want ...time.Duration) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("%s: got %v, want %v", what, d.lines, want)
	}
}

func TestRTY8BackoffDoubles(t *testing.T) {
	for _, test := range []struct {
		policy hark.BackoffPolicy
		n      int
		want   []time.Duration // the waits
	}{
		{hark.BackoffPolicy{Exact: true}, 5, []time.Duration{100e6, 200e6, 400e6, 800e6}},
		{hark.BackoffPolicy{Min: time.Second, Max: 3 * time.Second, Exact: true}, 5, []time.Duration{1e9, 2e9, 3e9, 3e9}},
		{hark.BackoffPolicy{Min: time.Minute, Exact: true}, 3, []time.Duration{60e9, 60e9}},
		{hark.BackoffPolicy{Max: time.Millisecond, Exact: true}, 3, []time.Duration{1e6, 1e6}},
		{hark.BackoffPolicy{Exact: true}, 12, []time.Duration{100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, 12800e6, 25600e6, 30e9, 30e9}},
	} {
		inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
			d := newDiary()
			sub := mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error {
				d.note()
				return errTrap
			}, hark.Backoff(test.policy), hark.MaxAttempts(test.n))
			mustPublish(t, topic, 1)
			if err := sub.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			at := []time.Duration{0}
			for _, wait := range test.want {
				at = append(at, at[len(at)-1]+wait)
			}
			d.want(t, "attempts", at...)
		})
	}
}

func TestBackoffWithJitter(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		var mu sync.Mutex
		at := map[int][]time.Time{}
		sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			mu.Lock()
			at[m.Value] = append(at[m.Value], time.Now())
			mu.Unlock()
			return errTrap
		}, hark.MaxAttempts(3))
		for i := range 200 {
			mustPublish(t, topic, i)
		}
		if err := sub.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		distinct := map[time.Duration]bool{}
		for i, times := range at {
			first, next := times[1].Sub(times[0]), times[2].Sub(times[1])
			if first <= 0 || first > 100*time.Millisecond || next <= 0 || next > 200*time.Millisecond {
				t.Errorf("%d waited %v and %v, want at most 100 ms and 200 ms", i, first, next)
			}
			distinct[first] = true
		}
		if len(distinct) < 150 {
			t.Errorf("%d different waits of 200", len(distinct))
		}
	})
}

func TestBackoffOfAVeryLongMax(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			d.note()
			if m.Attempt() < 3 {
				return errTrap
			}
			return nil
		}, hark.MaxAttempts(100), hark.Backoff(hark.BackoffPolicy{Min: 1 << 61, Max: 1<<62 + 1, Exact: true}))
		mustPublish(t, topic, 1)
		time.Sleep(time.Hour)
		d.want(t, "attempts", 0)
	})
}

func TestRetryAfterIsExact(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			d.note()
			if m.Attempt() < 4 {
				return hark.RetryAfter(time.Duration(m.Attempt())*time.Hour, nil)
			}
			return nil
		})
		mustPublish(t, topic, 1)
		if err := sub.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.want(t, "attempts", 0, time.Hour, 3*time.Hour, 6*time.Hour)
	})
}

func TestDelayIsExact(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		var order []int
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			d.note()
			order = append(order, m.Value)
			return nil
		})
		mustPublish(t, topic, 3, hark.Delay(3*time.Hour))
		mustPublish(t, topic, 1, hark.Delay(time.Hour))
		mustPublish(t, topic, 2, hark.At(time.Now().Add(time.Hour)))
		mustPublish(t, topic, 0, hark.At(time.Now().Add(-time.Hour)))
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		d.want(t, "deliveries", 0, time.Hour, time.Hour, 3*time.Hour)
		if want := []int{0, 1, 2, 3}; !slices.Equal(order, want) {
			t.Errorf("order: got %v, want %v", order, want)
		}
	})
}

func TestTTLIsExact(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		var got []int
		sub := mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			got = append(got, m.Value)
			if m.Attempt() == 1 {
				return hark.RetryAfter(time.Minute, nil)
			}
			return nil
		})
		mustPublish(t, topic, 1, hark.TTL(time.Minute)) // expired by the second attempt
		mustPublish(t, topic, 2, hark.TTL(time.Minute+1))
		mustPublish(t, topic, 3, hark.Delay(time.Hour), hark.TTL(time.Minute+1)) // its TTL counts from when it is due
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if want := []int{1, 2, 2, 3, 3}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if s := sub.Stats(); s.Dropped != 1 || s.Delivered != 2 {
			t.Errorf("got %+v, want 1 dropped and 2 delivered", s)
		}
	})
}

func TestDED5WindowEnds(t *testing.T) {
	for _, test := range []struct {
		opt    hark.TopicOption
		window time.Duration
	}{
		{hark.DedupWindow(time.Hour), time.Hour},
		{hark.Stored(hark.Retention{}), 2 * time.Minute},
	} {
		inBubble(t, []hark.TopicOption{test.opt}, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
			var got []int
			mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
				got = append(got, m.Value)
				return nil
			})
			mustPublish(t, topic, 1, hark.ID("x"))
			time.Sleep(test.window - 1)
			mustPublish(t, topic, 2, hark.ID("x"))
			mustPublish(t, topic, 3, hark.ID("y"))
			time.Sleep(time.Nanosecond)
			mustPublish(t, topic, 4, hark.ID("x"))
			mustPublish(t, topic, 5, hark.ID("y"))
			synctest.Wait()
			if want := []int{1, 3, 4}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// A repeat waits for the first message, and is published if the first one is
// not.
func TestRepeatWaitsForTheFirst(t *testing.T) {
	inBubble(t, []hark.TopicOption{hark.DedupWindow(time.Hour)}, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		release := make(chan struct{})
		var got []int
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			<-release
			got = append(got, m.Value)
			return nil
		}, hark.Buffer(1))
		mustPublish(t, topic, 0)
		synctest.Wait()
		mustPublish(t, topic, 1)
		short, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- topic.Publish(short, 2, hark.ID("x")) }()
		synctest.Wait()
		go func() { second <- topic.Publish(t.Context(), 3, hark.ID("x")) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("first: got %v, want Canceled", err)
		}
		select {
		case err := <-second:
			t.Errorf("second: got %v, want it to wait for room", err)
		default:
		}
		close(release)
		if err := <-second; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if want := []int{0, 1, 3}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestSTO11MaxAgeLetsGo(t *testing.T) {
	inBubble(t, []hark.TopicOption{hark.Stored(hark.Retention{MaxAge: time.Hour})}, func(t *testing.T, bus *hark.Bus, topic *hark.Topic[int]) {
		mustPublish(t, topic, 1)
		time.Sleep(40 * time.Minute)
		mustPublish(t, topic, 2)
		time.Sleep(40 * time.Minute)
		mustPublish(t, topic, 3)
		var got []int
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			got = append(got, m.Value)
			return nil
		}, hark.FromStart())
		synctest.Wait()
		if want := []int{2, 3}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if s := bus.Stats().Topics[0]; s.Stored != 2 || s.Published != 3 {
			t.Errorf("got %+v, want 2 stored of 3", s)
		}
	})
}

// The age of a delayed message counts from when it is due.
func TestDelayedMessagesAgeWhenDue(t *testing.T) {
	inBubble(t, []hark.TopicOption{hark.Stored(hark.Retention{MaxAge: time.Hour})}, func(t *testing.T, bus *hark.Bus, topic *hark.Topic[int]) {
		mustPublish(t, topic, 2, hark.Delay(2*time.Hour))
		time.Sleep(time.Hour)
		mustPublish(t, topic, 1)
		late := time.Now()
		time.Sleep(time.Hour)
		synctest.Wait()
		mustPublish(t, topic, 3)
		for _, test := range []struct {
			from hark.SubscribeOption
			want []int
		}{{hark.FromStart(), []int{1, 2, 3}}, {hark.FromTime(late.Add(time.Minute)), []int{2, 3}}} {
			var got []int
			mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error { got = append(got, m.Value); return nil }, test.from)
			synctest.Wait()
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		}
	})
}

func TestTimeoutIsExact(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		var cause error
		sub := mustSubscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
			if m.Attempt() > 1 {
				return nil
			}
			<-ctx.Done()
			d.note()
			cause = context.Cause(ctx)
			return ctx.Err()
		}, hark.Timeout(time.Minute))
		mustPublish(t, topic, 1)
		if err := sub.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.want(t, "end of the handler's context", time.Minute)
		if !errors.Is(cause, hark.ErrTimeout) {
			t.Errorf("cause: got %v, want ErrTimeout", cause)
		}
	})
}

func TestBatchWaitIsExact(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		var sizes []int
		if _, err := topic.SubscribeBatch(func(_ context.Context, batch []*hark.Message[int]) error {
			d.note()
			sizes = append(sizes, len(batch))
			return nil
		}, hark.Batch(10, time.Second)); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, topic, 0)
		time.Sleep(600 * time.Millisecond)
		mustPublish(t, topic, 1) // the wait counts from the first message
		time.Sleep(time.Second)
		for i := range 10 {
			mustPublish(t, topic, i) // a full batch does not wait
		}
		synctest.Wait()
		d.want(t, "batches", time.Second, 1600*time.Millisecond)
		if want := []int{2, 10}; !slices.Equal(sizes, want) {
			t.Errorf("sizes: got %v, want %v", sizes, want)
		}
	})
}

// A steady trickle must not postpone a batch forever.
func TestBatchWaitUnderATrickle(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *hark.Bus, topic *hark.Topic[int]) {
		d := newDiary()
		if _, err := topic.SubscribeBatch(func(context.Context, []*hark.Message[int]) error {
			d.note()
			return nil
		}, hark.Batch(1000, 950*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for i := range 21 {
			mustPublish(t, topic, i)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		d.want(t, "batches", 950*time.Millisecond, 1950*time.Millisecond)
	})
}

type slowNotes struct {
	*diary
	runs chan time.Duration
}

func (s *slowNotes) OnSlow(e hark.SlowEvent) {
	s.note()
	s.runs <- e.For
}

func TestSlowHandlerIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := &slowNotes{newDiary(), make(chan time.Duration, 10)}
		bus := hark.New(hark.WithHooks(notes), hark.SlowAfter(time.Minute))
		topic, err := hark.NewTopic[int](bus, "a")
		if err != nil {
			t.Fatal(err)
		}
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			time.Sleep(time.Duration(m.Value) * time.Second)
			return nil
		})
		for _, seconds := range []int{59, 200, 1} { // run from 0, 59 and 259 s on
			mustPublish(t, topic, seconds)
		}
		if err := bus.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		notes.want(t, "reports", 119*time.Second)
		if got := <-notes.runs; got != time.Minute {
			t.Errorf("got %v, want one minute", got)
		}
	})
}

func TestCLS10DeadlinesOfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.New(hark.Grace(10 * time.Second))
		// Several handlers are stuck, and none may use up the grace of the
		// others.
		var heeded atomic.Int32
		unstick := make(chan struct{})
		for _, name := range []string{"a", "b", "c"} {
			topic, err := hark.NewTopic[int](bus, name)
			if err != nil {
				t.Fatal(err)
			}
			mustSubscribe(t, topic, func(ctx context.Context, _ *hark.Message[int]) error {
				if name == "a" {
					<-unstick // heeds nothing
					return nil
				}
				<-ctx.Done()
				time.Sleep(9 * time.Second) // within the grace period
				heeded.Add(1)
				return nil
			})
			mustPublish(t, topic, 1)
		}
		synctest.Wait()
		d := newDiary()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := bus.Close(ctx)
		d.note()
		d.want(t, "Close returned", 70*time.Second)
		var left *hark.CloseError
		if !errors.As(err, &left) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a *CloseError with DeadlineExceeded", err)
		}
		if len(left.Left) != 1 || left.Left[0].Name != "a" || left.Left[0].InFlight != 1 {
			t.Errorf("left: got %+v, want one in flight on a", left.Left)
		}
		if got := heeded.Load(); got != 2 {
			t.Errorf("%d handlers had their grace, want 2", got)
		}
		close(unstick)
	})
}

// A Close with ample time takes no longer than it needs.
func TestCloseReturnsWhenDone(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, bus *hark.Bus, topic *hark.Topic[int]) {
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
			if m.Attempt() < 3 {
				return hark.RetryAfter(time.Minute, nil)
			}
			time.Sleep(time.Second)
			return nil
		})
		mustPublish(t, topic, 1)
		d := newDiary()
		if err := bus.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		d.note()
		d.want(t, "Close returned", 2*time.Minute+time.Second)
	})
}

// again publishes a delayed message once more, from the hook that reports it.
type again struct {
	topic *hark.Topic[int]
	told  int
}

func (a *again) OnPublish(hark.PublishEvent) {
	if a.told++; a.told == 1 {
		_ = a.topic.Publish(context.Background(), 2, hark.Delay(time.Second)) // the test waits for it
	}
}

// TestHooksMayPublishDelayed checks that the release of delayed messages calls
// hooks without a lock, over an engine that does not keep delayed messages.
func TestHooksMayPublishDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &again{}
		bus := hark.Over(memdriver.New().Connect(), hark.WithHooks(hook))
		topic, err := hark.NewTopic[int](bus, "a")
		if err != nil {
			t.Fatal(err)
		}
		hook.topic = topic
		got := make(chan int, 2)
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error { got <- m.Value; return nil })
		mustPublish(t, topic, 1, hark.Delay(time.Second))
		if first, second := <-got, <-got; first != 1 || second != 2 {
			t.Errorf("got %d and %d", first, second)
		}
		if err := bus.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestDelayedOverEngineFailsAtOnce publishes delayed messages that cannot be published, on a
// topic that an engine does not store: that shows when they are published, as without a delay.
// What is accepted is the value as it was then.
func TestDelayedOverEngineFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := hark.Over(memdriver.New().Connect())
		type item struct {
			N int
			F any
		}
		topic, err := hark.NewTopic[*item](bus, "t", hark.KeyBy(func(i *item) string {
			if i.N == 3 {
				panic("no key")
			}
			return "k"
		}))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		mustSubscribe(t, topic, func(_ context.Context, m *hark.Message[*item]) error { got <- m.Value.N; return nil })
		var panicked *hark.PanicError
		if err := topic.Publish(t.Context(), &item{N: 3}, hark.Delay(time.Hour)); !errors.As(err, &panicked) {
			t.Errorf("without a key: got %v, want the panic of KeyBy", err)
		}
		if err := topic.Publish(t.Context(), &item{F: func() {}}, hark.Delay(time.Hour)); err == nil {
			t.Error("a value that cannot be encoded is accepted")
		}
		one := &item{N: 1}
		mustPublish(t, topic, one, hark.Delay(time.Second))
		one.N = 2
		if n := <-got; n != 1 {
			t.Errorf("got %d, want the value as it was published", n)
		}
		raw, err := hark.NewTopic[[]byte](bus, "raw")
		if err != nil {
			t.Fatal(err)
		}
		texts := make(chan string, 1)
		mustSubscribe(t, raw, func(_ context.Context, m *hark.Message[[]byte]) error { texts <- string(m.Value); return nil })
		text := []byte("before")
		mustPublish(t, raw, text, hark.Delay(time.Second))
		copy(text, "after!")
		if got := <-texts; got != "before" {
			t.Errorf("got %q, want the bytes as they were published", got)
		}
		if err := bus.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
