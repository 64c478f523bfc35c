package filter

import (
	"math/rand/v2"
	"testing"

	"github.com/harkbus/hark/internal/race"
)

// TestNoAllocations checks that matching does not allocate.
func TestNoAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("SKIP: the race detector makes sync.Pool drop what it is given, so allocations cannot be counted")
	}
	text := newMessage([]byte(event))
	value := newMessage(&benchOrder{"order.placed", 54.05, "eu-central"})
	for _, tt := range []struct {
		f *Filter
		m *message
	}{
		{mustCompile(t, threeTerms), text},
		{mustCompile(t, threeTerms, Exact()), text},
		{mustCompile(t, threeTerms, For[benchOrder]()), text},
		{mustCompile(t, threeTerms, For[benchOrder]()), value},
		{mustCompile(t, `data.nope.x == 1 || data.kind > 5`), text}, // failing does not allocate either
		{mustCompile(t, `data.note.contains("\"thanks\"") && data.items.exists(i, i.qty > 5 && i.sku.startsWith("C"))`), text},
		{mustCompile(t, `timestamp(data.created_at).getFullYear() == 2024 && data.customer.name.lowerAscii() == "ada byron"`), text},
		{mustCompile(t, `"web" in data.tags && size(data.customer) == 4 && data.items[1].price * 2.0 < 12.0`), text},
		{mustCompile(t, `type == "push" && headers["region"] == "eu" && data.region in ["eu-central", "eu-west"]`), text},
	} {
		tt.f.Match(tt.m)
		if n := testing.AllocsPerRun(200, func() { tt.f.Match(tt.m) }); n > 0 {
			t.Errorf("%s: %v allocations", tt.f, n)
		}
	}
	s, _ := newTestSet(t, setFilters(2000, 1))
	r := rand.New(rand.NewPCG(1, 2))
	events := make([]*message, 50)
	for i := range events {
		events[i], _ = setEvent(r)
	}
	dst := make([]int, 0, 1000)
	run := func() {
		for _, m := range events {
			dst = s.Match(m, dst[:0])
		}
	}
	run()
	if n := testing.AllocsPerRun(50, run); n > 0 {
		t.Errorf("a set: %v allocations in %d events", n, len(events))
	}
}
