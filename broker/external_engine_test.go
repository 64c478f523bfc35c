package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// besideText is the configuration of a broker beside an existing server.
func besideText(server *Broker, lease, text string) string {
	return fmt.Sprintf("engine: 'nats://%s?sync=always&lease=%s'\nhttp: 127.0.0.1:0\nlog: {level: error}\n%s", server.Addr(), lease, text)
}

func startBeside(t *testing.T, server *Broker, text string) *Broker {
	t.Helper()
	return startBesideWith(t, server, "30s", text)
}

func startBesideWith(t *testing.T, server *Broker, lease, text string) *Broker {
	t.Helper()
	c, err := Load(Source{File: write(t, besideText(server, lease, text))})
	if err != nil {
		t.Fatal(err)
	}
	return start(t, c)
}

// TestKillOneOfSeveral kills one of the brokers that share a route, in the middle
// of its work. Nothing is lost or duplicated, and the messages of each key are in
// order.
func TestKillOneOfSeveral(t *testing.T) {
	t.Parallel()
	s := start(t, config(t, ""))
	file := write(t, besideText(s, "3s", "topics: [{name: orders}, {name: routed}]\nroutes: [{name: all, from: orders, to: routed}]"))
	first, second := startChild(t, file), startChild(t, file)
	c := dial(t, s, "")
	orders := storedTopic(t, c, "orders")
	const n, keys, killAt = 1200, 16, 500
	for i := range n {
		publishTo(t, orders, keyed(i, fmt.Sprint("k", i%keys), `{}`))
		if i == killAt {
			first.kill()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sub := replay(t, c, "routed")
	next := keyOrder{}
	for got := 0; got < n; {
		ms, err := sub.Receive(ctx, n)
		if err != nil {
			t.Fatalf("%v after %d of %d messages", err, got, n)
		}
		for _, m := range ms {
			next.check(t, m, keys)
		}
		got += len(ms)
	}
	if s := stats(t, storedTopic(t, c, "routed")); s.Stored != n {
		t.Errorf("got %d messages, want %d", s.Stored, n)
	}
	second.kill()
}

// TestWithoutServer asks a broker without a server for what only servers know.
func TestWithoutServer(t *testing.T) {
	s := start(t, config(t, ""))
	b := startBeside(t, s, "topics: [{name: orders}]")
	for _, tt := range []struct{ method, path string }{
		{http.MethodGet, "/v1/admin/connections"}, {http.MethodGet, "/v1/admin/connections/1"}, {http.MethodDelete, "/v1/admin/connections/1"}, {http.MethodGet, "/v1/admin/subscriptions"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+b.HTTPAddr().String()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(res.Body)
		_ = res.Body.Close()
		var said struct{ Detail string }
		if err := json.Unmarshal(body.Bytes(), &said); err != nil || res.StatusCode != http.StatusNotImplemented || said.Detail == "" {
			t.Errorf("%s %s: got %d %s, want 501 and why", tt.method, tt.path, res.StatusCode, body.String())
		}
	}
	if code, body := get(t, b, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: got %d %v", code, body)
	}
	if code, _ := get(t, b, "/v1/admin/topics/orders"); code != http.StatusOK {
		t.Errorf("a topic: got %d", code)
	}
}

// TestWebhookBesideAnEngine lets two brokers share a webhook. Starting the second
// one must not take messages in flight away from the first.
func TestWebhookBesideAnEngine(t *testing.T) {
	r := newReceiver(t)
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	r.reply(func(n int, _ http.ResponseWriter, _ *delivered) {
		if n == 1 {
			<-held
		}
	})
	s := start(t, config(t, "topics: [{name: orders}]"))
	text := r.webhook("from: orders\nworkers: 1")
	startBeside(t, s, text)
	orders := storedTopic(t, dial(t, s, ""), "orders")
	publishTo(t, orders, keyed(0, "", `{"n":0}`))
	seen := map[string]int{}
	note := func(d *delivered) { seen[d.header.Get("Hark-Seq")]++ }
	note(r.next()) // the first broker has it in flight
	startBeside(t, s, text)
	// Some messages reach the second broker. If the group had been reset, it would
	// get the first message again at once, before these.
	n := 1
	for ctx := testContext(t); len(seen) < 6; n++ {
		publishTo(t, orders, keyed(n, "", fmt.Sprintf(`{"n":%d}`, n)))
		select {
		case d := <-r.got:
			note(d)
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("got %v of %d messages", seen, n)
		}
	}
	release()
	for len(seen) < n {
		note(r.next())
	}
	for seq, times := range seen {
		if times != 1 {
			t.Errorf("message %s was delivered %d times", seq, times)
		}
	}
}

// TestWebhookOfOneOfSeveral removes a webhook from the configuration of one of two
// brokers that share it, while the other one is down. When that one is back it
// sends what is waiting.
func TestWebhookOfOneOfSeveral(t *testing.T) {
	r := newReceiver(t)
	const n = 50
	var open atomic.Bool
	taken := make(chan string, 10*n)
	r.reply(func(_ int, w http.ResponseWriter, d *delivered) {
		if !open.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		taken <- d.header.Get("Hark-Seq")
	})
	s := start(t, config(t, "topics: [{name: orders}]"))
	text := strings.Replace(r.webhook("from: orders\nworkers: 1\nattempts: 1000"), "backoff_max: 20ms", "backoff_max: 1s", 1)
	first := startBeside(t, s, text)
	orders := storedTopic(t, dial(t, s, ""), "orders")
	for i := range n {
		publishTo(t, orders, keyed(i, "", `{}`))
	}
	r.next()
	other := startBeside(t, s, text)
	stop(t, first)
	c, err := Load(Source{File: write(t, besideText(s, "30s", ""))})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Reload(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	open.Store(true)
	startBeside(t, s, text)
	ctx := testContext(t)
	for seen := map[string]bool{}; len(seen) < n; {
		select {
		case seq := <-taken:
			seen[seq] = true
		case <-r.got:
		case <-ctx.Done():
			t.Fatalf("%d of %d messages were taken", len(seen), n)
		}
	}
}

// TestDelayOverBroker delays messages from a native client and over HTTP.
func TestDelayOverBroker(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders}, {name: 'jobs.*'}]"))
	web := newWebClient(t, b)
	for _, topic := range []string{"orders", "jobs.a"} {
		native := storedTopic(t, dial(t, b, ""), topic)
		sub := replay(t, b.conn, topic)
		due := time.Now().Add(300 * time.Millisecond)
		publishTo(t, native, &driver.Message{ID: "late", Due: due.Add(time.Millisecond), Data: []byte(`"late"`)})
		web.post(202, topic+"?delay=300ms", `"web"`, "Content-Type: application/json")
		publishTo(t, native, &driver.Message{ID: "now", Data: []byte(`"now"`)})
		got := receive(t, sub, 3)
		if string(got[0].Data) != `"now"` || time.Now().Before(due) {
			t.Errorf("%s: got %s first, at %v before the others were due", topic, got[0].Data, time.Until(due))
		}
		late := map[string]bool{string(got[1].Data): true, string(got[2].Data): true}
		if !late[`"late"`] || !late[`"web"`] {
			t.Errorf("%s: got %v", topic, late)
		}
	}
}
