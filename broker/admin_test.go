package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// adminScenarios call the endpoints of the admin API.
var adminScenarios = map[string]func(t *testing.T, a *api){
	"topics":        topicScenario,
	"stores":        storeScenario,
	"groups":        groupScenario,
	"connections":   connectionScenario,
	"subscriptions": subscriptionScenario,
	"routes":        routeScenario,
	"values":        valueScenario,
	"latches":       latchScenario,
	"broker":        brokerScenario,
	"dead letters":  deadScenario,
	"metrics":       metricsScenario,
}

// scenarioConfig is the configuration of the broker that TestEndpoints calls.
const scenarioConfig = `
topics: [{name: declared}, {name: "declared.>"}]
routes:
  - {name: europe, from: declared, where: data.n == 1, to: [region.eu], otherwise: region.rest}
  - {from: live.*, to: "copy.{topic}", sample: 50%}
`

func storeScenario(t *testing.T, a *api) {
	ctx := testContext(t)
	for _, pattern := range []string{"stored.*", "old.>"} {
		if _, err := a.broker.conn.OpenStore(ctx, natsdriver.StoreConfig{Pattern: pattern, StoredConfig: driver.StoredConfig{MaxAge: time.Hour}, MaxPerTopic: 5}); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, a.broker, "")
	for i := range 10 {
		publishTo(t, storedTopic(t, c, fmt.Sprint("stored.", i%2)), &driver.Message{Data: []byte(`{}`)})
	}
	publishTo(t, storedTopic(t, c, "stored.0"), &driver.Message{Data: []byte(`{}`)})
	if got := pages(a, "listStores", args{"limit": "1"}, func(v storeView) string {
		return fmt.Sprint(v.Topic, v.Topics, v.Messages, v.PerTopic, v.Age, v.Declared)
	}); !slices.Equal(got, []string{"declared.>0 0 0true", "old.>0 0 51hfalse", "stored.*2 10 51hfalse"}) {
		t.Errorf("got %q", got)
	}
	var topic topicView
	a.want(http.StatusOK, "getTopic", args{"topic": "stored.0"}, nil, &topic)
	if topic.Store != "stored.*" || topic.Messages != 5 || topic.First != 3 || topic.Last != 11 || topic.Age != "1h" {
		t.Errorf("got %+v", topic)
	}
	if got := pages(a, "listTopics", args{"pattern": "stored.*", "limit": "1"}, func(v topicView) string { return v.Topic }); !slices.Equal(got, []string{"stored.0", "stored.1"}) {
		t.Errorf("got %q", got)
	}
	store, err := openDeclared(ctx, a.broker.conn, "stored.*")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := store.Subscribe(ctx, driver.SubscribeConfig{Group: "everything", From: driver.FromStart, Window: 1})
	if err == nil {
		err = sub.Close(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := pages(a, "listGroups", args{"topic": "stored.*"}, func(v groupView) string { return v.Topic + " " + v.Group }); !slices.Equal(got, []string{"stored.* everything"}) {
		t.Errorf("got %q", got)
	}
	a.refused(http.StatusNotFound, "stored.>", "listGroups", args{"topic": "stored.>"}, nil)
	a.refused(http.StatusNotFound, "group everything", "getGroup", args{"topic": "stored.0", "group": "everything"}, nil)
	var seek groupView
	a.want(http.StatusOK, "getGroup", args{"topic": "stored.*", "group": "everything"}, nil, &seek)
	if seek.Waiting != 10 {
		t.Errorf("got %+v", seek)
	}
	var put topicPut
	a.want(http.StatusOK, "putTopic", args{"topic": "stored.0"}, nil, &put)
	if put.Change != "none" || put.Topic.Store != "stored.*" {
		t.Errorf("got %+v", put)
	}
	a.refused(http.StatusConflict, "together is 0, not 7", "putTopic", args{"topic": "stored.0", "alter": "true"}, topicLimits{Count: 7})
	a.refused(http.StatusNotFound, "", "getMessage", args{"topic": "stored.1", "seq": "11"}, nil)
	a.want(http.StatusNoContent, "deleteTopic", args{"topic": "stored.0"}, nil, nil)
	a.refused(http.StatusNotFound, "no messages and no groups in the store of stored.*", "deleteTopic", args{"topic": "stored.0"}, nil)
	a.want(http.StatusOK, "getTopic", args{"topic": "stored.1"}, nil, &topic)
	if topic.Messages != 5 {
		t.Errorf("got %+v", topic)
	}
	for _, pattern := range []string{"stored.*", "old.>"} {
		a.want(http.StatusNoContent, "deleteStore", args{"pattern": pattern}, nil, nil)
	}
	a.refused(http.StatusNotFound, "store stored.*", "deleteStore", args{"pattern": "stored.*"}, nil)
	a.refused(http.StatusConflict, "declared", "deleteStore", args{"pattern": "declared.>"}, nil)
}

func topicScenario(t *testing.T, a *api) {
	var put topicPut
	a.want(http.StatusOK, "putTopic", args{"topic": "shop.orders"}, topicLimits{Age: "7d", Count: 50, Durability: "relaxed"}, &put)
	if put.Change != "created" || put.Topic.Age != "7d" || put.Topic.MaxCount != 50 || put.Topic.Durability != "relaxed" || put.Topic.Dedup != "2m" {
		t.Errorf("got %+v", put)
	}
	a.want(http.StatusOK, "putTopic", args{"topic": "shop.orders"}, topicLimits{Age: "7d", Count: 50, Durability: "relaxed"}, &put)
	if put.Change != "none" {
		t.Errorf("got %+v, want it to be left as it is", put)
	}
	a.refused(http.StatusConflict, "topic shop.orders exists with other limits: age is 7d, not unlimited, count is 50, not 60; say alter", "putTopic", args{"topic": "shop.orders"}, topicLimits{Count: 60, Durability: "relaxed"})
	put = topicPut{}
	a.want(http.StatusOK, "putTopic", args{"topic": "shop.orders", "alter": "true"}, topicLimits{Count: 60, Durability: "relaxed"}, &put)
	if put.Change != "altered" || put.Topic.MaxCount != 60 || put.Topic.Age != "" {
		t.Errorf("got %+v", put)
	}
	a.refused(http.StatusConflict, "durability", "putTopic", args{"topic": "shop.orders", "alter": "true"}, topicLimits{Durability: "memory"})
	a.want(http.StatusOK, "putTopic", args{"topic": "shop.bare"}, nil, &put)
	if put.Topic.Durability != "strict" {
		t.Errorf("got %+v", put)
	}
	for _, tt := range []struct {
		limits any
		says   string
	}{
		{topicLimits{Age: "soon"}, "age: got"},
		{topicLimits{Bytes: "-1"}, "bytes: got"},
		{topicLimits{Durability: "hard"}, "durability: got"},
		{topicLimits{Count: -1}, "must not be negative"},
		{topicLimits{Age: "1m", Dedup: "2m"}, "longer"},
		{map[string]any{"cuont": 1}, "cuont"},
		{[]int{1}, "the body: "},
	} {
		a.refused(http.StatusBadRequest, tt.says, "putTopic", args{"topic": "x"}, tt.limits)
	}
	a.refused(http.StatusBadRequest, "wildcard", "putTopic", args{"topic": "shop.*"}, nil)

	c := dial(t, a.broker, "")
	for i := range 10 {
		publishTo(t, storedTopic(t, c, "shop.orders"), keyed(i, fmt.Sprint("k", i%3), fmt.Sprintf(`{"n":%d}`, i)))
	}
	var topic topicView
	a.want(http.StatusOK, "getTopic", args{"topic": "shop.orders"}, nil, &topic)
	if topic.Messages != 10 || topic.First != 1 || topic.Last != 10 || topic.FirstTime == nil || topic.Declared {
		t.Errorf("got %+v", topic)
	}
	a.refused(http.StatusNotFound, "topic none", "getTopic", args{"topic": "none"}, nil)
	const odd = "odd/na%41me.ä?&"
	a.want(http.StatusOK, "putTopic", args{"topic": odd}, nil, &put)
	a.want(http.StatusOK, "getTopic", args{"topic": odd}, nil, &topic)
	a.want(http.StatusNoContent, "deleteTopic", args{"topic": odd}, nil, nil)
	if put.Topic.Topic != odd || topic.Topic != odd {
		t.Errorf("got %s and %s, want %s", put.Topic.Topic, topic.Topic, odd)
	}
	names := pages(a, "listTopics", args{"pattern": "shop.*", "limit": "1"}, func(v topicView) string { return v.Topic })
	if !slices.Equal(slices.Sorted(slices.Values(names)), []string{"shop.bare", "shop.orders"}) {
		t.Errorf("got %v", names)
	}
	messageScenario(t, a)

	var gone purged
	a.refused(http.StatusBadRequest, "give one of them", "purgeTopic", args{"topic": "shop.orders", "before": "2", "keep": "1"}, nil)
	a.want(http.StatusOK, "purgeTopic", args{"topic": "shop.orders", "before": "3"}, nil, &gone)
	if gone.Removed != 2 {
		t.Errorf("got %+v", gone)
	}
	a.want(http.StatusOK, "purgeTopic", args{"topic": "shop.orders"}, nil, &gone)
	a.refused(http.StatusNotFound, "", "purgeTopic", args{"topic": "none"}, nil)
	for _, name := range []string{"shop.orders", "shop.bare"} {
		a.want(http.StatusNoContent, "deleteTopic", args{"topic": name}, nil, nil)
		a.refused(http.StatusNotFound, "", "deleteTopic", args{"topic": name}, nil)
	}
	a.refused(http.StatusConflict, "declared in the configuration", "deleteTopic", args{"topic": "declared"}, nil)
}

// pages reads all pages of a list.
func pages[T any](a *api, list string, given args, name func(T) string) (names []string) {
	a.t.Helper()
	for {
		var p page[T]
		a.want(http.StatusOK, list, given, nil, &p)
		for _, item := range p.Items {
			names = append(names, name(item))
		}
		if p.Next == "" {
			return names
		}
		given["after"] = p.Next
	}
}

// messageScenario tests with the ten messages of shop.orders.
func messageScenario(t *testing.T, a *api) {
	var m struct {
		Seq  uint64
		Data struct{ N int }
	}
	a.want(http.StatusOK, "getMessage", args{"topic": "shop.orders", "seq": "5"}, nil, &m)
	if m.Seq != 5 || m.Data.N != 4 {
		t.Errorf("got %+v", m)
	}
	a.refused(http.StatusNotFound, "message 11 of topic shop.orders", "getMessage", args{"topic": "shop.orders", "seq": "11"}, nil)
	seq := func(v struct{ Seq uint64 }) string { return uintText(v.Seq) }
	for _, tt := range []struct {
		given args
		want  string
	}{
		{args{"limit": "3"}, "1 2 3 4 5 6 7 8 9 10"},
		{args{"limit": "10"}, "1 2 3 4 5 6 7 8 9 10"},
		{args{"after": "7"}, "8 9 10"},
		{args{"after": "10"}, ""},
		{args{"after": "99"}, ""},
		{args{"where": "int(data.n) % 4 == 1"}, "2 6 10"},
		{args{"where": "int(data.n) % 4 == 1", "limit": "1"}, "2 6 10"},
		{args{"where": "data.none == 1"}, ""},
	} {
		tt.given["topic"] = "shop.orders"
		if got := strings.Join(pages(a, "listMessages", tt.given, seq), " "); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.given, got, tt.want)
		}
	}
	a.refused(http.StatusBadRequest, "after: got", "listMessages", args{"topic": "shop.orders", "after": "x"}, nil)
	a.refused(http.StatusBadRequest, "where: ", "listMessages", args{"topic": "shop.orders", "where": "data."}, nil)
	a.refused(http.StatusNotFound, "", "listMessages", args{"topic": "none"}, nil)
	a.want(http.StatusNoContent, "deleteMessage", args{"topic": "shop.orders", "seq": "10"}, nil, nil)
	a.refused(http.StatusNotFound, "", "deleteMessage", args{"topic": "shop.orders", "seq": "10"}, nil)
}

func groupScenario(t *testing.T, a *api) {
	c := dial(t, a.broker, "")
	a.want(http.StatusOK, "putTopic", args{"topic": "grouped"}, nil, nil)
	topic := storedTopic(t, c, "grouped")
	sub, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		publishTo(t, topic, keyed(i, "", "{}"))
	}
	if err := sub.Ack(testContext(t), receive(t, sub, 10)[:6]); err != nil {
		t.Fatal(err)
	}
	which := func(more ...string) args {
		given := args{"topic": "grouped", "group": "g"}
		for i := 0; i < len(more); i += 2 {
			given[more[i]] = more[i+1]
		}
		return given
	}
	var g groupView
	for a.want(http.StatusOK, "getGroup", which(), nil, &g); g.InFlight != 4; {
		a.want(http.StatusOK, "getGroup", which(), nil, &g)
	}
	if g.Waiting != 0 || g.Done != 6 || g.Oldest == nil {
		t.Errorf("got %+v", g)
	}
	if got := pages(a, "listGroups", args{"topic": "grouped"}, func(v groupView) string { return v.Group }); !slices.Equal(got, []string{"g"}) {
		t.Errorf("got %v", got)
	}
	g = groupView{}
	a.want(http.StatusOK, "pauseGroup", which("for", "1h"), nil, &g)
	if g.PausedUntil == nil || time.Until(*g.PausedUntil) > time.Hour {
		t.Errorf("got %+v", g)
	}
	a.want(http.StatusOK, "pauseGroup", which(), nil, &g)
	if time.Until(*g.PausedUntil) < 90*365*24*time.Hour {
		t.Errorf("got %+v", g)
	}
	g = groupView{}
	a.want(http.StatusOK, "resumeGroup", which(), nil, &g)
	if g.PausedUntil != nil {
		t.Errorf("got %+v", g)
	}
	a.want(http.StatusOK, "seekGroup", which("to", "seq", "seq", "8"), nil, &g)
	if got := receive(t, sub, 3); got[0].Seq != 8 {
		t.Errorf("got %d, want 8", got[0].Seq)
	}
	m, err := a.broker.conn.ReadMessage(testContext(t), "grouped", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range [][]string{{"to", "start"}, {"to", "now"}, {"to", "time", "time", m.Time.Format(time.RFC3339Nano)}} {
		a.want(http.StatusOK, "seekGroup", which(to...), nil, &g)
	}
	for _, wrong := range [][]string{{"to", "seq"}, {"seq", "3"}, {"to", "time"}, {"to", "time", "time", "soon"}, {"to", "end"}} {
		a.refused(http.StatusBadRequest, "", "seekGroup", which(wrong...), nil)
	}
	a.refused(http.StatusBadRequest, "to is missing: the new position: start, now, seq or time", "seekGroup", which(), nil)
	if err := sub.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	a.refused(http.StatusConflict, "belongs to the broker", "deleteGroup", args{"topic": "live.x", "group": routesGroup}, nil)
	a.want(http.StatusNoContent, "deleteGroup", which(), nil, nil)
	a.refused(http.StatusNotFound, "group g of topic grouped", "seekGroup", which("to", "now"), nil)
	for _, name := range []string{"deleteGroup", "getGroup", "pauseGroup", "resumeGroup"} {
		a.refused(http.StatusNotFound, "group g of topic grouped", name, which(), nil)
	}
	a.refused(http.StatusNotFound, "topic none", "listGroups", args{"topic": "none"}, nil)
	a.want(http.StatusNoContent, "deleteTopic", args{"topic": "grouped"}, nil, nil)
}

func connectionScenario(t *testing.T, a *api) {
	var ncs []*nats.Conn
	for range 5 {
		nc, err := nats.Connect("nats://"+a.broker.Addr().String(), nats.Name("mine"), nats.NoReconnect())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		ncs = append(ncs, nc)
	}
	if _, err := ncs[0].QueueSubscribeSync("some.topic", "g"); err != nil {
		t.Fatal(err)
	}
	if err := ncs[0].Flush(); err != nil {
		t.Fatal(err)
	}
	names := pages(a, "listConnections", args{"limit": "2"}, func(v connectionView) string { return v.Name })
	if n := len(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n != "mine" })); n != 5 || !slices.Contains(names, "hark broker") {
		t.Errorf("got %v", names)
	}
	if got := pages(a, "listConnections", args{"user": "nobody"}, func(v connectionView) string { return v.Name }); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	id, err := ncs[0].GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	var v connectionView
	a.want(http.StatusOK, "getConnection", args{"id": uintText(id)}, nil, &v)
	if v.Name != "mine" || len(v.List) != 1 || v.List[0].Pattern != "some.topic" || v.List[0].Group != "g" || !strings.HasPrefix(v.Address, "127.0.0.1:") || !strings.HasPrefix(v.Client, "go ") {
		t.Errorf("got %+v", v)
	}
	closed := make(chan struct{})
	ncs[0].SetClosedHandler(func(*nats.Conn) { close(closed) })
	a.want(http.StatusNoContent, "closeConnection", args{"id": uintText(id)}, nil, nil)
	select {
	case <-closed:
	case <-testContext(t).Done():
		t.Error("the client is still connected")
	}
	a.refused(http.StatusNotFound, "there is no connection", "getConnection", args{"id": uintText(id)}, nil)
	a.refused(http.StatusNotFound, "there is no connection", "closeConnection", args{"id": uintText(id)}, nil)
	own, err := a.broker.client.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	a.refused(http.StatusConflict, "the broker itself", "closeConnection", args{"id": uintText(own)}, nil)
}

func subscriptionScenario(t *testing.T, a *api) {
	nc, err := nats.Connect("nats://" + a.broker.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"heard.a", "heard.*", "heard.>", "heard.b", "$HARK.k.heard.*"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	pattern := func(v subscriptionView) string { return v.Pattern }
	if got := pages(a, "listSubscriptions", args{"topic": "heard.a", "limit": "1"}, pattern); !slices.Equal(got, []string{"heard.*", "heard.>", "heard.a"}) {
		t.Errorf("got %v", got)
	}
	if got := pages(a, "listSubscriptions", args{}, pattern); slices.Contains(got, "$HARK.k.heard.*") || !slices.Contains(got, "heard.b") {
		t.Errorf("got %v", got)
	}
	ofServer := func(pattern string) bool { return pattern == "declared" || strings.HasPrefix(pattern, "_R_.") }
	if got := pages(a, "listSubscriptions", args{}, pattern); slices.ContainsFunc(got, ofServer) {
		t.Errorf("got %v, want none of those with which the server stores", got)
	}
	if got := pages(a, "listSubscriptions", args{"all": "true"}, pattern); !slices.ContainsFunc(got, ofServer) {
		t.Errorf("got %v, want those with which the server stores too", got)
	}
	if got := pages(a, "listSubscriptions", args{"all": "true"}, pattern); !slices.Contains(got, "$HARK.k.heard.*") {
		t.Errorf("got %v", got)
	}
}

func routeScenario(t *testing.T, a *api) {
	c := dial(t, a.broker, "")
	out, rest := listen(t, c, "region.eu"), listen(t, c, "region.rest")
	in := storedTopic(t, c, "declared")
	publishTo(t, in, keyed(1, "", `{"n":1}`), keyed(2, "", `{"n":2}`))
	receive(t, out, 1)
	receive(t, rest, 1)
	var v routeView
	for a.want(http.StatusOK, "getRoute", args{"route": "europe"}, nil, &v); v.Routed != 2; { // the message is counted afterwards
		a.want(http.StatusOK, "getRoute", args{"route": "europe"}, nil, &v)
	}
	if v.Matched != 1 || v.Otherwise != 1 || v.From != "declared" || !v.Stored || v.Mode != "copy" {
		t.Errorf("got %+v", v)
	}
	if got := pages(a, "listRoutes", args{"limit": "1"}, func(v routeView) string { return v.Route }); !slices.Equal(got, []string{"europe", "2"}) {
		t.Errorf("got %v", got)
	}
	a.refused(http.StatusNotFound, "there is no route none", "getRoute", args{"route": "none"}, nil)
}

func valueScenario(t *testing.T, a *api) {
	var v valueView
	a.refused(http.StatusNotFound, "value config", "getValue", args{"name": "config"}, nil)
	a.refused(http.StatusNotFound, "value config", "setValue", args{"name": "config", "version": "3"}, 1)
	a.want(http.StatusOK, "setValue", args{"name": "config"}, map[string]int{"n": 1}, &v)
	first := v.Version
	if string(v.Data) != `{"n":1}` {
		t.Errorf("got %+v", v)
	}
	a.want(http.StatusOK, "setValue", args{"name": "config"}, map[string]int{"n": 1}, &v)
	if v.Version != first {
		t.Errorf("got version %d, want %d: nothing has changed", v.Version, first)
	}
	a.want(http.StatusOK, "setValue", args{"name": "config", "version": uintText(first)}, map[string]int{"n": 2}, &v)
	a.refused(http.StatusPreconditionFailed, fmt.Sprintf("version %d, not %d", v.Version, first), "setValue", args{"name": "config", "version": uintText(first)}, 3)
	a.want(http.StatusOK, "getValue", args{"name": "config"}, nil, &v)
	if got := pages(a, "listValues", args{"limit": "1"}, func(v valueView) string { return v.Name + string(v.Data) }); !slices.Equal(got, []string{`config{"n":2}`}) {
		t.Errorf("got %v", got)
	}
	if got := pages(a, "listValues", args{"pattern": "config.*"}, func(v valueView) string { return v.Name }); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	// Programs see the value.
	c := dial(t, a.broker, "")
	shared, err := c.OpenValue(testContext(t), "config", nil)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := shared.Load(testContext(t)); err != nil || string(state.Data) != `{"n":2}` {
		t.Errorf("got %+v, %v", state, err)
	}
	a.want(http.StatusOK, "setValue", args{"name": "config"}, json.RawMessage(`"text"`), &v)
}

func latchScenario(t *testing.T, a *api) {
	c := dial(t, a.broker, "")
	told := make(chan driver.Signal, 10)
	if err := c.Listen(testContext(t), func(s driver.Signal) int { told <- s; return 0 }); err != nil {
		t.Fatal(err)
	}
	heard := func(set bool) {
		t.Helper()
		select {
		case s := <-told:
			if s.Target != "ready" || s.Set != set {
				t.Errorf("got %+v, want set=%v", s, set)
			}
		case <-testContext(t).Done():
			t.Fatal("nobody was told")
		}
	}
	var v latchView
	a.want(http.StatusOK, "getLatch", args{"name": "ready"}, nil, &v)
	if v.Set || v.Changed != nil {
		t.Errorf("got %+v", v)
	}
	a.refused(http.StatusNotFound, "latch ready is not set", "clearLatch", args{"name": "ready"}, nil)
	a.want(http.StatusOK, "setLatch", args{"name": "ready"}, nil, &v)
	heard(true)
	a.want(http.StatusOK, "setLatch", args{"name": "ready"}, nil, &v)
	if got := pages(a, "listLatches", args{"pattern": "*"}, func(v latchView) string { return fmt.Sprint(v.Name, v.Set) }); !slices.Equal(got, []string{"readytrue"}) {
		t.Errorf("got %v", got)
	}
	a.want(http.StatusOK, "clearLatch", args{"name": "ready"}, nil, &v)
	if v.Set || v.Changed == nil {
		t.Errorf("got %+v", v)
	}
	heard(false)
}

func brokerScenario(t *testing.T, a *api) {
	var v brokerView
	a.want(http.StatusOK, "getBroker", nil, nil, &v)
	if v.Name != "hark" || v.Routes != 2 || !v.Ready || v.Messages != a.broker.Addr().String() || v.Started.IsZero() {
		t.Errorf("got %+v", v)
	}
	a.refused(http.StatusNotImplemented, "without a source", "reload", nil, nil)
	current := a.broker.config.Load()
	a.broker.ReloadFrom(func() (*Config, error) { return nil, errors.New("line 3 is odd") })
	a.refused(http.StatusUnprocessableEntity, "line 3 is odd; nothing was changed", "reload", nil, nil)
	a.broker.ReloadFrom(func() (*Config, error) { return current, nil })
	a.want(http.StatusNoContent, "reload", nil, nil, nil)
}

// TestListsShowWhatIsTheirs reads lists as a user who administers only a part.
func TestListsShowWhatIsTheirs(t *testing.T) {
	text := strings.Replace(users(t), "subscribe: region.*", "subscribe: region.*, admin: [orders.>]", 1)
	b := start(t, config(t, text))
	ada, bob := newAPI(t, b, basic("ada", "secret-ada")), newAPI(t, b, "Bearer secret-bob")
	for name, set := range map[string]func(name string) error{
		"latches": func(name string) error { return b.conn.SetLatch(testContext(t), name, true) },
		"values": func(name string) error {
			_, err := b.conn.OpenValue(testContext(t), name, []byte("1"))
			return err
		},
	} {
		if err := errors.Join(set("orders.x"), set("secret")); err != nil {
			t.Fatal(name, err)
		}
	}
	name := func(v struct{ Name, Topic string }) string { return v.Name + v.Topic }
	for list, want := range map[string]string{"listTopics": "orders.stored", "listValues": "orders.x", "listLatches": "orders.x"} {
		if got := pages(ada, list, args{}, name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %v, want %s", list, got, want)
		}
		if got := pages(bob, list, args{}, name); len(got) != 0 {
			t.Errorf("%s: got %v, want nothing for who administers nothing", list, got)
		}
	}
	ada.want(http.StatusOK, "getTopic", args{"topic": "orders.stored"}, nil, nil)
	ada.refused(http.StatusForbidden, "this needs permission to administer the topic", "getTopic", args{"topic": "secret"}, nil)
	for _, list := range []string{"listConnections", "listRoutes", "listSubscriptions", "getBroker", "reload"} {
		ada.refused(http.StatusForbidden, "administer `>`", list, nil, nil)
	}
	newAPI(t, b, "").refused(http.StatusUnauthorized, "has no credentials", "listTopics", nil, nil)
}
