package broker

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// countRouted adds up the counters of the first route of each broker.
func countRouted(bs ...*Broker) (total uint64, each []uint64) {
	for _, b := range bs {
		n := b.RouteStats()[0].Routed
		total, each = total+n, append(each, n)
	}
	return total, each
}

// keyOrder counts the received messages of each key.
type keyOrder map[string]int

// check fails if a message is not the next one of its key. Message i has ID id-i, and
// the key that every keys-th message has.
func (next keyOrder) check(t *testing.T, m *driver.Received, keys int) {
	t.Helper()
	var i int
	if _, err := fmt.Sscanf(m.ID, "id-%d", &i); err != nil {
		t.Fatal(err)
	}
	if want := next[m.Key]*keys + i%keys; i != want {
		t.Fatalf("key %s: got message %d, want %d", m.Key, i, want)
	}
	next[m.Key]++
}

// sharedWork has brokers share routes from stored and other topics. Each message must
// be routed once, and those of each key in order.
func sharedWork(t *testing.T, c *natsdriver.Conn, bs ...*Broker) {
	t.Helper()
	const stored, live, keys = 400, 400, 8
	routed, copied := listen(t, c, "routed"), listen(t, c, "copied")
	orders := storedTopic(t, c, "orders")
	for i := range stored {
		publishTo(t, orders, keyed(i, fmt.Sprint(i%keys), `{}`))
	}
	for i := range live {
		publish(t, c, "live.x", keyed(i, "", `{}`))
	}
	next := keyOrder{}
	for _, m := range receive(t, routed, stored) {
		next.check(t, m, keys)
	}
	seen := map[string]bool{}
	for _, m := range receive(t, copied, live) {
		if seen[m.ID] {
			t.Errorf("%s is routed twice", m.ID)
		}
		seen[m.ID] = true
	}
	nothing(t, routed, c, "routed")
	nothing(t, copied, c, "copied")
	total, each := countRouted(bs...)
	for ctx := testContext(t); total < stored && sleep(ctx, 5*time.Millisecond); { // they are counted afterwards
		total, each = countRouted(bs...)
	}
	if total != stored {
		t.Errorf("%v messages are routed, want %d", each, stored)
	}
	for i, n := range each {
		if n == 0 {
			t.Errorf("broker %d has done nothing: %v", i, each)
		}
	}
}

const sharedRoutes = `
topics: [{name: orders}]
routes: [{name: stored, from: orders, to: routed}, {name: live, from: live.>, to: copied}]
`

// startAll starts brokers at the same time.
func startAll(t *testing.T, texts ...string) []*Broker {
	t.Helper()
	bs, errs := make([]*Broker, len(texts)), make([]error, len(texts))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all sync.WaitGroup
	for i, text := range texts {
		dir := t.TempDir()
		c, err := Load(Source{File: write(t, fmt.Sprintf("http: 127.0.0.1:0\nlog: {level: warn}\nstop_timeout: 3s\n%s", strings.ReplaceAll(text, "DIR", dir)))})
		if err != nil {
			t.Fatal(err)
		}
		if bs[i], err = New(c, nil); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { errs[i] = bs[i].Start(ctx) })
	}
	all.Wait()
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, b := range bs {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = b.Stop(ctx) // the last ones have no majority any more, and give up
				if b.store != nil {
					_ = b.store.Close() // waits for what goes on in the background
				}
			})
		}
		all.Wait()
	})
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return bs
}

// TestBesideAnEngine runs two brokers beside one server.
func TestBesideAnEngine(t *testing.T) {
	s := start(t, config(t, ""))
	text := fmt.Sprintf("engine: nats://%s?sync=always\n%s", s.Addr(), sharedRoutes)
	bs := startAll(t, text, text)
	sharedWork(t, dial(t, s, ""), bs...)
	for _, b := range bs {
		if code, body := get(t, b, "/readyz"); code != 200 {
			t.Errorf("/readyz: got %d %v", code, body)
		}
		if summary := b.Summary(); b.Addr() != nil || !strings.Contains(summary, "engine") || !strings.Contains(summary, s.Addr().String()) {
			t.Errorf("got %s", summary)
		}
	}

	// One broker continues with the messages of the other, which gives up its
	// memberships when it stops.
	stop(t, bs[0])
	c := dial(t, s, "")
	routed := listen(t, c, "routed")
	for i := range 50 {
		publishTo(t, storedTopic(t, c, "orders"), keyed(1000+i, fmt.Sprint(i), `{}`))
	}
	receive(t, routed, 50)
}

// TestStrictBesideAnEngine declares a strict topic on an engine whose URL does not say
// that the servers sync.
func TestStrictBesideAnEngine(t *testing.T) {
	s := start(t, config(t, ""))
	c, err := Load(Source{File: write(t, fmt.Sprintf("engine: nats://%s\nhttp: 'off'", s.Addr()))})
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, c)
	made := *c
	made.Topics = []TopicConfig{{Name: "orders"}}
	if err := b.Reload(testContext(t), &made); err == nil || !strings.Contains(err.Error(), "sync=always") {
		t.Errorf("got %v, want one that says what to do", err)
	}
}

// TestCluster runs three brokers whose servers are a cluster, and with HARK_LONG=1
// stops one.
func TestCluster(t *testing.T) {
	t.Parallel()
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	texts := make([]string, 3)
	for i := range texts {
		texts[i] = fmt.Sprintf("name: hark-%d\nlisten: 127.0.0.1:0\ndata: DIR\ncluster: {listen: %s, routes: ['%s'], user: node, password: secret-node, replicas: 3}\n%s",
			i, addresses[i], strings.Join(addresses, ","), sharedRoutes)
	}
	bs := startAll(t, texts...)
	c := dial(t, bs[0], "")
	sharedWork(t, c, bs...)
	js, err := c.Client().JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo("hark-topic-orders")
	if err != nil || info.Config.Replicas != 3 || info.Cluster == nil || len(info.Cluster.Replicas) != 2 {
		t.Fatalf("got %+v, %v, want three replicas", info, err)
	}
	if strings.Contains(bs[0].Summary(), "secret-node") || !strings.Contains(bs[0].Summary(), addresses[0]) {
		t.Errorf("got %s", bs[0].Summary())
	}

	// A message that is published over HTTP at one broker reaches subscribers at
	// another, also if a client follows it there over HTTP.
	clicks := listen(t, c, "clicks")
	reached := make(chan error, 1)
	waiting := testContext(t)
	go func() {
		_, err := clicks.Receive(waiting, 1)
		reached <- err
	}()
	web := newWebClient(t, bs[1])
	web.follow("clicks/events")
	for heard := false; !heard; { // servers tell each other who listens
		web.post(http.StatusAccepted, "clicks", "1")
		select {
		case err := <-reached:
			if heard = true; err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}

	if long(0, 1) == 0 {
		return // finding another leader takes seconds
	}
	// Two go on without the third.
	stop(t, bs[2])
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a leader has to be found
	defer cancel()
	routed := listen(t, c, "routed")
	orders := storedTopic(t, c, "orders")
	for i := range 50 {
		if err := orders.Publish(ctx, []*driver.Message{keyed(1000+i, fmt.Sprint(i), `{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for got < 50 {
		ms, err := routed.Receive(ctx, 50)
		if err != nil {
			t.Fatalf("%v after %d messages", err, got)
		}
		got += len(ms)
	}
}

func TestClusterFaults(t *testing.T) {
	for text, want := range map[string]string{
		"engine: http://x":                                                          "engine: want nats://",
		"engine: nats://u:secret@x?nope=1":                                          "engine: parameter nope",
		"engine: nats://x\ndata: d":                                                 "data: configures the server in this process",
		"engine: nats://x\nlimits: {pending: 1GiB}":                                 "limits.pending: configures",
		"engine: nats://x\nlimits: {rate: 1}":                                       "limits.rate: configures",
		"cluster: {routes: ['127.0.0.1:1']}":                                        "cluster.routes: configures a cluster, which needs cluster.listen",
		"cluster: {listen: '127.0.0.1:1'}":                                          "name: each server of a cluster",
		"name: a\ncluster: {listen: '127.0.0.1:1', replicas: 6}":                    "cluster.replicas: must be",
		"name: a\ncluster: {listen: '127.0.0.1:1', routes: [x]}":                    `cluster.routes[0]: got "x"`,
		"name: a\ncluster: {listen: '127.0.0.1:1', user: u}":                        "cluster.user: cluster.user and cluster.password must be",
		"name: a\ncluster: {listen: '0.0.0.0:1'}":                                   "cluster.listen: other machines reach 0.0.0.0:1",
		"name: a\ncluster: {listen: '127.0.0.1:1', cert: none.pem}":                 "cluster.cert: needs cluster.key",
		"name: a\ncluster: {listen: '127.0.0.1:1', cert: n.pem, key: n, ca: n.pem}": "cluster.cert: open n.pem",
	} {
		_, err := Load(Source{File: write(t, text)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
