package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// storedTopic opens a declared topic.
func storedTopic(t *testing.T, c driver.Conn, name string) driver.Topic {
	t.Helper()
	topic, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// listen subscribes to what is published from now on.
func listen(t *testing.T, c driver.Conn, pattern string) driver.Subscription {
	t.Helper()
	sub, err := c.SubscribePattern(testContext(t), pattern, driver.SubscribeConfig{Window: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// replay subscribes to all that is stored.
func replay(t *testing.T, c driver.Conn, name string) driver.Subscription {
	t.Helper()
	sub, err := storedTopic(t, c, name).Subscribe(testContext(t), driver.SubscribeConfig{From: driver.FromStart, Window: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// receive returns the next n messages.
func receive(t *testing.T, sub driver.Subscription, n int) (all []*driver.Received) {
	t.Helper()
	for len(all) < n {
		ms, err := sub.Receive(testContext(t), n-len(all))
		if err != nil {
			t.Fatalf("%v after %d of %d messages", err, len(all), n)
		}
		all = append(all, ms...)
	}
	return all
}

// nothing fails if there is a message before the one that says end, which is
// published to the topic.
func nothing(t *testing.T, sub driver.Subscription, c driver.Conn, topic string) {
	t.Helper()
	publish(t, c, topic, &driver.Message{Data: []byte(`"end"`)})
	if m := receive(t, sub, 1)[0]; string(m.Data) != `"end"` {
		t.Errorf("got %s on %s, want nothing more", m.Data, m.Topic)
	}
}

func publish(t *testing.T, c driver.Conn, name string, ms ...*driver.Message) {
	t.Helper()
	topic, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	publishTo(t, topic, ms...)
}

func publishTo(t *testing.T, topic driver.Topic, ms ...*driver.Message) {
	t.Helper()
	if err := topic.Publish(testContext(t), ms); err != nil {
		t.Fatal(err)
	}
}

func stats(t *testing.T, topic driver.Topic) driver.TopicStats {
	t.Helper()
	s, err := topic.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyed(i int, key, data string) *driver.Message {
	return &driver.Message{ID: fmt.Sprint("id-", i), Key: key, HasKey: true, ContentType: "application/json", Data: []byte(data), Headers: map[string]string{"n": fmt.Sprint(i)}}
}

func TestLiveRoutes(t *testing.T) {
	b := start(t, config(t, `
routes:
  - {name: eu, from: orders.*, where: data.region == "eu", to: ["region.{data.region}", copy]}
  - {name: rest, from: orders.*, otherwise: rest}
`))
	c := dial(t, b, "")
	regions, copies, rest := listen(t, c, "region.*"), listen(t, c, "copy"), listen(t, c, "rest")
	for i := range 100 {
		region := []string{"eu", "us"}[i%2]
		publish(t, c, "orders.placed", keyed(i, "k", fmt.Sprintf(`{"region":%q}`, region)))
	}
	for _, sub := range []driver.Subscription{regions, copies, rest} {
		for j, m := range receive(t, sub, 50) {
			i := 2 * j
			if sub == rest {
				i++
			}
			if m.ID != fmt.Sprint("id-", i) || m.Key != "k" || m.Headers["n"] != fmt.Sprint(i) || m.Headers[hopsHeader] != "1" || m.ContentType != "application/json" || m.Headers["ce-type"] != "orders.placed" {
				t.Fatalf("message %d of %s: got %+v", i, m.Topic, m)
			}
		}
	}
	awaitStats(t, b, RouteStats{Route: "eu", Matched: 50, Routed: 50}, RouteStats{Route: "rest", Otherwise: 50, Routed: 50})
}

// awaitStats waits until the routes have these counters.
func awaitStats(t *testing.T, b *Broker, want ...RouteStats) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(t); ; {
		got := b.RouteStats()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

// TestCounters checks that each message that a route takes is counted in one of its
// counters, and that a message that several routes send to the same target is counted
// by each of them.
func TestCounters(t *testing.T) {
	const limit = 2048
	b := start(t, config(t, `
max_hops: 2
limits: {message: 2KiB}
topics: [{name: in}, {name: out}, {name: tier.*}]
routes:
  - {name: all, from: in, where: has(data.n), to: [out, "tier.{data.n}"], mode: move}
  - {name: same, from: in, where: has(data.n), to: out}
  - {name: part, from: in, where: has(data.n), to: "tier.{data.none}", sample: 50%}
  - {name: rest, from: in, where: data.n == 1, to: "none.{data.none}", otherwise: "other.{data.other}"}
  - {name: live, from: in, where: data.n == 0, to: ["live.{key}", out, out]}
`))
	in := storedTopic(t, b.conn, "in")
	for i := range 40 {
		publishTo(t, in, keyed(i, fmt.Sprint("k", i), fmt.Sprintf(`{"n":%d}`, i%4)))
	}
	publishTo(t, in, keyed(40, "k", `{"other":"there"}`)) // nothing but otherwise takes it
	publishTo(t, in, &driver.Message{ID: "looped", ContentType: "application/json", Data: []byte(`{"n":1}`), Headers: map[string]string{hopsHeader: "2"}})
	// With the header of a route it is larger than the limit of the broker.
	js := jetStreamOf(t, connectTo(t, b.Addr().String()))
	if _, err := js.Publish("in", fmt.Appendf(nil, `{"n":2,"x":%q}`, strings.Repeat("x", limit-len(`{"n":2,"x":""}`)))); err != nil {
		t.Fatal(err)
	}
	waitForRoute(t, b, func(s RouteStats) bool { return s.Matched == 42 })
	got := b.RouteStats()
	out := got[2].SampledOut // which keys are in a sample is not said
	want := []RouteStats{
		{Route: "all", Matched: 42, Routed: 40, Failed: 1, Looped: 1},
		{Route: "same", Matched: 42, Routed: 40, Failed: 1, Looped: 1},
		{Route: "part", Matched: 42, SampledOut: out, Unresolved: 41 - out, Looped: 1},
		{Route: "rest", Matched: 11, Otherwise: 1, Routed: 1, Unresolved: 10, Looped: 1},
		{Route: "live", Matched: 10, Routed: 10},
	}
	if awaitStats(t, b, want...); out == 0 || out == 41 {
		t.Errorf("%d of 41 are not in the sample", out)
	}
	// Prometheus and hark route show report these numbers.
	shown := numbers(t, newAPI(t, b, ""))
	for _, s := range want {
		for name, n := range map[string]uint64{
			"matched": s.Matched, "otherwise": s.Otherwise, "routed": s.Routed, "sampled_out": s.SampledOut, "unresolved": s.Unresolved,
			"failed": s.Failed, "looped": s.Looped, "kept": s.Kept,
		} {
			series := fmt.Sprintf("hark_route_%s_messages_total{route=%q}", name, s.Route)
			if got := shown[series]; got != fmt.Sprint(n) {
				t.Errorf("%s: got %s, want %d", series, got, n)
			}
		}
	}
}

func TestStoredRoutes(t *testing.T) {
	dir := t.TempDir()
	text := `
topics:
  - {name: orders.placed}
  - {name: orders.eu}
routes:
  - {name: eu, from: orders.placed, where: data.region == "eu", to: orders.eu}
  - {name: all, from: orders.placed, to: live}
`
	b := start(t, configIn(t, dir, text))
	c := dial(t, b, "")
	live := listen(t, c, "live")
	placed := storedTopic(t, c, "orders.placed")
	for i := range 300 {
		publishTo(t, placed, keyed(i, fmt.Sprint("k", i%7), fmt.Sprintf(`{"region":%q}`, []string{"eu", "us", "asia"}[i%3])))
	}
	check := func(ms []*driver.Received, step int) {
		t.Helper()
		for i, m := range ms {
			if want := fmt.Sprint("id-", i*step); m.ID != want || m.Key != fmt.Sprint("k", i*step%7) {
				t.Fatalf("got %s with key %s, want %s", m.ID, m.Key, want)
			}
		}
	}
	check(receive(t, live, 300), 1)
	check(receive(t, replay(t, c, "orders.eu"), 100), 3)
	stop(t, b)

	// It continues at its position, and nothing is delivered twice.
	b = start(t, configIn(t, dir, text))
	c = dial(t, b, "")
	live = listen(t, c, "live")
	publishTo(t, storedTopic(t, c, "orders.placed"), keyed(300, "k6", `{"region":"eu"}`))
	if m := receive(t, live, 1)[0]; m.ID != "id-300" {
		t.Errorf("got %s after a restart, want only what is new", m.ID)
	}
	check(receive(t, replay(t, c, "orders.eu"), 101), 3)
}

// TestRepeatsAreHarmless makes the routes process every message again.
func TestRepeatsAreHarmless(t *testing.T) {
	dir := t.TempDir()
	text := "topics: [{name: a}, {name: b}, {name: both}]\nroutes: [{from: a, to: both}, {from: b, to: both}]"
	b := start(t, configIn(t, dir, text))
	c := dial(t, b, "")
	for i := range 20 { // the same IDs on both topics, of different messages
		publishTo(t, storedTopic(t, c, "a"), keyed(i, "", `"a"`))
		publishTo(t, storedTopic(t, c, "b"), keyed(i, "", `"b"`))
	}
	receive(t, replay(t, c, "both"), 40)
	// As if it had been killed before it acknowledged anything.
	for _, topic := range []string{"a", "b"} {
		in := newReader(b.routing, readerKey{topic, true})
		if done := in.route(receive(t, replay(t, c, topic), 20)); done != 20 {
			t.Errorf("got %d done, want 20", done)
		}
	}
	if s := stats(t, storedTopic(t, c, "both")); s.Stored != 40 {
		t.Errorf("got %d messages, want 40", s.Stored)
	}
}

// TestTopicsReplaced restarts a broker, so that sequences of topics in memory start at
// 1 again. Messages without IDs must not be mistaken for earlier ones with the same
// sequences.
func TestTopicsReplaced(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	text := "topics: [{name: in, durability: memory}, {name: hooked, durability: memory}, {name: out}]\nroutes: [{from: in, to: out, mode: move}]\n" + r.webhook("from: hooked")
	ids := map[string]bool{}
	for n := 1; n <= 2; n++ {
		b := start(t, configIn(t, dir, text))
		nc := connectTo(t, b.Addr().String())
		for _, topic := range []string{"in", "hooked"} {
			if err := nc.Publish(topic, fmt.Appendf(nil, "%d", n)); err != nil {
				t.Fatal(err)
			}
		}
		ms := receive(t, replay(t, b.conn, "out"), n)
		if got := string(ms[n-1].Data); got != fmt.Sprint(n) {
			t.Errorf("got %s, want %d", got, n)
		}
		d := r.next()
		if seq := d.header.Get("Hark-Seq"); seq != "1" {
			t.Errorf("got the sequence %s, want 1 again", seq)
		}
		ids[d.header.Get("Webhook-Id")] = true
		stop(t, b)
	}
	if len(ids) != 2 {
		t.Errorf("got the IDs %v, want two", ids)
	}
}

func TestRTE1Moves(t *testing.T) {
	var log syncBuffer
	b := startLogging(t, config(t, `
topics: [{name: in}, {name: big}, {name: size.9}, {name: tier.>}]
routes:
  - {name: big, from: in, where: data.n >= 50, to: big, mode: move}
  - {name: bad, from: in, where: data.n == 7, to: "{data.none}.big", mode: move}
  - {name: size, from: in, where: "data.n in [8, 9]", to: ["size.{data.n}", "tier.{data.n}"], mode: move}
  - {name: copy, from: in, where: data.n == 10, to: tier.10}
  - {name: after, from: in, where: data.n == 10, to: "tier.{data.n}", mode: move}
  - {name: too, from: in, where: data.n == 60, to: "size.{data.n}", mode: move}
`), newTestLogger(&log))
	c := dial(t, b, "")
	live := listen(t, c, "size.*")
	in := storedTopic(t, c, "in")
	for i := range 100 {
		publishTo(t, in, keyed(i, "", fmt.Sprintf(`{"n":%d}`, i)))
	}
	receive(t, replay(t, c, "big"), 50)
	copied := map[string]bool{} // what is not stored; messages of different topics have no order
	for _, m := range receive(t, live, 3) {
		copied[m.Topic] = true
	}
	if want := map[string]bool{"size.8": true, "size.9": true, "size.60": true}; !maps.Equal(copied, want) {
		t.Errorf("got %v, want %v", copied, want)
	}
	stop(t, b) // waits until what was taken is done
	for name, want := range map[string]RouteStats{
		"big":   {Route: "big", Matched: 50, Routed: 49, Kept: 1}, // 60 has another route that moves it
		"bad":   {Route: "bad", Matched: 1, Unresolved: 1},
		"size":  {Route: "size", Matched: 2, Routed: 1, Kept: 1},
		"copy":  {Route: "copy", Matched: 1, Routed: 1},
		"after": {Route: "after", Matched: 1, Routed: 1}, // the other has sent it there
		"too":   {Route: "too", Matched: 1, Kept: 1},
	} {
		if i := slices.IndexFunc(b.RouteStats(), func(s RouteStats) bool { return s.Route == name }); b.RouteStats()[i] != want {
			t.Errorf("got %+v, want %+v", b.RouteStats()[i], want)
		}
	}
	for _, target := range []string{"size.8", "size.60"} {
		if n := strings.Count(log.String(), "messages were copied and not moved"); n != 2 || !strings.Contains(log.String(), "to="+target) {
			t.Errorf("got %d reports, want 2, one for %s:\n%s", n, target, log.String())
		}
	}
	b = start(t, b.config.Load())
	c = dial(t, b, "")
	// 50 to 99 have gone, but for 60, and so have 9 and 10.
	if s := stats(t, storedTopic(t, c, "in")); s.Stored != 49 || s.Last != 100 {
		t.Errorf("got %+v, want the 49 messages that were not moved", s)
	}
	if s := stats(t, storedTopic(t, c, "big")); s.Stored != 50 {
		t.Errorf("got %+v, want the 50 that were", s)
	}
}

// TestRTE2Hops sends messages in a loop through a program.
func TestRTE2Hops(t *testing.T) {
	b := start(t, config(t, "max_hops: 5\nroutes: [{from: there, to: back}]"))
	c := dial(t, b, "")
	back := listen(t, c, "back")
	m := &driver.Message{ID: "x", Data: []byte("{}")}
	for hop := 1; hop <= 5; hop++ {
		publish(t, c, "there", m)
		got := receive(t, back, 1)[0]
		if got.Headers[hopsHeader] != fmt.Sprint(hop) {
			t.Fatalf("got %q hops, want %d", got.Headers[hopsHeader], hop)
		}
		m = &got.Message
	}
	publish(t, c, "there", m)
	nothing(t, back, c, "there")
	awaitStats(t, b, RouteStats{Route: "1", Matched: 7, Routed: 6, Looped: 1}) // it was routed too often
}

// TestRTE3DeadLetters publishes to topics for dead letters and to others, stored in a store
// and not, and a webhook and routes from patterns get what they are meant for.
func TestRTE3DeadLetters(t *testing.T) {
	hook := newReceiver(t)
	b := start(t, config(t, hook.webhook("from: ev.>")+`
topics: [{name: stored.>}]
routes:
  - {name: all, from: ev.>, to: "live.{topic}"}
  - {name: named, from: ev.*.dead, to: "named.{topic}"}
  - {name: one, from: ev.b.dead, to: one}
  - {name: stored, from: stored.>, to: "live.{topic}"}
`))
	c := dial(t, b, "")
	live, named, one := listen(t, c, "live.>"), listen(t, c, "named.>"), listen(t, c, "one")
	m := &driver.Message{Data: []byte("{}")}
	for _, topic := range []string{"ev.a", "ev.a.dead", "ev.b.dead", "ev.b"} {
		publish(t, c, topic, m)
	}
	for _, topic := range []string{"stored.a.dead", "stored.a"} {
		s, err := c.OpenInStore(testContext(t), "stored.>", topic, driver.StoredConfig{Existing: true})
		if err != nil {
			t.Fatal(err)
		}
		publishTo(t, s, m)
	}
	for sub, want := range map[driver.Subscription][]string{
		live: {"live.ev.a", "live.ev.b", "live.stored.a"}, named: {"named.ev.a.dead", "named.ev.b.dead"}, one: {"one"},
	} {
		got := map[string]bool{}
		for _, m := range receive(t, sub, len(want)) {
			got[m.Topic] = true
		}
		for _, topic := range want {
			if !got[topic] {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
	sent := map[string]bool{hook.next().event.Type(): true, hook.next().event.Type(): true}
	stop(t, b) // it has sent what it had
	if len(hook.got) > 0 || !sent["ev.a"] || !sent["ev.b"] {
		t.Errorf("the receiver of a webhook got %v and %d others, want ev.a and ev.b", sent, len(hook.got))
	}
	for pattern, topics := range map[string]map[string]bool{
		"ev.>": {"ev.a": true, "ev.a.dead": false, "ev.dead": false}, "ev.*.dead": {"ev.a.dead": true}, "ev.a.dead": {"ev.a.dead": true},
	} {
		for topic, want := range topics {
			if takes(pattern, topic) != want {
				t.Errorf("%s of %s: want %v", topic, pattern, want)
			}
		}
	}
}

func TestNewRoutesOnOldTopics(t *testing.T) {
	dir := t.TempDir()
	topics := "topics: [{name: in}, {name: out}]\n"
	routes := "routes: [{from: in, to: out}]"
	for _, step := range []struct {
		text string
		want uint64 // on out after one more message on in
	}{{topics, 0}, {topics + routes, 1}, {topics, 1}, {topics + routes, 2}} {
		b := start(t, configIn(t, dir, step.text))
		c := dial(t, b, "")
		publishTo(t, storedTopic(t, c, "in"), &driver.Message{Data: []byte("{}")})
		if strings.Contains(step.text, "routes") {
			receive(t, replay(t, c, "out"), int(step.want))
		}
		if s := stats(t, storedTopic(t, c, "out")); s.Stored != step.want {
			t.Errorf("got %d messages, want %d: what came without routes is not routed", s.Stored, step.want)
		}
		stop(t, b)
	}
}

func TestStopIsBounded(t *testing.T) {
	b := start(t, config(t, "topics: [{name: in}]\nroutes: [{from: in, to: out}]"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = b.Stop(ctx) // it returns, whatever it could not finish
	if err := b.Reload(testContext(t), b.config.Load()); err == nil {
		t.Error("a stopped broker was reloaded")
	}
	if err := b.store.Close(); err != nil { // waits for the server, whose directory is removed next
		t.Error(err)
	}
}
