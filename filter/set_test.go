package filter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark/internal/race"
)

// setFilters generates filters over the fields of setEvent, in the proportions
// of a broker with many subscribers: seven tenths compare one or two of five
// fields, two tenths test for a range or a prefix, and one tenth test for
// something else.
func setFilters(n int, seed uint64) []string {
	r := rand.New(rand.NewPCG(seed, 7))
	fields := []struct {
		path string
		n    int
	}{{"data.customer.id", 2000}, {"data.sku", 1000}, {"data.store", 500}, {"data.city", 500}, {"type", 100}}
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
			switch r.IntN(10) {
			case 0:
				out[i] = eq(r.IntN(5)) + fmt.Sprintf(` && data.tags.exists(t, t == "t%d")`, r.IntN(20))
			case 1:
				out[i] = "(" + eq(r.IntN(4)) + " || " + eq(r.IntN(4)) + ") && data.total > 10.0"
			case 2, 6, 7:
				out[i] = fmt.Sprintf(`data.qty * 7.0 == %d.0 && data.note.contains("n%d")`, r.IntN(700), r.IntN(1000))
			case 3, 8, 9:
				out[i] = fmt.Sprintf(`size(data.tags) > %d && data.city in ["%d", "%d"]`, r.IntN(3), r.IntN(500), r.IntN(500))
			case 4:
				// No index helps with this one.
				out[i] = fmt.Sprintf(`data.qty * 7.0 == %d.0`, r.IntN(700))
			default:
				out[i] = fmt.Sprintf(`data.total > %d.0 ? data.store == "%d" : data.sku == "%d"`, r.IntN(10000), r.IntN(1000), r.IntN(2000))
			}
		}
	}
	return out
}

func setEvent(r *rand.Rand) (*message, string) {
	doc := fmt.Sprintf(`{"id":"e-%d","customer":{"id":"%d","name":"Ada Byron","address":{"street":"Main Street 5","zip":"12345"}},"sku":"%d","store":"%d","city":"%d","total":%.2f,"path":"/%d/%d/x","tags":["t%d","t%d"],"qty":%d,"note":"see n%d, thanks","padding":%q}`,
		r.IntN(1e6), r.IntN(2000), r.IntN(1000), r.IntN(500), r.IntN(500), r.Float64()*10000, r.IntN(50), r.IntN(100),
		r.IntN(20), r.IntN(20), r.IntN(100), r.IntN(1000), strings.Repeat("lorem ipsum ", 16))
	m := newMessage([]byte(doc))
	m.typ = fmt.Sprint(r.IntN(100))
	return m, doc
}

func newTestSet(t testing.TB, exprs []string) (*Set[int], []*Filter) {
	t.Helper()
	s, err := NewSet[int]()
	if err != nil {
		t.Fatal(err)
	}
	keys, filters := make([]int, len(exprs)), make([]*Filter, len(exprs))
	for i, expr := range exprs {
		keys[i], filters[i] = i, mustCompile(t, expr)
	}
	if err := s.AddAll(keys, filters); err != nil {
		t.Fatal(err)
	}
	return s, filters
}

// sameAsAlone checks CEL-5: the set reports exactly the filters that match on
// their own.
func sameAsAlone(t testing.TB, s interface {
	Match(Envelope, []int) []int
}, filters map[int]*Filter, m *message,
) int {
	t.Helper()
	got := s.Match(m, nil)
	slices.Sort(got)
	var want []int
	for key, f := range filters {
		if f.Match(m) {
			want = append(want, key)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		var odd []string
		for key, f := range filters {
			if slices.Contains(got, key) != slices.Contains(want, key) {
				odd = append(odd, fmt.Sprintf("%v for %s", slices.Contains(got, key), f))
			}
		}
		t.Fatalf("the set says %s\non %s", strings.Join(odd, "\n"), m.data)
	}
	return len(got)
}

func TestSetSameAsAlone(t *testing.T) {
	exprs := setFilters(1500, 1)
	s, filters := newTestSet(t, exprs)
	alone := make(map[int]*Filter)
	for i, f := range filters {
		alone[i] = f
	}
	r := rand.New(rand.NewPCG(1, 2))
	total := 0
	for range 60 {
		m, _ := setEvent(r)
		total += sameAsAlone(t, s, alone, m)
	}
	if total < 40 {
		t.Errorf("only %d matches in 60 events: the test sees too little", total)
	}
}

// TestSetOverWebhooks evaluates expressions of every form over real documents,
// one of them truncated, while adding and removing filters one by one.
func TestSetOverWebhooks(t *testing.T) {
	s, err := NewSet[int](fuzzLimits...)
	if err != nil {
		t.Fatal(err)
	}
	docs := webhooks()
	alone := make(map[int]*Filter)
	r := rand.New(rand.NewPCG(3, 4))
	rounds := 200
	if testing.Short() || race.Enabled {
		rounds = 80
	}
	for i := range rounds {
		doc := docs[r.IntN(len(docs))]
		if i%5 == 0 {
			doc = []byte(oddDocuments[r.IntN(len(oddDocuments))])
		}
		g := newGenerator(uint64(i), decodeAny(doc))
		for j := range 4 {
			expr := g.bool(j)
			if j == 3 {
				expr = g.compareField() + " && " + g.bool(2)
			}
			f, err := Compile(expr, fuzzLimits...)
			if err != nil {
				continue
			}
			if err := s.Add(i*4+j, f); err != nil {
				t.Fatal(err)
			}
			alone[i*4+j] = f
		}
		if r.IntN(3) == 0 {
			for key := range alone {
				if len(alone) < 60 {
					break
				}
				delete(alone, key)
				if !s.Remove(key) {
					t.Fatalf("filter %d was not there", key)
				}
			}
		}
		if s.Len() != len(alone) {
			t.Fatalf("the set has %d filters, want %d", s.Len(), len(alone))
		}
		sameAsAlone(t, s, alone, newMessage(doc))
		if n := len(doc); n > 0 {
			sameAsAlone(t, s, alone, newMessage(doc[:r.IntN(n)]))
		}
	}
}

func TestSetTyped(t *testing.T) {
	s, err := NewSet[int](For[order]())
	if err != nil {
		t.Fatal(err)
	}
	alone := make(map[int]*Filter)
	for i, expr := range typedTests {
		alone[i] = mustCompile(t, expr, For[order]())
		if err := s.Add(i, alone[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(50) {
		sameAsAlone(t, s, alone, newMessage(randomOrder(rand.New(rand.NewPCG(i, 1)))))
	}
}

func TestSetRefuses(t *testing.T) {
	s, err := NewSet[string]()
	if err != nil {
		t.Fatal(err)
	}
	f := mustCompile(t, "true")
	if err := s.Add("a", f); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    *Filter
	}{
		{"a", f},
		{"b", mustCompile(t, "true", Exact())},
		{"b", mustCompile(t, "true", For[order]())},
		{"b", mustCompile(t, "true", MaxSteps(5))},
		{"b", nil},
	} {
		if err := s.Add(tt.name, tt.f); err == nil {
			t.Errorf("Add(%q, %v) succeeded, want an error", tt.name, tt.f)
		}
	}
	if err := s.AddAll([]string{"x", "y"}, []*Filter{f}); err == nil {
		t.Error("AddAll with fewer filters than keys succeeded")
	}
	if err := s.AddAll([]string{"x", "x"}, []*Filter{f, f}); err == nil || s.Len() != 1 {
		t.Errorf("AddAll with a key twice: error %v, %d filters; want an error and 1", err, s.Len())
	}
	if s.Remove("x") {
		t.Error("Remove of an unknown key says there was one")
	}
}

// TestSetWhileChanging matches messages while filters are added and removed.
// The filters that stay must be reported every time.
func TestSetWhileChanging(t *testing.T) {
	s, err := NewSet[int]()
	if err != nil {
		t.Fatal(err)
	}
	always := mustCompile(t, `data.n == 1`)
	for i := range 10 {
		if err := s.Add(-1-i, always); err != nil {
			t.Fatal(err)
		}
	}
	m := newMessage([]byte(`{"n":1,"a":"x"}`))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var dst []int
			for {
				select {
				case <-stop:
					return
				default:
				}
				dst = s.Match(m, dst[:0])
				n := 0
				for _, key := range dst {
					if key < 0 {
						n++
					}
				}
				if n != 10 {
					t.Errorf("matched %d of the 10 filters that stay", n)
					return
				}
			}
		})
	}
	for i := range 300 {
		f := mustCompile(t, fmt.Sprintf(`data.a == "%s" || data.f%d == 1`, []string{"x", "y"}[i%2], i%40))
		if err := s.Add(i, f); err != nil {
			t.Error(err)
		}
		if got := s.Match(m, nil); slices.Contains(got, i) != (i%2 == 0) {
			t.Errorf("after Add(%d): matched %v", i, got)
		}
		if i >= 5 {
			s.Remove(i - 5)
			if got := s.Match(m, nil); slices.Contains(got, i-5) {
				t.Errorf("after Remove(%d): matched %v", i-5, got)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, _ := newTestSet(b, setFilters(n, 1))
			r := rand.New(rand.NewPCG(1, 2))
			events := make([]*message, 200)
			for i := range events {
				events[i], _ = setEvent(r)
			}
			var dst []int
			matches, i := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				dst = s.Match(events[i%len(events)], dst[:0])
				matches += len(dst)
				i++
			}
			b.ReportMetric(float64(matches)/float64(i), "matches/op")
		})
	}
}
