package drivertest

import (
	"context"
	"errors"
	"testing"

	"github.com/harkbus/hark"
)

var publishClauses = []Clause{
	{"PUB-1", "Publish accepts a message and does not wait for handlers", testPUB1},
	{"PUB-2", "a context that has ended publishes nothing", testPUB2},
	{"PUB-3", "PublishAll keeps order and says which failed", testPUB3},
	{"PUB-4", "what the publisher says about a message arrives with it", testPUB4},
	{"PUB-5", "publishing to nobody succeeds and leaves nothing behind", testPUB5},
	{"PUB-6", "bad names and options are errors, and publish nothing", testPUB6},
	{"PUB-7", "a closed Publisher delivers what it published and takes no more", testPUB7},
	{"ORD-1", "the messages of one publisher come in order", testORD1},
	{"ORD-2", "all subscriptions see one order", testORD2},
	{"ORD-3", "each Publisher is an order of its own", testORD3},
	{"ORD-4", "without a key, a failed message does not hold up those behind it", testORD4},
}

func testPUB1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	g := newGate(t)
	w := newRecorder[int]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if err := g.pass(ctx); err != nil {
			return err
		}
		return w.handle(ctx, m)
	})
	publish(ctx, t, topic, 1, 2, 3) // returns although the handler does not
	g.reached(ctx, t, 1)
	g.release()
	wantEqual(t, "values", w.wait(ctx, t, 3), []int{1, 2, 3})
}

func testPUB2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	why := errors.New("no longer wanted")
	over, cancel := context.WithCancelCause(ctx)
	cancel(why)
	if err := topic.Publish(over, 1); !errors.Is(err, why) {
		t.Errorf("Publish: got %v, want the cause", err)
	}
	err := topic.PublishAll(over, []int{2, 3})
	var batch *hark.BatchError
	if !errors.As(err, &batch) || len(batch.Items) != 2 || !errors.Is(err, why) {
		t.Errorf("PublishAll: got %v, want a *BatchError with both and the cause", err)
	}
	pub := topic.Publisher()
	defer pub.Close()
	if err := pub.Publish(over, 4); !errors.Is(err, why) {
		t.Errorf("Publisher.Publish: got %v, want the cause", err)
	}
	publish(ctx, t, topic, 5)
	wantEqual(t, "values", w.wait(ctx, t, 1), []int{5})
}

func testPUB3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	if err := topic.PublishAll(ctx, count(0, 3000)); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.wait(ctx, t, 3000), count(0, 3000))

	small := newTopic[int](t, bus, "small")
	g := newGate(t)
	seen := newRecorder[int]()
	subscribe(t, small, func(ctx context.Context, m *hark.Message[int]) error {
		if err := g.pass(ctx); err != nil {
			return err
		}
		return seen.handle(ctx, m)
	}, hark.Buffer(4), hark.Overflow(hark.Fail))
	publish(ctx, t, small, 0)
	g.reached(ctx, t, 1)
	err := small.PublishAll(ctx, count(1, 8))
	var batch *hark.BatchError
	if !errors.As(err, &batch) || !errors.Is(err, hark.ErrFull) {
		t.Fatalf("got %v, want a *BatchError with ErrFull", err)
	}
	var failed []int
	for _, item := range batch.Items {
		failed = append(failed, item.Index)
	}
	wantEqual(t, "failed items", failed, []int{4, 5, 6})
	g.release()
	wantEqual(t, "values", seen.wait(ctx, t, 5), count(0, 5))
}

func testPUB4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[string](t, bus, "orders.placed")
	type said struct{ topic, id, key, source, extra string }
	w := newRecorder[said]()
	subscribe(t, topic, func(_ context.Context, m *hark.Message[string]) error {
		extra, _ := m.Header("extra")
		if m.Time().IsZero() {
			t.Error("the message has no time")
		}
		w.note(said{m.Topic(), m.ID(), m.Key(), m.Source(), extra})
		return nil
	})
	err := topic.Publish(ctx, "x", hark.ID("i"), hark.Key("k"), hark.Header("source", "here"), hark.Header("extra", "e"))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "message", w.wait(ctx, t, 1), []said{{"orders.placed", "i", "k", "here", "e"}})
}

func testPUB5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	publish(ctx, t, topic, 1)
	if err := topic.PublishAll(ctx, []int{2, 3}); err != nil {
		t.Fatal(err)
	}
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	publish(ctx, t, topic, 4)
	wantEqual(t, "values", w.wait(ctx, t, 1), []int{4})
}

func testPUB6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	for _, name := range []string{"", "a..b", ".a", "a.", "a.*", ">", "a b", "$sys", "a\x1b", "a.\u202eb", "a\u200b"} {
		if _, err := hark.NewTopic[int](bus, name); !errors.Is(err, hark.ErrInvalidName) {
			t.Errorf("topic %q: got %v, want ErrInvalidName", name, err)
		}
	}
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	for what, opt := range map[string]hark.PublishOption{
		"empty ID":       hark.ID(""),
		"nameless":       hark.Header("", "x"),
		"negative delay": hark.Delay(-1),
		"no TTL":         hark.TTL(0),
	} {
		if err := topic.Publish(ctx, 1, opt); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", what, err)
		}
	}
	if err := topic.PublishAll(ctx, []int{1, 2}, hark.ID("x")); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("one ID for two: got %v, want ErrInvalidOption", err)
	}
	publish(ctx, t, topic, 2)
	wantEqual(t, "values", w.wait(ctx, t, 1), []int{2})
}

func testPUB7(t *testing.T, open Opener) {
	for _, stored := range []bool{false, true} {
		ctx, bus := start(t, open)
		var opts []hark.TopicOption
		if stored {
			opts = append(opts, hark.Stored(hark.Retention{}))
		}
		topic := newTopic[int](t, bus, "a", opts...)
		w := newRecorder[int]()
		sub := subscribe(t, topic, w.handle)
		sub.Pause()
		pub := topic.Publisher()
		for i := range 10 {
			if err := pub.Publish(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := pub.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := pub.Publish(ctx, 10); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("Publish after Close: got %v, want ErrClosed", err)
		}
		if err := pub.PublishAll(ctx, []int{11}); !errors.Is(err, hark.ErrClosed) {
			t.Errorf("PublishAll after Close: got %v, want ErrClosed", err)
		}
		sub.Resume()
		wantEqual(t, "values", w.wait(ctx, t, 10), count(0, 10))
	}
}

func testORD1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, w.handle)
	publish(ctx, t, topic, count(0, 5000)...)
	wantEqual(t, "values", w.wait(ctx, t, 5000), count(0, 5000))
}

func testORD2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[[2]int](t, bus, "a")
	var ws []*recorder[[2]int]
	for range 3 {
		w := newRecorder[[2]int]()
		subscribe(t, topic, w.handle)
		ws = append(ws, w)
	}
	const publishers, each = 4, 500
	publishAtOnce(t, publishers, each, func(p, i int) error { return topic.Publish(ctx, [2]int{p, i}) })
	first := ws[0].wait(ctx, t, publishers*each)
	wantOrderPer(t, first, publishers)
	for _, w := range ws[1:] {
		wantEqual(t, "order of another subscription", w.wait(ctx, t, publishers*each), first)
	}
}

// publishAtOnce calls publish(p, 0), publish(p, 1) … for each publisher p, all of which
// run at the same time. It returns when they have ended.
func publishAtOnce(t *testing.T, publishers, each int, publish func(p, i int) error) {
	t.Helper()
	done := make(chan error, publishers)
	for p := range publishers {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				err = publish(p, i)
			}
			done <- err
		}()
	}
	for range publishers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// wantOrderPer checks that the values {p, 0}, {p, 1} … are in order for each p.
func wantOrderPer(t *testing.T, got [][2]int, publishers int) {
	t.Helper()
	next := make([]int, publishers)
	for _, v := range got {
		if v[1] != next[v[0]] {
			t.Errorf("of %d: got number %d, want %d", v[0], v[1], next[v[0]])
		}
		next[v[0]] = v[1] + 1
	}
}

func testORD3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[[2]int](t, bus, "a")
	w := newRecorder[[2]int]()
	subscribe(t, topic, w.handle)
	const publishers, each = 3, 1000
	var pubs []*hark.Publisher[[2]int]
	for range publishers {
		pub := topic.Publisher()
		defer pub.Close()
		pubs = append(pubs, pub)
	}
	publishAtOnce(t, publishers, each, func(p, i int) error { return pubs[p].Publish(ctx, [2]int{p, i}) })
	wantOrderPer(t, w.wait(ctx, t, publishers*each), publishers)
}

func testORD4(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	subscribe(t, topic, func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value == 0 && m.Attempt() == 1 {
			return hark.RetryAfter(0, errors.New("not yet"))
		}
		return w.handle(ctx, m)
	})
	publish(ctx, t, topic, 0, 1, 2)
	got := w.wait(ctx, t, 3)
	var others []int
	for _, v := range got {
		if v != 0 {
			others = append(others, v)
		}
	}
	wantEqual(t, "values that did not fail", others, []int{1, 2})
}
