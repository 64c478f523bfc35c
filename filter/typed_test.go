package filter

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

type embedded struct {
	Region string `json:"region"`
	Depth  int8   `json:"depth,omitempty"`
}

type line struct {
	SKU   string   `json:"sku"`
	Count uint16   `json:"count"`
	Price float64  `json:"price,omitempty"`
	Tags  []string `json:"tags"`
	Next  *line    `json:"next,omitempty"`
}

// order has a field of every kind that a filter supports.
type order struct {
	embedded
	ID       string        `json:"id"`
	Total    int64         `json:"total"`
	Paid     bool          `json:"paid,omitempty"`
	Rate     float32       `json:"rate"`
	Units    uint8         `json:"units"`
	At       time.Time     `json:"at"`
	Took     time.Duration `json:"took"`
	Note     *string       `json:"note"`
	Limit    *int          `json:"limit,omitempty"`
	Customer struct {
		Name string `json:"name"`
		VIP  bool   `json:"vip"`
		Home *struct {
			City string `json:"city"`
		} `json:"home"`
	} `json:"customer"`
	Lines  []line            `json:"lines"`
	Meta   map[string]string `json:"meta"`
	Counts map[string]int    `json:"counts,omitempty"`
	Extra  any               `json:"extra"`
	Raw    json.RawMessage   `json:"raw,omitempty"`
	Sum    []byte            `json:"sum"`
	Plain  int
	hidden int     //lint:ignore U1000 it is here to be left out
	Skip   string  `json:"-"`
	Odd    weekday `json:"odd"`
}

// weekday has a text form of its own, which a filter cannot know.
type weekday int

func (w weekday) MarshalText() ([]byte, error) { return []byte(time.Weekday(w).String()), nil }

func (w *weekday) UnmarshalText(b []byte) error {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if d.String() == string(b) {
			*w = weekday(d)
			return nil
		}
	}
	return errors.New("no such day")
}

func randomOrder(r *rand.Rand) *order {
	words := []string{"", "a", "eu", "Berlin", "x-1", "äöü", "a\"b\\c", "\U0001F600", "line\nbreak"}
	word := func() string { return words[r.IntN(len(words))] }
	one := func(n int) bool { return r.IntN(n) == 0 }
	o := &order{ID: word(), Total: int64(r.IntN(7) - 3), Paid: one(2), Rate: float32(r.IntN(4)) / 2, Units: uint8(r.IntN(3)), Plain: r.IntN(3)}
	o.Region, o.Depth = word(), int8(r.IntN(3))
	if one(5) {
		o.Total = []int64{1<<63 - 1, -1 << 63, 1<<53 + 1}[r.IntN(3)]
	}
	if !one(3) {
		o.At = time.Unix(int64(r.IntN(2e9)), int64(r.IntN(2))*5e8).In(time.FixedZone("", 3600*r.IntN(3)))
		o.Took = time.Duration(r.IntN(3)) * 30 * time.Minute
	}
	if one(2) {
		s := word()
		o.Note = &s
	}
	if one(2) {
		i := r.IntN(2)
		o.Limit = &i
	}
	o.Customer.Name, o.Customer.VIP = word(), one(2)
	if one(2) {
		o.Customer.Home = &struct {
			City string `json:"city"`
		}{word()}
	}
	for range r.IntN(4) {
		l := line{SKU: word(), Count: uint16(r.IntN(3)), Price: float64(r.IntN(3)) / 4}
		if one(2) {
			l.Tags = []string{word(), word()}
		}
		if one(3) {
			l.Next = &line{SKU: word()}
		}
		o.Lines = append(o.Lines, l)
	}
	if one(2) {
		o.Meta = map[string]string{"a": word(), word(): "b"}
		o.Counts = map[string]int{"a": r.IntN(3)}
	}
	o.Extra = []any{nil, "eu", 1.5, 7, true, []any{1.0, "a"}, map[string]any{"id": "x", "n": 2.0}, line{SKU: "eu"}}[r.IntN(8)]
	if one(2) {
		o.Raw = json.RawMessage(`{"id": 5, "name": ["a"]}`)
	}
	if one(2) {
		o.Sum = []byte(word())
	}
	return o
}

// typedPlaces are the parts from which expressions about an order are built.
// The values are examples, from which the generator takes its literals.
var typedPlaces = []place{
	{"data.id", "eu"},
	{"data.region", "eu"},
	{"data.depth", 1.0},
	{"data.total", 2.0},
	{"data.paid", true},
	{"data.units", 1.0},
	{"data.customer.name", "Berlin"},
	{"data.customer.vip", true},
	{"data.customer.home.city", "eu"},
	{"data.note", "a"},
	{"data.limit", 1.0},
	{"data.lines", []any{}},
	{"data.lines[0]", nil},
	{"data.lines[0].sku", "a"},
	{"data.lines[1].tags", []any{}},
	{"data.lines[0].tags[1]", "a"},
	{"data.lines[0].next.sku", "a"},
	{"data.lines[0].next.next.tags", []any{}},
	{"data.lines[0].count", 1.0},
	{"data.meta", nil},
	{"data.meta.a", "a"},
	{`data.meta["nope"]`, "b"},
	{"data.counts.a", 1.0},
	{"data.extra", "eu"},
	{"data.extra.id", "x"},
	{"data.extra[0]", 1.0},
	{"data.raw", nil},
	{"data.raw.id", 5.0},
	{"data.sum", nil},
	{"data.Plain", 1.0},
	{"data.customer", nil},
	{"data.rate", 0.5},
}

var typedTests = []string{
	"data.total == 1", "data.total > 0 && data.paid", "data.units == 1u", "data.rate >= 0.5", "data.total % 2 == 1", "data.total + 1 > 2",
	"has(data.note)", "has(data.limit)", "has(data.paid)", "has(data.customer)", "has(data.customer.home)", "has(data.customer.home.city)",
	"has(data.lines)", "has(data.meta)", "has(data.meta.a)", "has(data.extra)", "has(data.raw)", "has(data.at)", "has(data.sum)", "has(data.extra.id)",
	`data.note == "a"`, "data.limit == 0", `data.at < timestamp("2001-01-01T00:00:00Z")`, "data.at.getFullYear() > 1990", `data.took > duration("20m")`,
	"data.took.getMinutes() == 30", `data.lines.exists(l, l.sku == "a" && l.count > 0u)`, `data.lines.all(l, has(l.tags))`, `data.lines.exists(l, has(l.next))`,
	`data.lines.exists(l, l.next.sku == "")`, `data.lines.exists_one(l, "a" in l.tags)`, `data.lines.exists(l, l.tags.exists(t, t.startsWith("x")))`,
	"size(data.lines) > 1", `"a" in data.meta`, `data.meta.exists(k, data.meta[k] == "eu")`, `data.counts["a"] == 1`, `data.extra == "eu"`, "data.extra == 7", "data.extra.n == 2",
	`data.raw.id == 5`, `data.sum == b"eu"`, `size(data.sum) > 1`, `data.customer == data.customer`, `data.lines == data.lines`, `data.lines[0] == data.lines[1]`,
	`data.lines.map(l, l.sku) == ["a", "b"]`, `data.lines.filter(l, l.count > 1u).size() == 1`, `data.region.matches("^e")`, "data.depth == 2", "data.Plain < 2",
	`string(data.at) != ""`, `data.lines[0].next.next.next.count == 0u`, `data.meta == {"a": "a"}`, `data.customer.home.city.size() == 2`, `data.paid ? data.total > 0 : data.units > 0u`,
}

// compareTyped compares three ways to the same answer (CEL-1): closures on the
// Go value, closures on its JSON text, and cel-go on the Go value.
func compareTyped(t testing.TB, expr string, o *order) {
	t.Helper()
	f, err := Compile(expr, append([]Option{For[order]()}, fuzzLimits...)...)
	if err != nil {
		return
	}
	m := newMessage(o)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	want, wantErr := reference(t, f, m, f.opts.sh.native(reflect.ValueOf(o).Elem()))
	got, gotErr := ours(f, m)
	if got != want {
		t.Fatalf("%s\non %s in Go\ngot  %v (%v)\nwant %v (%v)\n%s", expr, text, got, gotErr, want, wantErr, f.Explain())
	}
	m.data = text
	if got, gotErr := ours(f, m); got != want {
		t.Fatalf("%s\non %s as text\ngot  %v (%v)\nwant %v (%v)\n%s", expr, text, got, gotErr, want, wantErr, f.Explain())
	}
	exact := mustCompile(t, expr, append([]Option{For[order](), Exact()}, fuzzLimits...)...)
	if got, gotErr := ours(exact, m); got != want {
		t.Fatalf("exact: %s\non %s as text\ngot  %v (%v)\nwant %v (%v)", expr, text, got, gotErr, want, wantErr)
	}
}

func TestTypedSameAnswers(t *testing.T) {
	for i := range 60 {
		o := randomOrder(rand.New(rand.NewPCG(uint64(i), 1)))
		for _, expr := range typedTests {
			if i == 0 {
				mustCompile(t, expr, For[order]())
			}
			compareTyped(t, expr, o)
		}
		for j := range 20 {
			g := &generator{r: rand.New(rand.NewPCG(uint64(i), uint64(j))), places: typedPlaces}
			compareTyped(t, g.bool(3), o)
		}
	}
}

func FuzzTypedSameAnswers(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i)
	}
	f.Fuzz(func(t *testing.T, seed, value uint64) {
		o := randomOrder(rand.New(rand.NewPCG(value, 1)))
		g := &generator{r: rand.New(rand.NewPCG(seed, value)), places: typedPlaces}
		for range 8 {
			compareTyped(t, g.bool(3), o)
		}
	})
}

// TestTypedText checks text that decodes into an order but that encoding an
// order never produces.
func TestTypedText(t *testing.T) {
	tests := []struct {
		expr, text string
		want       outcome
	}{
		{`data.id == "x"`, `{"ID":"x"}`, outTrue},
		{`data.id == "x"`, `{"Id":"x","id":"y"}`, outTrue}, // the first counts
		{`data.customer.name == "x"`, `{"CUSTOMER":{"nAmE":"x"}}`, outTrue},
		{`data.id == ""`, `{}`, outTrue},
		{`data.customer.home.city == ""`, `{"customer":null}`, outTrue},
		{`data.customer.name == ""`, `{"customer":5}`, outError},
		{`data.customer.name == ""`, `{"customer":[]}`, outError},
		{`data.total == 5`, `{"total":"5"}`, outError},
		{`data.total == 5`, `{"total":5.0}`, outError},
		{`data.total == 5`, `{"total":5e0}`, outError},
		{`data.units == 1u`, `{"units":256}`, outError},
		{`data.units == 1u`, `{"units":-1}`, outError},
		{`data.depth == 1`, `{"depth":128}`, outError},
		{`data.total == 9007199254740993`, `{"total":9007199254740993}`, outTrue},
		{`data.at.getHours() == 1`, `{"at":"2024-01-01T02:00:00+01:00"}`, outTrue},
		{`has(data.at)`, `{"at":"yesterday"}`, outError},
		{`data.sum == b"hi"`, `{"sum":"aGk="}`, outTrue},
		{`data.sum == b"hi"`, `{"sum":"aGk"}`, outError},
		{`has(data.note)`, `{"note":null}`, outFalse},
		{`has(data.note)`, `{"note":""}`, outTrue},
		{`has(data.lines)`, `{"lines":[ ]}`, outFalse},
		{`data.id == "x"`, `5`, outError},
		{`data.id == ""`, `null`, outTrue},
		{`data.lines.exists(l, l.sku == "x")`, `{"lines":[{"SKU":"x"}]}`, outTrue},
		{`data.lines.exists(l, l.sku == "x")`, `{"lines":[{"sku":5},{"sku":"x"}]}`, outTrue}, // || absorbs
		{`data.lines.exists(l, l.sku == "x")`, `{"lines":[5]}`, outError},
		{`data.id == "x"`, `{"id":"x"`, outTrue}, // nothing after the field is read
	}
	for _, tt := range tests {
		f := mustCompile(t, tt.expr, For[order]())
		if got, err := ours(f, newMessage([]byte(tt.text))); got != tt.want {
			t.Errorf("%s on %s: got %v (%v), want %v", tt.expr, tt.text, got, err, tt.want)
		}
	}
}

func TestForRefusesTypes(t *testing.T) {
	tests := []struct {
		opt  Option
		want string
	}{
		{For[int](), "only a struct"},
		{For[weekday](), "text form of its own"},
		{For[map[string]int](), "only a struct"},
		{ForType(nil), "nil"},
	}
	for _, tt := range tests {
		if _, err := Compile("true", tt.opt); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got error %v, want one with %q", err, tt.want)
		}
	}
	_, err := Compile(`data.odd == "Monday"`, For[order]())
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, "text form of its own") {
		t.Errorf("got error %v, want one about the text form", err)
	}
	if _, err := Compile(`data.hidden == 1`, For[*order]()); !errors.As(err, &e) {
		t.Errorf("got error %v, want an *Error: unexported fields are not there", err)
	}
}

func TestOtherPayload(t *testing.T) {
	typed := mustCompile(t, `data.id == "x"`, For[order]())
	dyn := mustCompile(t, `data.id == "x" && data.n == 5`)
	type other struct {
		ID string `json:"id"`
		N  int    `json:"n"`
	}
	raw := json.RawMessage(`{"id":"x","n":5}`)
	for _, tt := range []struct {
		f    *Filter
		data any
		want outcome
	}{
		{typed, nil, outError},
		{typed, (*order)(nil), outError},
		{typed, &other{ID: "x"}, outError},
		{typed, order{ID: "x"}, outTrue},
		{typed, &order{ID: "x"}, outTrue},
		{dyn, &other{"x", 5}, outTrue},
		{dyn, other{"x", 4}, outFalse},
		{dyn, map[string]any{"id": "x", "n": 5}, outTrue},
		{dyn, &raw, outTrue},
		{dyn, raw, outTrue},
		{dyn, nil, outError},
		{dyn, make(chan int), outError},
	} {
		if got, err := ours(tt.f, newMessage(tt.data)); got != tt.want {
			t.Errorf("%s on %T: got %v (%v), want %v", tt.f, tt.data, got, err, tt.want)
		} else if got == outError && !errors.Is(err, ErrNoData) {
			t.Errorf("%s on %T: got error %v, want ErrNoData", tt.f, tt.data, err)
		}
	}
}
