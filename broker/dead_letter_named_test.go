package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// TestDeadLettersOfAnyName has subscriptions that name topics for dead letters: in
// stores, one that existed for another purpose, and one that the same program has open.
// They must be listed, and their dead letters shown, replayed and deleted, also after a
// restart of the broker.
func TestDeadLettersOfAnyName(t *testing.T) {
	dir := t.TempDir()
	text := `
users:
  - {name: op, token: "` + HashToken("secret-op") + `", publish: [">"], subscribe: [">"], admin: [">"]}
  - {name: shop, token: "` + HashToken("secret-shop") + `", publish: [shop.>, other, mine], subscribe: [shop.>, other, mine]}
topics: [{name: 'shop.>', durability: relaxed}, {name: other, durability: relaxed}, {name: mine, durability: relaxed}, {name: quiet, durability: relaxed}]
`
	named := []string{"mine", "other", "shop.a.failed", "shop.b.failed"}
	b := start(t, configIn(t, dir, text))
	bus, err := hark.Open(testContext(t), "hark://shop:secret-shop@"+b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hark.NewTopic[job](bus, "mine", hark.Stored(hark.Retention{})); err != nil { // it is open already
		t.Fatal(err)
	}
	fail := func(_ context.Context, m *hark.Message[job]) error {
		if m.Value.Fail == "" {
			return nil
		}
		return errors.New(m.Value.Fail)
	}
	for i, dead := range named {
		from := fmt.Sprintf("shop.%d", i)
		topic, err := hark.NewTopic[job](bus, from, hark.Stored(hark.Retention{}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := topic.Subscribe(fail, hark.Group("g"), hark.MaxAttempts(1), hark.DeadLetter(dead)); err != nil {
			t.Fatal(err)
		}
		if err := topic.Publish(testContext(t), job{N: i, Fail: "no stock"}); err != nil {
			t.Fatal(err)
		}
		awaitDead(t, b, dead, 1)
	}
	// A pattern, whose dead letters are not decoded.
	if _, err := hark.SubscribePattern(bus, "shop.p.*", fail, hark.Group("p"), hark.Durable(), hark.MaxAttempts(1), hark.DeadLetter("shop.c.failed")); err != nil {
		t.Fatal(err)
	}
	publish(t, b.conn, "shop.p.x", &driver.Message{Data: []byte("no JSON"), ContentType: "application/json"})
	awaitDead(t, b, "shop.c.failed", 1)
	named = append(named, "shop.c.failed")
	publishTo(t, storedTopic(t, b.conn, "shop.busy"), keyed(1, "", "{}"))
	if err := bus.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}

	check := func(a *api) {
		t.Helper()
		for _, limit := range []string{"1", "2", "100"} {
			got := pages(a, "listDead", args{"limit": limit}, func(v deadTopicView) string { return fmt.Sprint(v.Topic, " ", v.Messages) })
			var want []string
			for _, topic := range named {
				want = append(want, topic+" 1")
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("limit %s: got %q, want %q", limit, got, want)
			}
		}
		shown := numbers(t, a)
		for _, topic := range named {
			if got := shown[fmt.Sprintf("hark_dead_letters{topic=%q}", topic)]; got != "1" {
				t.Errorf("%s: got the number %q", topic, got)
			}
			var groups page[deadErrorView]
			if a.want(http.StatusOK, "listDeadErrors", args{"topic": topic}, nil, &groups); len(groups.Items) != 1 || groups.Items[0].Count != 1 {
				t.Errorf("%s: got the errors %+v", topic, groups.Items)
			}
		}
	}
	check(newAPI(t, b, "Bearer secret-op"))
	stop(t, b)
	b = start(t, configIn(t, dir, text))
	a := newAPI(t, b, "Bearer secret-op")
	check(a)
	if got := pages(newAPI(t, b, "Bearer secret-shop"), "listDead", nil, func(v deadTopicView) string { return v.Topic }); len(got) != 0 {
		t.Errorf("got %q for a user who administers nothing", got)
	}

	all := deadSelection{All: true}
	for i, topic := range []string{"mine", "other", "shop.a.failed"} {
		var v deadView
		seq := uintText(firstDead(t, b, topic))
		if a.want(http.StatusOK, "getDeadMessage", args{"topic": topic, "seq": seq}, nil, &v); v.From != fmt.Sprintf("shop.%d", i) || v.Reason != "no stock" {
			t.Errorf("%s: got %+v", topic, v)
		}
		if _, s := a.outcomes("replayDead", args{"topic": topic}, replayRequest{deadSelection: all}); s != (deadSummary{Done: 1}) {
			t.Errorf("%s: got %+v", topic, s)
		}
		awaitDead(t, b, topic, 0)
	}
	if _, s := a.outcomes("deleteDead", args{"topic": "shop.b.failed"}, deadDelete{deadSelection: all}); s != (deadSummary{Done: 1}) {
		t.Errorf("got %+v", s)
	}
	awaitDead(t, b, "shop.b.failed", 0)
	// Of a store, only topics that have messages are listed.
	if got := pages(a, "listDead", nil, func(v deadTopicView) string { return v.Topic }); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"mine", "other", "shop.c.failed"}) {
		t.Errorf("got %q", got)
	}
}

// firstDead returns the sequence of the first dead letter of a topic.
func firstDead(t *testing.T, b *Broker, topic string) uint64 {
	t.Helper()
	info, err := b.conn.TopicInfo(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	return info.First
}
