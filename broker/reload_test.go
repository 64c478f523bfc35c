package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

func TestReload(t *testing.T) {
	dir := t.TempDir()
	b := start(t, configIn(t, dir, "topics: [{name: in, count: 5}]\nroutes: [{name: r, from: in, to: old}, {name: live, from: live, to: live.old}]"))
	c := dial(t, b, "")
	in := storedTopic(t, c, "in")
	old, fresh := listen(t, c, "old"), listen(t, c, "new")
	liveOld, liveNew := listen(t, c, "live.old"), listen(t, c, "live.new")
	for i := range 50 {
		publishTo(t, in, keyed(i, "", `{}`))
	}
	publish(t, c, "live", keyed(0, "", `{}`))
	receive(t, old, 50)
	receive(t, liveOld, 1)

	if err := b.Reload(testContext(t), configIn(t, dir, "topics: [{name: in, count: 9}, {name: more}]\nroutes: [{name: r, from: in, to: new}, {name: live, from: live, to: live.new}]")); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		publishTo(t, in, keyed(50+i, "", `{}`))
	}
	publish(t, c, "live", keyed(1, "", `{}`))
	for i, m := range receive(t, fresh, 50) {
		if m.ID != fmt.Sprint("id-", 50+i) {
			t.Fatalf("got %s, want id-%d: once and in order", m.ID, 50+i)
		}
	}
	if m := receive(t, liveNew, 1)[0]; m.ID != "id-1" {
		t.Errorf("got %s, want id-1", m.ID)
	}
	nothing(t, old, c, "old")
	if s := stats(t, in); s.Stored != 9 {
		t.Errorf("got %d messages, want the new limit of 9", s.Stored)
	}
	storedTopic(t, c, "more")
	waitForRoute(t, b, func(s RouteStats) bool { return s.Matched == 100 }) // the counters go on
}

// TestReloadIsAllOrNothing reloads invalid configurations, and checks that nothing has
// changed.
func TestReloadIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	text := "topics: [{name: in, count: 5}]\nroutes: [{name: r, from: in, to: out}]"
	b := start(t, configIn(t, dir, text))
	c := dial(t, b, "")
	in, out, other := storedTopic(t, c, "in"), listen(t, c, "out"), listen(t, c, "other")
	tests := []struct {
		text   string
		change func(*Config)
		want   string
	}{
		{strings.Replace(text, "count: 5", "count: 9", 1) + "\nname: x", nil, "name: cannot change while the broker runs"},
		{text, func(c *Config) { c.Listen = "127.0.0.1:1" }, "--listen: cannot change"},
		{text, func(c *Config) { c.Limits.Message = 2048 }, "limits: cannot change"},
		{text, func(c *Config) { c.Routes[0].Where = "data." }, "the expression ends"},
		{text + "\nusers: [{name: a, token: 'sha256:" + strings.Repeat("0", 64) + "'}]", nil, "users: whether there are users"},
		{"topics: [{name: fresh}, {name: in, count: 9}, {name: taken}]\nroutes: [{name: r, from: in, to: other}]", nil, "topics[2]: exists"},
		{"topics: [{name: in, count: 1}, {name: taken}]\nroutes: [{name: r, from: in, to: other}]", nil, "topics[1]: exists"},
	}
	// A stream that does not belong to hark stores what is published to a topic.
	js := jetStreamOf(t, connectTo(t, b.Addr().String()))
	if _, err := js.AddStream(&nats.StreamConfig{Name: "foreign", Subjects: []string{"taken"}}); err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		next := configIn(t, dir, tt.text)
		if tt.change != nil {
			tt.change(next)
		}
		err := b.Reload(testContext(t), next)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Fatalf("%s: got %v, want %s", tt.text, err, tt.want)
		}
		for j := range 10 {
			publishTo(t, in, keyed(10*i+j, "", `{}`))
		}
		receive(t, out, 10)
		if s := stats(t, in); s.Stored != 5 {
			t.Errorf("%s: got %d messages, want the old limit of 5", tt.text, s.Stored)
		}
		if has, err := b.conn.HasTopic(testContext(t), "fresh"); has || err != nil {
			t.Errorf("%s: a topic was made: %v", tt.text, err)
		}
	}
	nothing(t, other, c, "other")
	if !errors.Is(b.Reload(testContext(t), configIn(t, dir, tests[5].text)), driver.ErrConflict) {
		t.Error("want ErrConflict")
	}
}

// TestRefusedReloadLeavesNoGroups refuses a reload that has already created groups for
// a route and webhooks. The new groups must be removed, so that nobody starts at their
// positions later.
func TestRefusedReloadLeavesNoGroups(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	const limits, topics = "limits: {disk: 64MiB}\n", "topics: [{name: in, bytes: 1MiB, durability: relaxed}, {name: 'of.*', bytes: 1MiB, durability: relaxed}]\n"
	old := r.webhook("from: in")
	b := start(t, configIn(t, dir, limits+topics+old))
	groups := func() (all []string) {
		t.Helper()
		for _, topic := range []string{"in", "of.*"} {
			gs, err := b.conn.Groups(testContext(t), topic)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range gs {
				all = append(all, topic+" "+g.Name)
			}
		}
		return all
	}
	want := groups()
	if !slices.Equal(want, []string{"in webhook-shop"}) {
		t.Fatalf("got the groups %q", want)
	}
	fresh := strings.NewReplacer("name: shop", "name: other", "webhooks:\n", "", "from: in", "from: of.*").Replace(old)
	text := limits + strings.Replace(topics, "bytes: 1MiB", "bytes: 1TiB", 1) + strings.Replace(old, "from: in", "from: in\n    workers: 2", 1) + fresh + "routes: [{name: r, from: in, to: out}, {name: s, from: 'of.*', to: out}]\n"
	if err := b.Reload(testContext(t), configIn(t, dir, text)); err == nil || !strings.Contains(err.Error(), "topics[0]") {
		t.Fatalf("got %v, want more than the disk refused", err)
	}
	if got := groups(); !slices.Equal(got, want) {
		t.Errorf("got the groups %q, want %q as before", got, want)
	}
	publishTo(t, storedTopic(t, b.conn, "in"), keyed(0, "", `{"n":0}`))
	r.next() // the webhook that was there goes on
}

// TestReloadWithoutPatience reloads without a route whose target accepts nothing, and does
// not wait for what is in flight. The other routes must go on.
func TestReloadWithoutPatience(t *testing.T) {
	dir := t.TempDir()
	other := "{name: other, from: more, to: out}]"
	b := startStuck(t, dir, other)
	fly(t, b, 1)
	b.routing.patience = time.Nanosecond
	c := dial(t, b, "")
	out := listen(t, c, "out")
	if err := b.Reload(testContext(t), configIn(t, dir, stuckTopics+"routes: ["+other)); err != nil {
		t.Fatal(err)
	}
	publishTo(t, storedTopic(t, c, "more"), keyed(1, "", `{}`))
	receive(t, out, 1)
}

// TestReloadOfStuckRoute gives a route whose target accepts nothing another one: what is
// in flight must go there.
func TestReloadOfStuckRoute(t *testing.T) {
	dir := t.TempDir()
	b := startStuck(t, dir, "]")
	fly(t, b, 1)
	if err := b.Reload(testContext(t), configIn(t, dir, stuckTopics+"routes: [{name: r, from: in, to: more}]")); err != nil {
		t.Fatal(err)
	}
	for i, m := range receive(t, replay(t, b.conn, "more"), 5) {
		if m.ID != fmt.Sprint("id-", i) {
			t.Errorf("got %s, want id-%d: once and in order", m.ID, i)
		}
	}
}

// TestReloadOfStuckRouteToSeveral does that beside a target that is not stored and has
// what is in flight: it must not get it again.
func TestReloadOfStuckRouteToSeveral(t *testing.T) {
	dir := t.TempDir()
	live := "{name: live, from: in, to: out}]"
	b := startStuck(t, dir, live)
	out := listen(t, b.conn, "out")
	fly(t, b, 1)
	got := receive(t, out, 1)
	for range 2 { // the second time, what the first plan has sent is still known
		if err := b.Reload(testContext(t), configIn(t, dir, stuckTopics+"routes: [{name: r, from: in, to: full}, "+live)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Reload(testContext(t), configIn(t, dir, stuckTopics+"routes: [{name: r, from: in, to: more}, "+live)); err != nil {
		t.Fatal(err)
	}
	receive(t, replay(t, b.conn, "more"), 5)
	for i, m := range append(got, receive(t, out, 4)...) {
		if m.ID != fmt.Sprint("id-", i) {
			t.Errorf("got %s, want id-%d: once and in order", m.ID, i)
		}
	}
	nothing(t, out, b.conn, "out")
}

// TestReloadOfStuckRouteThatSkips does that with a message that another reader has routed
// before an earlier reload: it must not go there, too.
func TestReloadOfStuckRouteThatSkips(t *testing.T) {
	dir := t.TempDir()
	b := startStuck(t, dir, "]")
	reader := b.routing.readers[readerKey{"in", true}]
	resume, ok := reader.pause(testContext(t), time.Minute)
	if !ok {
		t.Fatal("the route does not pause")
	}
	seed := maphash.MakeSeed()
	routed := &driver.Received{Topic: "in"}
	routed.ID = "id-0"
	reader.skip.Store((&skipSet{seed: seed, marks: map[uint64]int{mark(seed, routed): 1}}).until(5, 0))
	fly(t, b, 5)
	if err := b.conn.Flush(testContext(t)); err != nil { // they are received together
		t.Fatal(err)
	}
	resume()
	if err := b.Reload(testContext(t), configIn(t, dir, stuckTopics+"routes: [{name: r, from: in, to: more}]")); err != nil {
		t.Fatal(err)
	}
	for i, m := range receive(t, replay(t, b.conn, "more"), 4) {
		if m.ID != fmt.Sprint("id-", i+1) {
			t.Errorf("got %s, want id-%d: once and in order", m.ID, i+1)
		}
	}
}

// TestReloadOfSeveralStuckRoutes makes a reload wait for routes of three topics that do not
// go on: it waits for all of them at the same time.
func TestReloadOfSeveralStuckRoutes(t *testing.T) {
	dir := t.TempDir()
	b := start(t, configIn(t, dir, "routes: [{from: a, to: out}, {from: b, to: out}, {from: c, to: out}]"))
	var readers []*reader
	var begin []func()
	for _, from := range []string{"a", "b", "c"} {
		reader := b.routing.readers[readerKey{from, false}]
		resume, ok := reader.pause(testContext(t), patience)
		if !ok {
			t.Fatal("the route does not pause")
		}
		resume = sync.OnceFunc(resume)
		t.Cleanup(resume)
		readers, begin = append(readers, reader), append(begin, resume)
	}
	b.routing.patience = 2 * patience
	reloaded := make(chan error, 1)
	go func() {
		reloaded <- b.Reload(testContext(t), configIn(t, dir, "routes: [{from: a, to: out}, {from: b, to: out}]"))
	}()
	asked := func(reader *reader) bool {
		reader.mu.Lock()
		defer reader.mu.Unlock()
		return reader.pauseRequest != nil
	}
	for ctx := testContext(t); !asked(readers[0]) || !asked(readers[1]); awaitTick(t) {
		if ctx.Err() != nil {
			t.Fatal("not all routes are asked to pause at the same time")
		}
	}
	for _, resume := range begin {
		resume()
	}
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
}

// TestReloadOfSeveralStuckTopics takes out the declarations of three topics whose routes are
// stuck. The reload waits for all of them at the same time.
func TestReloadOfSeveralStuckTopics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const routes = "routes: [{from: in, to: full}, {from: more, to: full}, {from: third, to: full}]"
	const full = "{name: full, durability: memory}"
	b := start(t, configIn(t, dir, "topics: ["+full+", {name: in, durability: memory}, {name: more, durability: memory}, {name: third, durability: memory}]\n"+routes))
	fillUp(t, b)
	for _, name := range []string{"in", "more", "third"} {
		publishTo(t, storedTopic(t, b.conn, name), keyed(1, "", `{}`))
	}
	b.routing.patience = 2 * time.Second // a reload waits that long for what is stored, and again for what is in flight
	begun := time.Now()
	if err := b.Reload(testContext(t), configIn(t, dir, "topics: ["+full+"]\n"+routes)); err != nil {
		t.Fatal(err)
	}
	if took, most := time.Since(begun), 4*b.routing.patience; took > most {
		t.Errorf("the reload took %v, want at most %v", took, most)
	}
}

const stuckTopics = "topics: [{name: in, durability: memory}, {name: full, durability: memory}, {name: more, durability: memory}]\n"

// startStuck starts a broker with a route to a target that accepts nothing.
func startStuck(t *testing.T, dir, more string) *Broker {
	t.Helper()
	b := start(t, configIn(t, dir, stuckTopics+"routes: [{name: r, from: in, to: full}, "+more))
	fillUp(t, b)
	return b
}

// fillUp makes the topic full accept nothing.
func fillUp(t *testing.T, b *Broker) {
	t.Helper()
	js := jetStreamOf(t, connectTo(t, b.Addr().String()))
	info, err := js.StreamInfo("hark-topic-full")
	if err != nil {
		t.Fatal(err)
	}
	publishTo(t, storedTopic(t, b.conn, "full"), keyed(100, "", `{}`))
	full := info.Config
	full.MaxMsgs, full.Discard = 1, nats.DiscardNew
	if _, err := js.UpdateStream(&full); err != nil {
		t.Fatal(err)
	}
}

// fly publishes five messages for that route, and waits until so many are in flight.
func fly(t *testing.T, b *Broker, n uint64) {
	t.Helper()
	for i := range 5 {
		publishTo(t, storedTopic(t, b.conn, "in"), keyed(i, "", `{}`))
	}
	for {
		g, err := b.conn.GroupInfo(testContext(t), "in", routesGroup)
		if err != nil {
			t.Fatal(err)
		}
		if g.InFlight >= n {
			return
		}
		awaitTick(t)
	}
}

// TestReloadGivenUp reloads, and ends the context when the first topic has been created: it
// must be gone again.
func TestReloadGivenUp(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(testContext(t))
	b := startLogging(t, configIn(t, dir, ""), slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
		if bytes.Contains(line, []byte("topic created")) {
			cancel()
		}
		return len(line), nil
	}), nil)))
	if err := b.Reload(ctx, configIn(t, dir, "topics: [{name: fresh}, {name: second}]")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the reload given up", err)
	}
	if has, err := b.conn.HasTopic(testContext(t), "fresh"); has || err != nil {
		t.Errorf("a topic was made: %v", err)
	}
}

func TestReloadUsers(t *testing.T) {
	dir := t.TempDir()
	text := users(t)
	b := start(t, configIn(t, dir, text))
	dial(t, b, "bob:secret-bob@")
	if err := b.Reload(testContext(t), configIn(t, dir, strings.Replace(text, "name: bob", "name: eve", 1))); err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect("nats://bob:secret-bob@"+b.Addr().String(), nats.Timeout(patience)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("bob is let in: %v", err)
		nc.Close()
	}
	dial(t, b, "eve:secret-bob@")
}

// If the file is missing, perhaps because it is just being replaced, nothing changes.
func TestReloadWithoutTheFile(t *testing.T) {
	b := start(t, configIn(t, t.TempDir(), "topics: [{name: orders}]"))
	c, err := Load(Source{File: "-", Flags: map[string]string{"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "data": b.config.Load().Data}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(testContext(t), c); err == nil || !strings.Contains(err.Error(), "does not exist any more") {
		t.Errorf("got %v", err)
	}
	if !b.declares("orders") {
		t.Error("the topic is not declared any more")
	}
}

// TestRefusedReloadIsLogged asks for a reload over HTTP that changes nothing.
func TestRefusedReloadIsLogged(t *testing.T) {
	var log syncBuffer
	b := startLogging(t, config(t, ""), newTestLogger(&log))
	b.ReloadFrom(func() (*Config, error) { return nil, errors.New("line 3 is odd") })
	newAPI(t, b, "").refused(http.StatusUnprocessableEntity, "line 3 is odd", "reload", nil, nil)
	if got := log.String(); !strings.Contains(got, "the configuration was not reloaded, and nothing was changed") || !strings.Contains(got, "line 3 is odd") {
		t.Errorf("the log does not say so:\n%s", got)
	}
}
