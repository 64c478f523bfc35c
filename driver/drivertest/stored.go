package drivertest

import (
	"context"
	"errors"
	"testing"

	"github.com/harkbus/hark"
)

var storedClauses = []Clause{
	{"STO-1", "FromStart replays everything that is kept, then goes on", testSTO1},
	{"STO-2", "FromSeq starts at a sequence", testSTO2},
	{"STO-3", "FromTime starts at a time", testSTO3},
	{"STO-4", "Last starts with the last messages", testSTO4},
	{"STO-5", "sequences count from 1 without gaps", testSTO5},
	{"STO-6", "publishing never waits for subscriptions", testSTO6},
	{"STO-7", "MaxMessages keeps the newest", testSTO7},
	{"STO-8", "a start in the past needs a stored topic", testSTO8},
	{"STO-9", "replay passes into the present without gap or repeat", testSTO9},
	{"STO-10", "a subscription that retention overtakes goes on at the oldest kept, and counts", testSTO10},
	{"STO-12", "Existing takes a topic as it is", testSTO12},
}

func storedWith(ctx context.Context, t *testing.T, bus *hark.Bus, r hark.Retention, n int) *hark.Topic[int] {
	t.Helper()
	topic := newTopic[int](t, bus, "a", hark.Stored(r))
	publish(ctx, t, topic, count(1, n+1)...)
	return topic
}

func testSTO1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := storedWith(ctx, t, bus, hark.Retention{}, 700)
	for range 2 {
		w := newRecorder[int]()
		subscribe(t, topic, w.handle, hark.FromStart())
		wantEqual(t, "values", w.wait(ctx, t, 700), count(1, 701))
	}
	w := newRecorder[int]()
	subscribe(t, topic, w.handle, hark.FromStart())
	late := newRecorder[int]()
	subscribe(t, topic, late.handle, hark.FromNow())
	publish(ctx, t, topic, 701)
	wantEqual(t, "values", w.wait(ctx, t, 701), count(1, 702))
	wantEqual(t, "from now", late.wait(ctx, t, 1), []int{701})
}

func testSTO2(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := storedWith(ctx, t, bus, hark.Retention{}, 100)
	for seq, want := range map[uint64][]int{0: count(1, 101), 1: count(1, 101), 40: count(40, 101), 100: {100}} {
		w := newRecorder[int]()
		subscribe(t, topic, w.handle, hark.FromSeq(seq))
		wantEqual(t, "values", w.wait(ctx, t, len(want)), want)
	}
}

func testSTO3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := storedWith(ctx, t, bus, hark.Retention{}, 50)
	var times []hark.Message[int]
	for m, err := range topic.Messages(ctx, hark.FromStart()) {
		if err != nil {
			t.Fatal(err)
		}
		if times = append(times, *m.Clone()); len(times) == 50 {
			break
		}
	}
	at := times[29].Time()
	first := 29
	for first > 0 && !times[first-1].Time().Before(at) {
		first--
	}
	w := newRecorder[int]()
	subscribe(t, topic, w.handle, hark.FromTime(at))
	wantEqual(t, "values", w.wait(ctx, t, 50-first), count(first+1, 51))
}

func testSTO4(t *testing.T, open Opener) {
	for n, want := range map[int][]int{0: {101}, 1: {100, 101}, 10: count(91, 102), 1000: count(1, 102)} {
		ctx, bus := start(t, open)
		topic := storedWith(ctx, t, bus, hark.Retention{}, 100)
		w := newRecorder[int]()
		subscribe(t, topic, w.handle, hark.Last(n))
		publish(ctx, t, topic, 101)
		wantEqual(t, "values", w.wait(ctx, t, len(want)), want)
	}
	ctx, bus := start(t, open)
	topic := storedWith(ctx, t, bus, hark.Retention{}, 1)
	if _, err := topic.Subscribe(newRecorder[int]().handle, hark.Last(-1)); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("Last(-1): got %v, want ErrInvalidOption", err)
	}
	if _, err := topic.Subscribe(newRecorder[int]().handle, hark.Last(1), hark.FromStart()); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("two starts: got %v, want ErrInvalidOption", err)
	}
}

func testSTO5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	w := newRecorder[int]()
	subscribe(t, topic, func(_ context.Context, m *hark.Message[int]) error {
		w.note(int(m.Seq()))
		return nil
	})
	done := make(chan error, 3)
	for range 3 {
		go func() { done <- topic.PublishAll(ctx, make([]int, 200)) }()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "sequences", w.wait(ctx, t, 600), count(1, 601))
}

func testSTO6(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	_, w, g := stalled(ctx, t, topic)
	publish(ctx, t, topic, count(1, 5000)...)
	g.release()
	wantEqual(t, "values", w.wait(ctx, t, 5000), count(0, 5000))
}

func testSTO7(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := storedWith(ctx, t, bus, hark.Retention{MaxMessages: 10}, 300)
	w := newRecorder[int]()
	subscribe(t, topic, w.handle, hark.FromStart())
	wantEqual(t, "values", w.wait(ctx, t, 10), count(291, 301))
	if got := bus.Stats().Topics[0].Stored; got != 10 {
		t.Errorf("Stored: got %d, want 10", got)
	}
}

func testSTO8(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	for _, opt := range []hark.SubscribeOption{hark.FromStart(), hark.FromSeq(1), hark.Last(1)} {
		if _, err := topic.Subscribe(newRecorder[int]().handle, opt); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("got %v, want ErrInvalidOption", err)
		}
	}
	w := newRecorder[int]()
	subscribe(t, topic, w.handle, hark.FromNow())
	publish(ctx, t, topic, 1)
	w.wait(ctx, t, 1)
}

func testSTO9(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	const n = 2000
	done := make(chan error, 1)
	go func() {
		for i := range n {
			if err := topic.Publish(ctx, i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var ws []*recorder[int]
	for range 10 {
		w := newRecorder[int]()
		subscribe(t, topic, w.handle, hark.FromStart())
		w.wait(ctx, t, 100)
		ws = append(ws, w)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		wantEqual(t, "values", w.wait(ctx, t, n), count(0, n))
	}
}

func testSTO10(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{MaxMessages: 10}))
	sub, w, g := stalled(ctx, t, topic)
	const n = 2000
	publish(ctx, t, topic, count(1, n)...)
	g.release()
	until(ctx, t, "the last message comes", func() bool {
		got := w.all()
		return len(got) > 0 && got[len(got)-1] == n-1
	})
	got := w.all()
	for i := 2; i < len(got); i++ {
		// In process, the subscription is overtaken once, while it is stalled.
		if got[i] <= got[i-1] || inProcess(bus) && got[i] != got[i-1]+1 {
			t.Errorf("got %d after %d", got[i], got[i-1])
		}
	}
	until(ctx, t, "delivered and dropped make up what was published", func() bool {
		s := sub.Stats()
		return s.Delivered == uint64(len(got)) && s.Delivered+s.Dropped == n && (s.Dropped > 0 || s.Delivered == n) // an engine may have fetched everything in time
	})
}

func testSTO12(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	for _, opts := range [][]hark.TopicOption{{}, {hark.Stored(hark.Retention{}), hark.DedupWindow(0)}} {
		if _, err := hark.NewTopic[int](bus, "b", append(opts, hark.Existing())...); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("Existing and %d other options: got %v, want ErrInvalidOption", len(opts), err)
		}
	}
	few, many := hark.Stored(hark.Retention{MaxMessages: 3}), hark.Stored(hark.Retention{MaxMessages: 7})
	keeps := func(name string) {
		t.Helper()
		topic := newTopic[int](t, bus, name, many, hark.Existing())
		publish(ctx, t, topic, count(1, 11)...)
		w := newRecorder[int]()
		subscribe(t, topic, w.handle, hark.FromStart())
		wantEqual(t, "kept on "+name, w.wait(ctx, t, 3), count(8, 11))
	}
	newTopic[int](t, bus, "a", few)
	keeps("a")
	newTopic[int](t, bus, "b", few, hark.Existing()) // which creates it
	keeps("b")
	if _, err := hark.NewTopic[int](bus, "b", few); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("without Existing: got %v, want ErrInvalidOption, because its limits may be others", err)
	}
	newTopic[int](t, bus, "c")
	if _, err := hark.NewTopic[int](bus, "c", few, hark.Existing()); !errors.Is(err, hark.ErrInvalidOption) {
		t.Errorf("after a call without Stored: got %v, want ErrInvalidOption, because it is ephemeral here", err)
	}
}
