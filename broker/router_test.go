package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

func router(t *testing.T, text string) *Router {
	t.Helper()
	r, err := NewRouter(load(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// targets formats decisions as route:target, with ! for those without a value.
func targets(ds []Decision) string {
	var all []string
	for _, d := range ds {
		name := d.Route
		if d.Otherwise {
			name += "?"
		}
		for _, to := range d.Targets {
			all = append(all, name+":"+to)
		}
		for range d.Unresolved {
			all = append(all, name+":!")
		}
		if d.SampledOut {
			all = append(all, name+":-")
		}
	}
	return strings.Join(all, " ")
}

func message(topic, data string) *driver.Received {
	return &driver.Received{Topic: topic, Message: driver.Message{Data: []byte(data)}}
}

func TestDecide(t *testing.T) {
	r := router(t, `
routes:
  - {name: eu, from: orders.placed, where: data.region == "eu", to: [eu.orders, "region.{data.region}"]}
  - {name: big, from: orders.placed, where: data.total > 100, to: big}
  - {name: rest, from: orders.placed, otherwise: [rest, "rest.{data.region}"]}
  - {name: all, from: orders.>, to: "archive.{topic}"}
  - {name: again, from: orders.*, where: 'has(data.again)', to: big}
`)
	tests := []struct{ topic, data, want string }{
		{"orders.placed", `{"region":"eu","total":1}`, "eu:eu.orders eu:region.eu all:archive.orders.placed"},
		{"orders.placed", `{"region":"eu","total":101}`, "eu:eu.orders eu:region.eu big:big all:archive.orders.placed"},
		{"orders.placed", `{"region":"us","total":1}`, "rest?:rest rest?:rest.us all:archive.orders.placed"},
		{"orders.placed", `{"total":1}`, "rest?:rest rest?:! all:archive.orders.placed"},
		{"orders.placed", `not JSON`, "rest?:rest rest?:! all:archive.orders.placed"},
		{"orders.placed", `{"total":101,"again":1}`, "big:big all:archive.orders.placed"},
		{"orders.paid.late", `{}`, "all:archive.orders.paid.late"},
		{"orders", `{}`, ""},
		{"other", `{}`, ""},
	}
	for _, tt := range tests {
		if got := targets(r.Decide(&Event{message(tt.topic, tt.data)})); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.topic, tt.data, got, tt.want)
		}
	}
}

// TestOtherwise checks which messages count as taken.
func TestOtherwise(t *testing.T) {
	r := router(t, `
routes:
  - {name: never, from: a, where: data.x == 1, sample: 0.000000001, to: t}
  - {name: template, from: a, where: data.x == 2, to: "t.{data.y}"}
  - {name: rest, from: a, otherwise: rest}
`)
	for _, tt := range []struct{ data, want string }{
		{`{"x":1}`, "never:-"}, // it matches
		{`{"x":2,"y":3}`, "template:t.3"},
		{`{"x":2}`, "template:! rest?:rest"}, // it would go nowhere
		{`{"x":3}`, "rest?:rest"},
	} {
		if got := targets(r.Decide(&Event{message("a", tt.data)})); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.data, got, tt.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	m := &driver.Received{Topic: "orders.placed", Message: driver.Message{
		ID: "7", Key: "ada", HasKey: true,
		Headers: map[string]string{"tenant": "acme", "odd name": "o", "ce-type": "order.placed", "ce-source": "/shop", "subject": "s"},
		Data:    []byte(`{"a":{"b":["x",{"c":"deep"}],"odd.name":true},"n":1.50,"dot":"a.b c*>%$_","empty":"","null":null,"uni":"Größe","bad":"\u0000\n","d":"first","d":"second","_x":"_INBOX","$":"$JS"}`),
	}}
	tests := []struct{ template, want string }{
		{"plain.name", "plain.name"},
		{"x.{data.a.b[0]}.y", "x.x.y"},
		{"x.{data.a.b[1].c}", "x.deep"},
		{`x.{data.a["odd.name"]}`, "x.true"},
		{"x.{data.n}", "x.1%2E50"},
		{"x-{key}-{id}", "x-ada-7"},
		{"{headers.tenant}.{headers[\"odd name\"]}", "acme.o"},
		{"t.{type}.{source}.{subject}", "t.order%2Eplaced./shop.s"},
		{"archive.{topic}", "archive.orders.placed"},
		{"{topic[1]}.{topic[0]}", "placed.orders"},
		{"x.{data.dot}", "x.a%2Eb%20c%2A%3E%25$_"},
		{"x.{data.empty}.y", "x.%.y"},
		{"x.{data.uni}", "x.Größe"},
		{"x.{data.bad}", "x.%00%0A"},
		{"x.{data.d}", "x.first"}, // as filters see it
		{"{data._x}.y", "%5FINBOX.y"},
		{"{data[\"$\"]}.y", "%24JS.y"},
		{"x.{data.null}", "!"},
		{"x.{data.a}", "!"},
		{"x.{data.none}", "!"},
		{"x.{data.a.b.c}", "!"},
		{"x.{data.a.b[9]}", "!"},
		{"x.{data.n.m}", "!"},
		{"x.{headers.none}", "!"},
		{"x.{topic[2]}", "!"},
	}
	for _, tt := range tests {
		p, err := parseTemplate(tt.template)
		if err != nil {
			t.Errorf("%s: %v", tt.template, err)
			continue
		}
		got, err := p.expand(&Event{Message: m})
		if err != nil {
			got = "!"
		}
		if got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.template, got, err, tt.want)
		}
		if err == nil && (names.Check(got) != nil || !names.Match(p.reaches(m.Topic), got)) {
			t.Errorf("%s: %q is no name, or not one that %s reaches", tt.template, got, p.reaches(m.Topic))
		}
	}
}

func TestTemplatesThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"a.{":                "{ without } at byte 2",
		"a.}":                "} without { at byte 2",
		"{}":                 `there is no ""`,
		"{dta.x}":            "did you mean data?",
		"{data}":             "name a field",
		"{data.}":            "a name is missing",
		"{data[x]}":          "want a number from 0, or a name in quotes",
		"{data[0}":           "[ without ]",
		"{key.x}":            "key has no fields",
		"{headers.a.b}":      "want headers.name",
		"{topic.x}":          "want topic, or topic[0]",
		"a..{key}":           "empty token",
		"a b.{key}":          "white space",
		"a.{key}.>":          "not a pattern",
		"_INBOX.{key}":       "reserved for replies",
		"$JS.{key}":          "reserved",
		"a.{key}" + ".b c":   "white space",
		"a.{data.x} {data.y": "{ without }",
	} {
		_, err := parseTemplate(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("a.{data.x}.{topic}", `{"x":"y z"}`, "k.ey")
	f.Add("{data[\"x\"][0]}", `{"x":["_INBOX.>"]}`, "")
	f.Add("{key}-{headers.h}", `{`, "$JS")
	f.Fuzz(func(t *testing.T, text, data, key string) {
		p, err := parseTemplate(text)
		if err != nil {
			return
		}
		m := &driver.Received{Topic: "a.b", Message: driver.Message{Key: key, HasKey: true, Data: []byte(data), Headers: map[string]string{"h": key}}}
		name, err := p.expand(&Event{Message: m})
		if err != nil {
			return
		}
		if names.Check(name) != nil || isReply(name) || !names.Match(p.reaches(m.Topic), name) {
			t.Errorf("%q makes %q of %q and %q", text, name, data, key)
		}
	})
}

// TestTokensAreInjective checks that different values give different tokens.
func TestTokensAreInjective(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{"", "%", "%25", "a.b", "a%2Eb", "a b", "a%20b", " ", "%20", ".", "..", "*", ">", "\xff", "%FF", "\ufffd", "a\x00", "a\u200b", "\u202ea", "a"} {
		token := string(appendToken([]byte("x."), s))
		if other, ok := seen[token]; ok {
			t.Errorf("%q and %q both make %q", s, other, token)
		}
		if seen[token] = s; names.Check(token) != nil || strings.Count(token, ".") != 1 {
			t.Errorf("%q makes %q, which is not one token", s, token)
		}
	}
}

func TestSample(t *testing.T) {
	const n = 20_000
	for _, part := range []float64{0.01, 0.1, 0.5} {
		in := 0
		for i := range n {
			e := &Event{Message: &driver.Received{Message: driver.Message{Key: fmt.Sprint(i), HasKey: true}}}
			if sampled(part, e) {
				in++
			}
			for _, id := range []string{"1", "2"} { // all or none of a key
				again := &Event{Message: &driver.Received{Message: driver.Message{Key: fmt.Sprint(i), HasKey: true, ID: id, Data: []byte(id)}}}
				if sampled(part, again) != sampled(part, e) {
					t.Fatalf("messages of key %d are taken in part", i)
				}
			}
		}
		if want := part * n; float64(in) < want*0.85 || float64(in) > want*1.15 {
			t.Errorf("got %d of %d, want about %v", in, n, want)
		}
	}
	// The sample is the same in every process and release.
	var taken []int
	for i := range 40 {
		if sampled(0.1, &Event{Message: &driver.Received{Message: driver.Message{ID: fmt.Sprint(i)}}}) {
			taken = append(taken, i)
		}
	}
	if want := []int{8, 10, 14, 18, 31, 34}; !slices.Equal(taken, want) {
		t.Errorf("got %v, want %v", taken, want)
	}
	if !sampled(0, &Event{Message: &driver.Received{}}) || !sampled(1, &Event{Message: &driver.Received{}}) {
		t.Error("all is not all")
	}
}

func TestCycles(t *testing.T) {
	tests := []struct {
		routes string // from>to from>to…
		path   string // part of the message; empty if there is no loop
	}{
		{"a>b b>c", ""},
		{"a>b b>a", "a → (route 1) → b, b → (route 2) → a, and so to a again"},
		{"x>a a>b b>c c>a", "a → (route 2) → b, b → (route 3) → c, c → (route 4) → a, and so to a"},
		{"orders.#>archive", ""},
		{"orders.#>orders.archive", "orders.> → (route 1) → orders.archive, and so to orders.> again"},
		{"orders.*>orders.archive.x", ""},
		{"orders.*>region.{data.r} region.eu>orders.x", "region.{data.r}, region.eu → (route 2)"},
		{"orders.*>region.{data.r} region.eu.x>orders.x", ""},
		{"a.b>{data.x}.b", "a.b → (route 1)"},
		{"a.b>{data.x}.c", ""},
		{"a>z.{topic} z.b>a", ""},
		{"b>z.{topic}.q z.b.q>b", "route 2"},
		{"*.x>y.x", "*.x → (route 1) → y.x"},
		{"a>b a>c c>d d>b b>e", ""},
		{"a>b b>a c>d d>c", "c → (route 3) → d, d → (route 4) → c, and so to c again"},
		{"a>b b>a a>c c>a", "a → (route 3) → c, c → (route 4) → a, and so to a again"},
	}
	for _, tt := range tests {
		c := Default()
		for route := range strings.FieldsSeq(tt.routes) {
			from, to, _ := strings.Cut(strings.ReplaceAll(route, "#", "\x00"), ">")
			c.Routes = append(c.Routes, RouteConfig{From: strings.ReplaceAll(from, "\x00", ">"), To: []string{to}})
		}
		_, err := NewRouter(c)
		switch {
		case tt.path == "" && err != nil:
			t.Errorf("%s: got %v, want no circle", tt.routes, err)
		case tt.path != "" && (err == nil || !strings.Contains(err.Error(), tt.path)):
			t.Errorf("%s: got %v, want %s", tt.routes, err, tt.path)
		}
	}
}

// TestManyRoutes checks that the cost of checking and deciding does not grow with
// the square of the number of routes.
func TestManyRoutes(t *testing.T) {
	c := Default()
	for i := range 3_000 {
		c.Routes = append(c.Routes,
			RouteConfig{From: "orders", Where: fmt.Sprintf("data.customer == 'c%d'", i), To: []string{fmt.Sprintf("customer.%d", i)}},
			RouteConfig{From: fmt.Sprintf("device.%d", i), To: []string{"devices"}})
	}
	r, err := NewRouter(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := targets(r.Decide(&Event{message("orders", `{"customer":"c2777"}`)})); got != "5555:customer.2777" {
		t.Errorf("got %s", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := Default()
			for i := range n {
				c.Routes = append(c.Routes, RouteConfig{From: "orders", Where: fmt.Sprintf("data.customer == 'c%d'", i), To: []string{"customers"}})
			}
			r, err := NewRouter(c)
			if err != nil {
				b.Fatal(err)
			}
			m := &Event{Message: message("orders", `{"id": 1, "customer":"c0", "total": 12}`)}
			b.ReportAllocs()
			for b.Loop() {
				if len(r.decide(r.groups, m)) != 1 {
					b.Fatal("no decision")
				}
			}
		})
	}
}

func FuzzOverlap(f *testing.F) {
	f.Add("a.*", "*.b", "a.b")
	f.Add("a.>", "a", "a")
	f.Fuzz(func(t *testing.T, a, b, name string) {
		if names.CheckPattern(a) != nil || names.CheckPattern(b) != nil || names.Check(name) != nil {
			return
		}
		if names.Match(a, name) && names.Match(b, name) && !overlap(a, b) {
			t.Errorf("%s and %s both match %s", a, b, name)
		}
		if overlap(a, b) != overlap(b, a) {
			t.Errorf("%s and %s overlap one way", a, b)
		}
	})
}
