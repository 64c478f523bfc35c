package drivertest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
)

var filterClauses = []Clause{
	{"FLT-1", "Where lets matches through and counts the rest", testFLT1},
	{"FLT-2", "a predicate that panics has failed, like a handler", testFLT2},
	{"FLT-3", "what a predicate cannot decide is filtered, and counted", testFLT3},
	{"FLT-4", "a filter says the same of a value and of its JSON text", testFLT4},
	{"FLT-5", "a predicate that panics in an iterator gives the message up", testFLT5},
}

func testFLT1(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle,
		hark.Where(hark.MatchFunc[int](func(n int) bool { return n%2 == 0 })),
		hark.Where(hark.MatchFunc[int](func(n int) bool { return n%3 == 0 })))
	none := newRecorder[int]()
	never := subscribe(t, topic, none.handle, hark.Where(hark.MatchFunc[string](func(string) bool { return true })))
	publish(ctx, t, topic, count(0, 30)...)
	for _, sub := range []*hark.Subscription{sub, never} {
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "values", w.all(), []int{0, 6, 12, 18, 24})
	if s := sub.Stats(); s.Filtered != 25 || s.Delivered != 5 {
		t.Errorf("got %+v, want 25 filtered and 5 delivered", s)
	}
	if s := never.Stats(); s.Filtered != 30 || len(none.all()) != 0 {
		t.Errorf("predicate of another type: got %+v, want 30 filtered", s)
	}
	for what, none := range map[string]hark.Predicate{"nil": nil, "a nil function": hark.MatchFunc[int](nil), "a nil pointer": (*odd)(nil)} {
		if _, err := topic.Subscribe(w.handle, hark.Where(none)); !errors.Is(err, hark.ErrInvalidOption) {
			t.Errorf("Where of %s: got %v, want ErrInvalidOption", what, err)
		}
	}
}

func testFLT2(t *testing.T, open Opener) {
	for _, batch := range []bool{false, true} {
		ctx, bus := start(t, open)
		topic := newTopic[int](t, bus, "a")
		w := newRecorder[int]()
		opts := append(quick(2), hark.NoDeadLetter(), hark.Where(hark.MatchFunc[int](func(n int) bool {
			if n == 1 {
				panic("no good")
			}
			return true
		})))
		var sub *hark.Subscription
		if batch {
			sub = must(topic.SubscribeBatch(batches(w, newRecorder[int]()), opts...))(t)
		} else {
			sub = subscribe(t, topic, w.handle, opts...)
		}
		publish(ctx, t, topic, 0, 1, 2)
		if err := sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "values", w.all(), []int{0, 2})
		if s := sub.Stats(); s.Failed != 2 || s.Dropped != 1 || s.Delivered != 2 {
			t.Errorf("got %+v, want 2 failed, 1 dropped, 2 delivered", s)
		}
	}
}

func testFLT5(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a", hark.Stored(hark.Retention{}))
	dead := newTopic[int](t, bus, "a.dead", hark.Stored(hark.Retention{}))
	w := newRecorder[int]()
	letters := subscribe(t, dead, w.handle)
	publish(ctx, t, topic, 0, 1, 2)
	panics := hark.Where(hark.MatchFunc[int](func(n int) bool {
		if n == 1 {
			panic("no good")
		}
		return true
	}))
	var got []int
	for m, err := range topic.Messages(ctx, hark.FromStart(), panics) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m.Value); m.Value == 2 {
			break
		}
	}
	wantEqual(t, "values", got, []int{0, 2})
	until(ctx, t, "the dead letter has come", func() bool { return letters.Stats().Delivered == 1 })
	wantEqual(t, "dead letters", w.all(), []int{1})
}

// odd cannot decide on 0.
type odd struct{}

func (odd) Match(hark.Envelope) bool { panic("Eval comes first") }

func (odd) Eval(e hark.Envelope) (bool, error) {
	n := *e.Data().(*int)
	if n == 0 {
		return true, errors.New("neither odd nor even")
	}
	return n%2 == 1, nil
}

func testFLT3(t *testing.T, open Opener) {
	ctx, bus := start(t, open)
	topic := newTopic[int](t, bus, "a")
	w := newRecorder[int]()
	sub := subscribe(t, topic, w.handle, hark.Where(odd{}))
	publish(ctx, t, topic, 0, 1, 2, 3, 0)
	if err := sub.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "values", w.all(), []int{1, 3})
	if s := sub.Stats(); s.Filtered != 3 || s.FilterErrors != 2 || s.Failed != 0 || s.Delivered != 2 {
		t.Errorf("got %+v, want 3 filtered, 2 of them undecided, 2 delivered", s)
	}
}

// parcel has fields of the kinds that expressions treat differently.
type parcel struct {
	ID      string            `json:"id"`
	Kind    string            `json:"kind"`
	Weight  float64           `json:"weight"`
	Pieces  int               `json:"pieces"`
	Fragile bool              `json:"fragile,omitempty"`
	Note    *string           `json:"note,omitempty"`
	To      address           `json:"to"`
	Lines   []parcelLine      `json:"lines"`
	Labels  map[string]string `json:"labels,omitempty"`
	Posted  time.Time         `json:"posted"`
}

type address struct {
	City    string `json:"city"`
	Country string `json:"country,omitempty"`
}

type parcelLine struct {
	SKU      string  `json:"sku"`
	Quantity float64 `json:"quantity"`
}

// parcels returns n parcels that differ in everything. Some have fields that
// their text leaves out, others characters that it escapes.
func parcels(n int) []parcel {
	out := make([]parcel, n)
	for i := range out {
		p := parcel{
			ID: fmt.Sprint("p-", i), Kind: []string{"letter", "parcel", "", "päck\u2028<chen>&\"\\"}[i%4],
			Weight: float64(i) * 0.75, Pieces: i % 7, Fragile: i%3 == 0,
			To:     address{City: []string{"Köln", "Berlin", "東京"}[i%3]},
			Posted: time.Date(2024, 5, 1+i%28, i%24, 0, 0, i, time.UTC),
		}
		if i%5 == 0 {
			note := []string{"", "leave it \n at the door"}[i/5%2]
			p.Note, p.To.Country = &note, "DE"
		}
		for j := range i % 4 {
			p.Lines = append(p.Lines, parcelLine{fmt.Sprint("sku-", j), float64(i + j)})
		}
		if i%6 == 1 {
			p.Labels = map[string]string{"color": []string{"red", "blue"}[i%2], fmt.Sprint("l", i): "x"}
		}
		out[i] = p
	}
	return out
}

// filterCase is an expression and the condition under which it is true. Unless
// typedOnly is set, it means the same whether the type of the payload is
// declared or not.
type filterCase struct {
	expr      string
	want      func(p parcel) bool
	typedOnly bool
	undecided func(p parcel) bool // if no type is declared; nil for never
}

var filterCases = []filterCase{
	{expr: `data.kind == "parcel" && data.weight > 10.0`, want: func(p parcel) bool { return p.Kind == "parcel" && p.Weight > 10 }},
	{expr: `data.kind.endsWith("&\"\\") || data.to.city == "東京"`, want: func(p parcel) bool { return len(p.Kind) > 6 || p.To.City == "東京" }},
	{expr: `data.pieces in [1, 3]`, want: func(p parcel) bool { return p.Pieces == 1 || p.Pieces == 3 }},
	{expr: `data.weight * 2.0 - 1.0 <= 20.0 ? data.pieces == 2 : size(data.id) > 4`, want: func(p parcel) bool {
		if p.Weight*2-1 <= 20 {
			return p.Pieces == 2
		}
		return len(p.ID) > 4
	}},
	{expr: `data.pieces + 1 > 4`, typedOnly: true, want: func(p parcel) bool { return p.Pieces > 3 }},
	{expr: `has(data.note) && data.note.contains("\n")`, want: func(p parcel) bool { return p.Note != nil && *p.Note != "" }},
	{expr: `data.to.country == "DE"`, want: func(p parcel) bool { return p.To.Country == "DE" }, undecided: func(p parcel) bool { return p.To.Country == "" }},
	{expr: `data.fragile`, want: func(p parcel) bool { return p.Fragile }, undecided: func(p parcel) bool { return !p.Fragile }},
	{expr: `data.lines.exists(l, l.sku == "sku-2" && l.quantity > 9.0)`, want: func(p parcel) bool { return len(p.Lines) > 2 && p.Lines[2].Quantity > 9 }, undecided: func(p parcel) bool { return p.Lines == nil }},
	{expr: `has(data.labels) && data.labels["color"] == "blue"`, want: func(p parcel) bool { return p.Labels["color"] == "blue" }},
	{expr: `timestamp(data.posted) >= timestamp("2024-05-10T00:00:00Z")`, want: func(p parcel) bool { return p.Posted.Day() >= 10 }},
	{expr: `data.lines.map(l, l.sku) == ["sku-0", "sku-1"]`, want: func(p parcel) bool { return len(p.Lines) == 2 }, undecided: func(p parcel) bool { return p.Lines == nil }},
	{expr: `topic == "parcels" && key == "Berlin" && id.startsWith("p-1") && headers["lane"] == "b"`, want: func(p parcel) bool {
		return p.To.City == "Berlin" && p.ID[:3] == "p-1" && lane(p) == "b"
	}},
}

func lane(p parcel) string { return []string{"a", "b"}[p.Pieces%2] }

// testFLT4 subscribes with each expression to values, whose text an in-process
// engine may never create, and to texts, which are never decoded into values.
// Both topics have the same name, each on a bus of its own.
func testFLT4(t *testing.T, open Opener) {
	all := parcels(60)
	values := make(map[string]outcome)
	texts := make(map[string]outcome)
	ask(t, open, values, all, func(p parcel) parcel { return p }, func(p parcel) parcel { return p })
	ask(t, open, texts, all, func(p parcel) json.RawMessage {
		return must(json.Marshal(p))(t)
	}, func(text json.RawMessage) (p parcel) {
		if err := json.Unmarshal(text, &p); err != nil {
			t.Error(err)
		}
		return p
	})
	for name, v := range values {
		if x := texts[name]; !slices.Equal(v.ids, x.ids) || v.filtered != x.filtered || v.undecided != x.undecided {
			t.Errorf("%s:\nof values: %v\nof texts:  %v", name, v, x)
		}
	}
}

// outcome is what a subscription received, and its counts.
type outcome struct {
	ids                 []string
	filtered, undecided uint64
}

// ask publishes the parcels as values of T. It records in outcomes what each
// filter lets through, with the type declared and without, and checks it
// against the case.
func ask[T any](t *testing.T, open Opener, outcomes map[string]outcome, all []parcel, as func(parcel) T, back func(T) parcel) {
	t.Helper()
	type asked struct {
		name string
		c    filterCase
		any  bool // no type is declared
		sub  *hark.Subscription
		got  *recorder[string]
	}
	ctx, bus := start(t, open)
	topic := newTopic[T](t, bus, "parcels")
	var subs []asked
	for _, c := range filterCases {
		for _, untyped := range []bool{false, true} {
			a := asked{c: c, any: untyped, got: newRecorder[string](), name: c.expr + ", type declared"}
			opts := []filter.Option{filter.For[parcel]()}
			if untyped {
				a.name, opts = c.expr, nil
			}
			if c.typedOnly && untyped {
				continue
			}
			f := must(filter.Compile(c.expr, opts...))(t)
			a.sub = subscribe(t, topic, func(_ context.Context, m *hark.Message[T]) error {
				a.got.note(back(m.Value).ID)
				return nil
			}, hark.Where(f))
			subs = append(subs, a)
		}
	}
	for _, p := range all {
		if err := topic.Publish(ctx, as(p), hark.ID(p.ID), hark.Key(p.To.City), hark.Header("lane", lane(p))); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range subs {
		if err := a.sub.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		var want []string
		undecided := uint64(0)
		for _, p := range all {
			if a.c.want(p) {
				want = append(want, p.ID)
			}
			if a.any && a.c.undecided != nil && a.c.undecided(p) {
				undecided++
			}
		}
		if len(want) == 0 || len(want) == len(all) {
			t.Fatalf("%s: %d of %d parcels are to match: the case says nothing", a.name, len(want), len(all))
		}
		stats := a.sub.Stats()
		got := outcome{a.got.all(), stats.Filtered, stats.FilterErrors}
		slices.SortFunc(got.ids, byNumber)
		wantEqual(t, a.name, got.ids, want)
		if got.filtered != uint64(len(all)-len(want)) || got.undecided != undecided {
			t.Errorf("%s: got %d filtered, %d of them undecided; want %d and %d", a.name, got.filtered, got.undecided, len(all)-len(want), undecided)
		}
		outcomes[a.name] = got
	}
}

func byNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }
