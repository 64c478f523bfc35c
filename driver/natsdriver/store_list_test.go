package natsdriver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/harkbus/hark/driver"
)

// TestStoreListIsReadOnce pages through the topics of a store. Further pages come
// from what the first has read, starting over reads a new list, and nothing is kept
// of lists read to their end.
func TestStoreListIsReadOnce(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	openStore(t, c, StoreConfig{Pattern: "s.>"})
	ctx := testContext(t)
	for _, topic := range []string{"s.a", "s.c", "s.d.dead", "s.e"} {
		put(t, asItIs(t, c, topic), bare("x")...)
	}
	page := func(q TopicQuery, want ...string) (next string) {
		t.Helper()
		got, next, err := c.TopicNames(ctx, q)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: got %q, %v, want %q", q, got, err, want)
		}
		return next
	}
	next := page(TopicQuery{Limit: 1}, "s.a")
	put(t, asItIs(t, c, "s.b"), bare("x")...)
	if next = page(TopicQuery{Limit: 2, After: next}, "s.c", "s.d.dead"); next == "" {
		t.Error("there is no further page")
	}
	if n := len(c.lists.all); n != 1 {
		t.Errorf("%d lists are kept, want the one that is being read", n)
	}
	page(TopicQuery{Limit: 9, After: next}, "s.e")
	if n := len(c.lists.all); n != 0 {
		t.Errorf("%d lists are kept of those that have been read", n)
	}
	page(TopicQuery{Limit: 9, After: "s.a"}, "s.b", "s.c", "s.d.dead", "s.e") // belongs to no list
	page(TopicQuery{Limit: 9}, "s.a", "s.b", "s.c", "s.d.dead", "s.e")
	for i := range 2 * listsKept { // abandoned lists
		page(TopicQuery{Limit: 1, Pattern: fmt.Sprintf("s.%c", 'a'+i%2)}, fmt.Sprintf("s.%c", 'a'+i%2))
		c.lists.keep(storeList{store: "other", pattern: fmt.Sprint(i), topics: []string{"x"}})
	}
	if n := len(c.lists.all); n > listsKept {
		t.Errorf("%d lists are kept, want %d", n, listsKept)
	}
}

// BenchmarkStoreNames reads a page of 100 of the 100,000 topics of a store: the
// first page, for which the server returns all of them, and a later one.
func BenchmarkStoreNames(b *testing.B) {
	const topics = 100_000
	c := benchConn(b, false)
	ctx := b.Context()
	if _, err := c.OpenStore(ctx, StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{Durability: driver.DurableMemory}}); err != nil {
		b.Fatal(err)
	}
	for i := range topics {
		if err := c.nc.Publish(fmt.Sprintf("s.%06d", i), []byte("x")); err != nil {
			b.Fatal(err)
		}
	}
	for {
		info, err := c.StoreInfo(ctx, "s.>")
		if err != nil {
			b.Fatal(err)
		}
		if info.Messages == topics {
			break
		}
	}
	for name, after := range map[string]string{"first": "", "further": "s.050000"} {
		b.Run(name, func(b *testing.B) {
			if _, _, err := c.TopicNames(ctx, TopicQuery{Limit: 100}); err != nil { // starts the list
				b.Fatal(err)
			}
			for b.Loop() {
				if names, _, err := c.TopicNames(ctx, TopicQuery{Limit: 100, After: after}); err != nil || len(names) != 100 {
					b.Fatal(len(names), err)
				}
			}
		})
	}
}
