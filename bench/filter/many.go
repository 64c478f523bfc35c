package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"cel.dev/cel-go/cel"
	"github.com/tidwall/gjson"

	"github.com/harkbus/hark/filter"
)

// hundred returns candidates that match one order against a hundred filters
// with three terms, of which a few match.
func hundred() []*candidate {
	const n = 100
	r := rand.New(rand.NewPCG(1, 1))
	kinds := []string{"order.placed", "order.paid", "order.shipped", "order.cancelled"}
	regions := []string{"eu-", "us-", "ap-"}
	type terms struct {
		kind, region string
		total        float64
	}
	var all []terms
	var alone []*filter.Filter
	var programs []cel.Program
	set, err := filter.NewSet[int]()
	check(err)
	for i := range n {
		t := terms{kinds[r.IntN(4)], regions[r.IntN(3)], float64(r.IntN(200))}
		all = append(all, t)
		text := fmt.Sprintf(`data.kind == %q && data.total > %.1f && data.region.startsWith(%q)`, t.kind, t.total, t.region)
		f := filter.MustCompile(text)
		alone = append(alone, f)
		programs = append(programs, celProgram(text))
		check(set.Add(i, f))
	}
	doc := []byte(orderText)
	m := &message{data: doc}
	vars := map[string]any{}
	var dst []int
	cs := []*candidate{
		{name: "hark, filter.Set", run: func() {
			dst = set.Match(m, dst[:0])
			matched += len(dst)
		}},
		{name: "hark, one filter after the other", run: func() {
			for _, f := range alone {
				count(f.Match(m))
			}
		}},
		{name: "one json.Unmarshal + cel-go", run: func() {
			var v any
			check(json.Unmarshal(doc, &v))
			vars["data"] = v
			for _, p := range programs {
				count(evalCEL(p, vars))
			}
		}},
		{name: "gjson by hand", run: func() {
			for _, t := range all {
				count(gjson.GetBytes(doc, "kind").Str == t.kind && gjson.GetBytes(doc, "total").Num > t.total &&
					strings.HasPrefix(gjson.GetBytes(doc, "region").Str, t.region))
			}
		}, note: "does not check the text"},
	}
	want := -1
	for _, c := range cs {
		c.per = 1
		matched = 0
		c.run()
		if want < 0 {
			want = matched
		}
		if matched != want {
			panic(c.name + " disagrees")
		}
	}
	return cs
}

// mix generates the filters of a broker with many subscribers: seven tenths
// compare one or two of five fields, two tenths test for a range or a prefix,
// and one tenth test for something else.
func mix(n int) []string {
	r := rand.New(rand.NewPCG(1, 7))
	fields := []struct {
		path string
		n    int
	}{{"data.customer.id", 2000}, {"data.sku", 1000}, {"data.store", 500}, {"data.city", 500}, {"data.kind", 100}}
	eq := func(i int) string { return fmt.Sprintf(`%s == "%d"`, fields[i].path, r.IntN(fields[i].n)) }
	out := make([]string, n)
	for i := range out {
		switch x := r.IntN(100); {
		case x < 35:
			out[i] = eq(r.IntN(4))
		case x < 70:
			a := r.IntN(5)
			out[i] = eq(a) + " && " + eq((a+1+r.IntN(4))%5)
		case x < 80:
			lo := r.Float64() * 10000
			out[i] = fmt.Sprintf(`data.total >= %.2f && data.total < %.2f`, lo, lo+r.Float64()*20)
		case x < 90:
			out[i] = fmt.Sprintf(`data.path.startsWith("/%d/%d")`, r.IntN(50), r.IntN(100))
		default:
			out[i] = general(r, eq)
		}
	}
	return out
}

// general generates an expression that does more than compare fields. One in
// ten of them is beyond the help of an index.
func general(r *rand.Rand, eq func(int) string) string {
	switch r.IntN(10) {
	case 0:
		return eq(r.IntN(5)) + fmt.Sprintf(` && data.tags.exists(t, t == "t%d")`, r.IntN(20))
	case 1, 2:
		return "(" + eq(r.IntN(4)) + " || " + eq(r.IntN(4)) + ") && data.total > 10.0"
	case 3, 4, 5:
		return fmt.Sprintf(`data.qty * 7.0 == %d.0 && data.note.contains("n%d")`, r.IntN(700), r.IntN(1000))
	case 6, 7:
		return fmt.Sprintf(`size(data.tags) > %d && data.city in ["%d", "%d"]`, r.IntN(3), r.IntN(500), r.IntN(500))
	case 8:
		return fmt.Sprintf(`data.total > %d.0 ? data.store == "%d" : data.sku == "%d"`, r.IntN(10000), r.IntN(500), r.IntN(1000))
	}
	return fmt.Sprintf(`data.qty * 7.0 == %d.0`, r.IntN(700))
}

func mixEvents(n int) [][]byte {
	r := rand.New(rand.NewPCG(2, 2))
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, `{"id":"e-%d","kind":"%d","customer":{"id":"%d","name":"Ada Byron","address":{"street":"Main Street 5","zip":"12345"}},"sku":"%d","store":"%d","city":"%d","total":%.2f,"path":"/%d/%d/x","tags":["t%d","t%d"],"qty":%d,"note":"see n%d, thanks","padding":%q}`,
			r.IntN(1e6), r.IntN(100), r.IntN(2000), r.IntN(1000), r.IntN(500), r.IntN(500), r.Float64()*10000, r.IntN(50), r.IntN(100),
			r.IntN(20), r.IntN(20), r.IntN(100), r.IntN(1000), strings.Repeat("lorem ipsum ", 12))
	}
	return out
}

// curve returns candidates for n filters of the mix, and the average number of
// them that match an event.
func curve(n int) (cs []*candidate, matches float64) {
	events := mixEvents(200)
	boxed := make([]any, len(events))
	for i, e := range events {
		boxed[i] = e
	}
	texts := mix(n)
	keys, filters := make([]int, n), make([]*filter.Filter, n)
	for i, text := range texts {
		keys[i], filters[i] = i, filter.MustCompile(text)
	}
	set, err := filter.NewSet[int]()
	check(err)
	check(set.AddAll(keys, filters))
	m := &message{}
	var dst []int
	cs = append(cs, &candidate{name: "hark, filter.Set", per: len(events), run: func() {
		for i := range boxed {
			m.data = boxed[i]
			dst = set.Match(m, dst[:0])
			matched += len(dst)
		}
	}})
	matched = 0
	cs[0].run()
	matches = float64(matched) / float64(len(events))
	if n > 1000 {
		return cs, matches
	}
	few := boxed[:4]
	programs := make([]cel.Program, n)
	for i, text := range texts {
		programs[i] = celProgram(text)
	}
	vars := map[string]any{}
	return append(cs,
		&candidate{name: "hark, one filter after the other", per: len(few), run: func() {
			for i := range few {
				m.data = few[i]
				for _, f := range filters {
					count(f.Match(m))
				}
			}
		}},
		&candidate{name: "one json.Unmarshal + cel-go", per: len(few), run: func() {
			for i := range few {
				var v any
				check(json.Unmarshal(events[i], &v))
				vars["data"] = v
				for _, p := range programs {
					count(evalCEL(p, vars))
				}
			}
		}}), matches
}
