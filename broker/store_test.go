package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestStoreOfPattern stores messages on topics that are not named anywhere, from
// the first message on, and keeps them across a restart.
func TestStoreOfPattern(t *testing.T) {
	dir := t.TempDir()
	text := "topics: [{name: 'orders.>'}, {name: plain}]"
	b := start(t, configIn(t, dir, text))
	nc := connectTo(t, b.Addr().String())
	js := jetStreamOf(t, nc)
	// A plain NATS client is told that its message is stored.
	if ack, err := js.Publish("orders.new.one", []byte(`"first"`)); err != nil || ack.Sequence != 1 {
		t.Fatalf("got %+v, %v", ack, err)
	}
	topic := storedTopic(t, dial(t, b, ""), "orders.new.one")
	publish(t, dial(t, b, ""), "orders.new.one", &driver.Message{Data: []byte(`"second"`)})
	untilStored(t, topic, 2) // without an acknowledgement, and over another connection
	publishTo(t, topic, keyed(3, "k", `"third"`))
	check := func(b *Broker) {
		t.Helper()
		var got strings.Builder
		for _, m := range receive(t, replay(t, b.conn, "orders.new.one"), 3) {
			got.WriteString(string(m.Data))
		}
		if got.String() != `"first""second""third"` {
			t.Errorf("got %s", got.String())
		}
	}
	check(b)
	nc.Close()
	stop(t, b)
	check(start(t, configIn(t, dir, text)))
}

type order struct {
	N int `json:"n"`
}

// TestStoreForPrograms uses a topic of a store from a program that states no
// limits.
func TestStoreForPrograms(t *testing.T) {
	b := start(t, config(t, "topics: [{name: 'orders.>', age: 1h, durability: relaxed, dedup: 10m}]"))
	ctx := testContext(t)
	bus, err := hark.Open(ctx, "nats://"+b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bus.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	topic, err := hark.NewTopic[order](bus, "orders.eu", hark.Stored(hark.Retention{}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is known
		if err := topic.Publish(ctx, order{1}, hark.ID("once")); err != nil {
			t.Fatal(err)
		}
	}
	if err := topic.Publish(ctx, order{3}, hark.Key("k")); err != nil {
		t.Fatal(err)
	}
	due := time.Now().Add(200 * time.Millisecond)
	if err := topic.Publish(ctx, order{2}, hark.Delay(200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var got []int
	for m, err := range topic.Messages(ctx, hark.FromStart()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m.Value.N); len(got) == 3 {
			break
		}
	}
	if !slices.Equal(got, []int{1, 3, 2}) || time.Now().Before(due) {
		t.Errorf("got %v, want 1, 3 and then 2, when it was due", got)
	}
	// Messages that are given up on are in the same store, and administered like
	// any dead letters.
	sub, err := topic.Subscribe(func(context.Context, *hark.Message[order]) error { return hark.Reject(errors.New("no")) }, hark.Group("g"), hark.FromStart())
	if err != nil {
		t.Fatal(err)
	}
	awaitDead(t, b, "orders.eu.dead", 3)
	if err := sub.Drain(ctx); err != nil {
		t.Error(err)
	}
	names, _, err := b.conn.TopicNames(ctx, natsdriver.TopicQuery{Dead: true, Limit: 10})
	if err != nil || !slices.Equal(names, []string{"orders.eu.dead"}) {
		t.Errorf("got %v, %v", names, err)
	}
	other, err := hark.NewTopic[order](bus, "orders.us", hark.Stored(hark.Retention{MaxMessages: 5}))
	if err == nil {
		err = other.Publish(ctx, order{1})
	}
	if err == nil || !strings.Contains(err.Error(), "is in the store of all topics that match orders.>") {
		t.Errorf("got %v, want limits of its own to be refused", err)
	}
}

// TestStoreRoutes routes from one store to another, in order and without repeats,
// across restarts.
func TestStoreRoutes(t *testing.T) {
	dir := t.TempDir()
	text := `
topics: [{name: 'in.>'}, {name: 'region.*'}, {name: named}]
routes:
  - {name: all, from: 'in.>', to: 'region.{data.region}'}
  - {name: one, from: in.a.b, to: named}
  - {name: live, from: '*.a.*', to: copy}
`
	b := start(t, configIn(t, dir, text))
	c := dial(t, b, "")
	copies := listen(t, c, "copy")
	const n = 40
	round := func(c driver.Conn, from int) {
		for i := from; i < from+n; i++ {
			publishTo(t, storedTopic(t, c, []string{"in.a.b", "in.c"}[i%2]), keyed(i, fmt.Sprint("k", i%3), fmt.Sprintf(`{"region":"r%d"}`, i%4)))
		}
	}
	round(c, 0)
	check := func(b *Broker, topic string, step, first, n int) {
		t.Helper()
		for i, m := range receive(t, replay(t, b.conn, topic), n) {
			if want := fmt.Sprint("id-", first+step*i); m.ID != want || m.Topic != topic {
				t.Fatalf("message %d of %s: got %s of %s, want %s", i, topic, m.ID, m.Topic, want)
			}
		}
	}
	check(b, "region.r3", 4, 3, n/4)
	check(b, "named", 2, 0, n/2)
	receive(t, copies, n/2) // the messages of in.a.b, once
	nothing(t, copies, c, "copy")
	stop(t, b)
	b = start(t, configIn(t, dir, text))
	round(dial(t, b, ""), n)
	check(b, "region.r3", 4, 3, n/2)
	check(b, "named", 2, 0, n)
	if s := stats(t, storedTopic(t, b.conn, "region.r3")); s.Stored != n/2 {
		t.Errorf("got %d messages, want %d: none twice", s.Stored, n/2)
	}
	if g, err := b.conn.GroupInfo(testContext(t), "in.>", routesGroup); err != nil || g.Waiting != 0 {
		t.Errorf("got %+v, %v", g, err)
	}
}

// TestStoreMoves moves messages out of a store.
func TestStoreMoves(t *testing.T) {
	b := start(t, config(t, "topics: [{name: 'in.>'}, {name: 'out.*'}]\nroutes: [{from: in.a, where: data.n > 1, to: out.big, mode: move}]"))
	c := dial(t, b, "")
	for i := range 4 {
		publishTo(t, storedTopic(t, c, "in.a"), keyed(i, "", fmt.Sprintf(`{"n":%d}`, i)))
		publishTo(t, storedTopic(t, c, "in.b"), keyed(i, "", fmt.Sprintf(`{"n":%d}`, i)))
	}
	untilStored(t, storedTopic(t, c, "in.a"), 2)
	if got := receive(t, replay(t, c, "out.big"), 2); got[0].ID != "id-2" || got[1].ID != "id-3" {
		t.Errorf("got %+v", got)
	}
	if s := stats(t, storedTopic(t, c, "in.b")); s.Stored != 4 {
		t.Errorf("got %+v, want the other topic as it was", s)
	}
}

// TestStorePerKey keeps the newest messages of each topic, and of each of its keys.
func TestStorePerKey(t *testing.T) {
	b := start(t, config(t, "topics: [{name: 'price.*', per_key: 1}, {name: 'state.*', per_topic: 2}]"))
	c := dial(t, b, "")
	for i := range 12 {
		for _, topic := range []string{"price.a", "price.b", "state.a", "state.b"} {
			publishTo(t, storedTopic(t, c, topic), keyed(i, fmt.Sprint(i%3), fmt.Sprint(i)))
		}
	}
	for topic, want := range map[string][]string{"price.a": {"9", "10", "11"}, "price.b": {"9", "10", "11"}, "state.a": {"10", "11"}, "state.b": {"10", "11"}} {
		untilStored(t, storedTopic(t, c, topic), uint64(len(want)))
		var got []string
		for _, m := range receive(t, replay(t, c, topic), len(want)) {
			got = append(got, string(m.Data))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", topic, got, want)
		}
	}
}

// TestStoresAreChecked lists what cannot be declared, each with the place of the
// error.
func TestStoresAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"topics:\n  - name: orders.>\n  - name: orders.eu":                "3:11: topics[1].name: orders.eu and orders.> (line 2, column 11) have topics in common",
		"topics:\n  - name: orders.eu\n  - name: orders.*":                "2:11: topics[0].name: orders.eu and orders.* (line 3, column 11) have topics in common",
		"topics:\n  - name: a.*.c\n  - name: a.b.>":                       "3:11: topics[1].name: a.b.> and a.*.c (line 2, column 11) have topics in common",
		"topics: [{name: '*.a'}]":                                         `"*.a": want a pattern that begins with a name`,
		"topics: [{name: '>'}]":                                           `want a pattern that begins with a name`,
		"topics: [{name: 'a.>.b'}]":                                       `"a.>.b": `,
		"topics: [{name: 'a.>', dead_letters: true}]":                     "topics[0].dead_letters: does not apply to a pattern",
		"topics: [{name: a, per_topic: 1}]":                               "topics[0].per_topic: applies only to patterns",
		"topics: [{name: 'a.>', per_topic: -1}]":                          "per_topic: got",
		"topics: [{name: '_INBOX.>'}]":                                    "replies",
		"topics: [{name: 'a.>'}]\nroutes: [{from: b, to: c, mode: move}]": "only a message of a stored topic can be moved",
	} {
		_, err := Load(Source{File: write(t, text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
	if _, err := Load(Source{File: write(t, "topics: [{name: a.*}, {name: a.*.b}, {name: a}, {name: b.c.>}, {name: b.d}]")}); err != nil {
		t.Error(err)
	}
}

// TestStoreReload adds, changes and removes stores while the broker runs, all or
// nothing.
func TestStoreReload(t *testing.T) {
	dir := t.TempDir()
	b := start(t, configIn(t, dir, "topics: [{name: 'a.*'}]"))
	c := dial(t, b, "")
	publishTo(t, storedTopic(t, c, "a.x"), keyed(1, "", "1"), keyed(2, "", "2"))
	ctx := testContext(t)
	// The second store cannot be created, because a foreign stream keeps what is
	// published there.
	js := jetStreamOf(t, c.Client())
	if _, err := js.AddStream(&nats.StreamConfig{Name: "foreign", Subjects: []string{"taken.x"}}); err != nil {
		t.Fatal(err)
	}
	err := b.Reload(ctx, configIn(t, dir, "topics: [{name: 'a.*', count: 1}, {name: 'b.*'}, {name: 'taken.*'}]"))
	if err == nil || !strings.Contains(err.Error(), "topics[2]") || !strings.Contains(err.Error(), "foreign") {
		t.Fatalf("got %v, want the third store to be refused", err)
	}
	if has, err := b.conn.HasStore(ctx, "b.*"); has || err != nil {
		t.Errorf("the store of b.* is there: %v, %v", has, err)
	}
	if info, err := b.conn.StoreInfo(ctx, "a.*"); err != nil || info.Messages != 2 || info.Config.MaxMessages != 0 {
		t.Errorf("got %+v, %v, want it as it was", info, err)
	}
	if err := b.Reload(ctx, configIn(t, dir, "topics: [{name: 'a.*', count: 1}, {name: 'b.*'}]\nroutes: [{from: 'a.*', to: b.all}]")); err != nil {
		t.Fatal(err)
	}
	if info, err := b.conn.StoreInfo(ctx, "a.*"); err != nil || info.Messages != 1 || info.Config.MaxMessages != 1 {
		t.Errorf("got %+v, %v, want the new limit", info, err)
	}
	publishTo(t, storedTopic(t, c, "a.x"), keyed(3, "", "3"))
	if m := receive(t, replay(t, c, "b.all"), 1)[0]; m.ID != "id-3" {
		t.Errorf("got %s", m.ID)
	}
	// A store that is no longer declared stays as it is.
	if err := b.Reload(ctx, configIn(t, dir, "topics: [{name: 'b.*'}]")); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, replay(t, c, "a.x"), 1)[0]; m.ID != "id-3" {
		t.Errorf("got %s", m.ID)
	}
	if err := b.Reload(ctx, configIn(t, dir, "topics: [{name: 'b.*'}, {name: a.x}]")); err == nil || !strings.Contains(err.Error(), "the store a.*") {
		t.Errorf("got %v, want a topic in a store that is there to be refused", err)
	}
	if err := b.conn.DeleteStore(ctx, "a.*"); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(ctx, configIn(t, dir, "topics: [{name: 'b.*'}, {name: a.x}]")); err != nil {
		t.Error(err)
	}
}

// TestStoreUsers has users with permissions for all, for a part and for none of a
// store.
func TestStoreUsers(t *testing.T) {
	t.Parallel()
	b := start(t, config(t, `
users:
  - {name: all, token: "`+HashToken("secret-all")+`", publish: [shop.>], subscribe: [shop.>]}
  - {name: eu, token: "`+HashToken("secret-eu")+`", publish: [shop.eu.*], subscribe: [shop.eu.*], admin: [shop.eu.*]}
  - {name: in, token: "`+HashToken("secret-in")+`", publish: [shop.>]}
topics: [{name: 'shop.>'}]
`))
	all, eu := dial(t, b, "all:secret-all@"), dial(t, b, "eu:secret-eu@")
	ctx := testContext(t)
	publishTo(t, storedTopic(t, all, "shop.us.a"), keyed(1, "k", `"secret"`))
	live := listen(t, eu, "shop.eu.*")
	// With an acknowledgement, with and without a key.
	publishTo(t, storedTopic(t, eu, "shop.eu.a"), keyed(2, "k", `"mine"`), keyed(3, "", `"too"`))
	receive(t, live, 2)
	if got := receive(t, replay(t, all, "shop.eu.a"), 2); got[0].ID != "id-2" || got[1].ID != "id-3" {
		t.Errorf("got %+v", got)
	}
	group, err := storedTopic(t, all, "shop.us.a").Subscribe(ctx, driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, group, 1)

	mine := storedTopic(t, eu, "shop.eu.a")
	for _, cfg := range []driver.SubscribeConfig{{From: driver.FromStart, Window: 1}, {Group: "g", Window: 1}} {
		if _, err := mine.Subscribe(ctx, cfg); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "over HTTP") {
			t.Errorf("%+v: got %v, want to be sent to HTTP", cfg, err)
		}
	}
	// Patterns, as programs read them.
	for _, tt := range []struct{ user, pattern, refused string }{
		{"all:secret-all@", "shop.>", ""},
		{"all:secret-all@", "shop.us.*", ""},
		{"all:secret-all@", "*.us.a", "may not do this"},
		{"eu:secret-eu@", "shop.eu.*", "over HTTP"},
		{"eu:secret-eu@", "shop.us.*", "ermission"},
	} {
		bus := hark.Over(dial(t, b, tt.user))
		got := make(chan string, 10)
		_, err := hark.SubscribePattern(bus, tt.pattern, func(_ context.Context, m *hark.Message[string]) error {
			got <- m.Topic() + " " + m.Value
			return nil
		}, hark.FromStart(), hark.Durable(), hark.Group("audit"))
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%s: got %v, want %s", tt.pattern, err, tt.refused)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case first := <-got:
			if first != "shop.us.a secret" {
				t.Errorf("%s: got %s first", tt.pattern, first)
			}
		case <-ctx.Done():
			t.Fatalf("%s: got nothing", tt.pattern)
		}
		if err := bus.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := mine.Stats(ctx); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if _, err := eu.OpenTopic(ctx, driver.TopicConfig{Name: "shop.us.a", Stored: &driver.StoredConfig{Existing: true}}); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("got %v, want what is not permitted to be an error soon", err)
	}
	stream := "hark-store-shop=~3E"
	for subject, ok := range map[string]bool{
		"shop.us.a": false, "$HARK.s.3.shop.us.a": false, "$HARK.s.3.shop.eu.a": true, "$HARK.s.-.shop.eu.a.b": false, "$HARK.where.shop.us.a": false,
		"$JS.API.STREAM.INFO." + stream: false, "$JS.API.STREAM.NAMES": false, "$JS.API.STREAM.MSG.GET." + stream: false, "$JS.API.STREAM.PURGE." + stream: false,
		"$JS.API.DIRECT.GET." + stream: false, "$JS.API.DIRECT.GET." + stream + ".$HARK.s.3.shop.us.a": false, "$JS.API.DIRECT.GET." + stream + ".$HARK.s.3.shop.eu.a": false,
		"$JS.API.CONSUMER.CREATE." + stream: false, "$JS.API.CONSUMER.CREATE." + stream + ".c": false, "$JS.API.CONSUMER.CREATE." + stream + ".c.$HARK.s.*.shop.eu.a": false,
		"$JS.API.CONSUMER.CREATE." + stream + ".c.$HARK.s.*.shop.us.a": false, "$JS.API.CONSUMER.DURABLE.CREATE." + stream + ".c": false,
		"$JS.API.CONSUMER.MSG.NEXT." + stream + ".shop=us=a~gg": false, "$JS.API.CONSUMER.DELETE." + stream + ".shop=us=a~gg": false,
		"$JS.ACK." + stream + ".shop=us=a~gg.1.1.1.1.0": false,
	} {
		err := attempt(t, b, "eu", func(nc *nats.Conn) error { return nc.Publish(subject, nil) })
		if (err == nil) != ok || err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("publish to %s: got %v, want ok=%v", subject, err, ok)
		}
	}
	for subject, ok := range map[string]bool{"$HARK.s.>": false, "$HARK.s.*.shop.us.*": false, "$HARK.s.*.shop.eu.*": true, "$HARK.where.>": false} {
		err := attempt(t, b, "eu", func(nc *nats.Conn) error { _, err := nc.SubscribeSync(subject); return err })
		if (err == nil) != ok || err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("subscribe to %s: got %v, want ok=%v", subject, err, ok)
		}
	}
	// A user who may only publish is not told which topics exist.
	publishTo(t, storedTopic(t, dial(t, b, "in:secret-in@"), "shop.us.b"), keyed(4, "k", `"in"`))
	err = attempt(t, b, "in", func(nc *nats.Conn) error { return nc.Publish("$JS.API.STREAM.INFO."+stream, nil) })
	if !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("information on the store for who publishes only: got %v, want a refusal", err)
	}
	// Over HTTP the user's part can be read and administered, and nothing else.
	ask := func(path string) int {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.HTTPAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer secret-eu")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		return res.StatusCode
	}
	for path, want := range map[string]int{
		"/v1/admin/topics/shop.eu.a": 200, "/v1/admin/topics/shop.eu.a/messages": 200, "/v1/admin/topics/shop.eu.a/messages/2": 200,
		"/v1/admin/topics/shop.eu.a/messages/1": 404, // it is a message of shop.us.a
		"/v1/admin/topics/shop.us.a":            403, "/v1/admin/topics/shop.us.a/messages": 403, "/v1/admin/stores": 403,
	} {
		if got := ask(path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
}

// TestStoreOverHTTP follows all topics of a store, and a part of them, like the
// single stored topic that they are together.
func TestStoreOverHTTP(t *testing.T) {
	web := newWebClient(t, start(t, config(t, "topics: [{name: 'shop.>'}]")))
	web.numbers(http.StatusCreated, "shop.a", 0, 2)
	web.numbers(http.StatusCreated, "shop.a.deep", 2, 2)
	web.numbers(http.StatusCreated, "shop.b", 4, 2)
	for pattern, want := range map[string][]int{"shop.%3E": upTo(0, 6), "shop.*": {0, 1, 4, 5}, "*.a": nil} {
		if want == nil {
			res, err := web.do(testContext(t), http.MethodGet, "/v1/topics/"+pattern+"/events?from=start", nil)
			if err != nil || res.StatusCode != http.StatusConflict {
				t.Errorf("%s: got %v, %v, want a pattern in no store to be refused", pattern, res.Status, err)
			}
			_ = res.Body.Close()
			continue
		}
		lines, next := web.poll(pattern + "/events?from=start&max=3")
		more, _ := web.poll(pattern + "/events?from=" + next)
		if got := append(numbersOf(lines), numbersOf(more)...); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", pattern, got, want)
		}
		if last := more[len(more)-1].data; last.Seq != 6 || last.Topic != "shop.b" {
			t.Errorf("%s: got %+v", pattern, last)
		}
		// It goes on after the last message, including messages published later.
		res, err := web.do(testContext(t), http.MethodGet, "/v1/topics/"+pattern+"/events?wait=1s&where=data.n==5", nil, "Accept: application/x-ndjson", "Last-Event-ID: 2")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), `"seq":6`) {
			t.Errorf("%s: got %s, %v", pattern, text, err)
		}
		_ = res.Body.Close()
		// A group keeps its place in it.
		one := web.webSocket(pattern + "/events?group=g&from=start&window=1")
		web.say(one, fmt.Sprintf(`{"ack":%d}`, web.hear(one).Seq))
		_ = one.CloseNow()
		two := web.webSocket(pattern + "/events?group=g")
		for rest := want[1:]; len(rest) > 0; { // what was on its way to the first comes later
			e := web.hear(two)
			web.say(two, fmt.Sprintf(`{"ack":%d}`, e.Seq))
			rest = slices.DeleteFunc(rest, func(n int) bool { return n == e.Data.N })
		}
		_ = two.CloseNow()
	}
}
