package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

// KeptPattern is what the topics of the clauses about durable subscriptions to
// patterns match. An engine that opens patterns of stored topics only where it has
// been told to keep them together has to be told so of this one.
const KeptPattern = "kept.>"

var durableClauses = []Clause{
	{"PAT-9", "a start in the past passes into the present without gap or repeat", testPAT9},
	{"PAT-10", "a Durable subscription is to the stored topics", testPAT10},
	{"PAT-11", "a Durable group keeps its place without members", testPAT11},
	{"PAT-12", "a Durable group retries, and keeps the order of keys of a member", testPAT12},
	{"PAT-13", "Durable where it means nothing is refused", testPAT13},
}

// keptTopic returns a stored topic that matches KeptPattern. The thousands of a
// value identify its topic.
func keptTopic(t *testing.T, bus *hark.Bus, name string, opts ...hark.TopicOption) *hark.Topic[int] {
	t.Helper()
	return newTopic[int](t, bus, "kept."+name, append(opts, hark.Stored(hark.Retention{}))...)
}

// wantOrderPerThousand checks that the values of each thousand are complete and
// in order.
func wantOrderPerThousand(t *testing.T, what string, got []int, thousands, each int) {
	t.Helper()
	next := make([]int, thousands)
	for _, v := range got {
		if p := v / 1000; p >= thousands || v%1000 != next[p] {
			t.Fatalf("%s: got %d in %v, out of order", what, v, got)
		}
		next[v/1000]++
	}
	for p, n := range next {
		if n != each {
			t.Errorf("%s: got %d messages of topic %d, want %d", what, n, p, each)
		}
	}
}

func testPAT9(t *testing.T, open Opener) {
	const topics, before, each = 3, 40, 150
	ctx, bus := start(t, open)
	var all []*hark.Topic[int]
	for p := range topics {
		all = append(all, keptTopic(t, bus, fmt.Sprintf("eu.t%d", p)))
		publish(ctx, t, all[p], count(1000*p, 1000*p+before)...)
	}
	other := keptTopic(t, bus, "us.one")
	publish(ctx, t, other, count(0, 20)...)
	done := make(chan error, topics)
	for p, topic := range all {
		go func() {
			var err error
			for i := before; i < each && err == nil; i++ {
				err = topic.Publish(ctx, 1000*p+i)
			}
			done <- err
		}()
	}
	for what, opts := range map[string][]hark.SubscribeOption{
		"FromStart":         {hark.FromStart()},
		"FromSeq":           {hark.FromSeq(1)},
		"FromTime":          {hark.FromTime(time.Unix(0, 0))},
		"Last":              {hark.Last(topics * each)},
		"FromStart Durable": {hark.FromStart(), hark.Durable()},
	} {
		w := newRecorder[int]()
		sub := subscribePattern(t, bus, "kept.eu.*", w.handle, opts...)
		w.wait(ctx, t, topics*each)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		wantOrderPerThousand(t, what, w.all(), topics, each)
	}
	for range topics {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	w := newRecorder[int]()
	var seq uint64 // of the fifth value from the end
	sub := subscribePattern(t, bus, "kept.us.>", func(_ context.Context, m *hark.Message[int]) error {
		if m.Value == 15 {
			seq = m.Seq()
		}
		w.note(m.Value)
		return nil
	}, hark.FromStart())
	wantEqual(t, "values", w.wait(ctx, t, 20), count(0, 20))
	if s := sub.Stats(); s.Waiting != 0 || s.Dropped != 0 {
		t.Errorf("got %+v, want nothing waiting and nothing dropped", s)
	}
	for what, opt := range map[string]hark.SubscribeOption{"Last": hark.Last(5), "FromSeq": hark.FromSeq(seq)} {
		last := newRecorder[int]()
		sub := subscribePattern(t, bus, "kept.us.>", last.handle, opt)
		wantEqual(t, what, last.wait(ctx, t, 5), count(15, 20))
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testPAT10(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	kept := keptTopic(t, bus, "a")
	publish(ctx, t, kept, 0)
	w := newRecorder[int]()
	subscribePattern(t, bus, KeptPattern, w.handle, hark.Durable())
	if inProcess(bus) { // other engines store everything that matches
		publish(ctx, t, newTopic[int](t, bus, "kept.gone"), 9)
	}
	publish(ctx, t, newTopic[int](t, bus, "gone.a"), 9)
	publish(ctx, t, kept, 1)
	publish(ctx, t, keptTopic(t, bus, "b.later"), 2)
	got := w.wait(ctx, t, 2)
	slices.Sort(got)
	wantEqual(t, "values", got, []int{1, 2})
}

func testPAT11(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	w, other := newRecorder[int](), newRecorder[int]()
	a, b := keptTopic(t, bus, "a"), keptTopic(t, bus, "b")
	publish(ctx, t, a, 9999) // before the group exists
	whole := subscribePattern(t, bus, KeptPattern, w.handle, hark.Durable(), hark.Group("g"))
	part := subscribePattern(t, bus, "kept.*", other.handle, hark.Durable(), hark.Group("g")) // another group
	for i := range 10 {
		publish(ctx, t, a, i)
		publish(ctx, t, b, 1000+i)
	}
	waitDistinct(ctx, t, bus, w, 20)
	waitDistinct(ctx, t, bus, other, 20)
	for _, sub := range []*hark.Subscription{whole, part} {
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	publish(ctx, t, keptTopic(t, bus, "c.made.later"), count(2000, 2010)...)
	publish(ctx, t, b, count(1010, 1020)...)
	var members []*hark.Subscription
	for range 3 { // FromStart applies only to new groups
		members = append(members, subscribePattern(t, bus, KeptPattern, w.handle, hark.Durable(), hark.Group("g"), hark.FromStart()))
	}
	waitDistinct(ctx, t, bus, w, 40)
	publish(ctx, t, a, count(10, 20)...)
	got := waitDistinct(ctx, t, bus, w, 50)
	slices.Sort(got)
	wantEqual(t, "values", got, slices.Concat(count(0, 20), count(1000, 1020), count(2000, 2010)))
	for _, sub := range members {
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
	}
	publish(ctx, t, a, 20) // the bus closes even though no one receives it
}

func testPAT12(t *testing.T, open Opener) {
	const topics, each = 3, 60
	ctx, bus := start(t, open)
	var all []*hark.Topic[int]
	for p := range topics {
		all = append(all, keptTopic(t, bus, fmt.Sprint("t", p), hark.KeyBy(func(v int) string { return fmt.Sprint(v / 1000) })))
	}
	w := newRecorder[int]()
	sub := subscribePattern(t, bus, "kept.*", func(ctx context.Context, m *hark.Message[int]) error {
		if m.Value%20 == 7 && m.Attempt() < 3 {
			return errHandler
		}
		return w.handle(ctx, m)
	}, append(quick(5), hark.Durable(), hark.Group("g"), hark.Workers(4))...)
	for i := range each {
		for p, topic := range all {
			publish(ctx, t, topic, 1000*p+i)
		}
	}
	waitDistinct(ctx, t, bus, w, topics*each)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if !underFaults(bus) {
		wantOrderPerThousand(t, "group", w.all(), topics, each)
	}
}

func testPAT13(t *testing.T, open Opener) {
	_, bus := start(t, open)
	h := newRecorder[int]().handle
	topic := keptTopic(t, bus, "a")
	subscribePattern(t, bus, "kept.*", h, hark.Durable(), hark.Group("g"))
	of := func(opts ...hark.SubscribeOption) func() (*hark.Subscription, error) {
		return func() (*hark.Subscription, error) { return hark.SubscribePattern(bus, "kept.*", h, opts...) }
	}
	for what, subscribe := range map[string]func() (*hark.Subscription, error){
		"a topic":                     func() (*hark.Subscription, error) { return topic.Subscribe(h, hark.Durable()) },
		"a buffer":                    of(hark.Durable(), hark.Buffer(3)),
		"a policy":                    of(hark.Durable(), hark.Overflow(hark.DropOldest)),
		"a member of another opinion": of(hark.Group("g")),
	} {
		if _, err := subscribe(); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", what, err)
		}
	}
}
