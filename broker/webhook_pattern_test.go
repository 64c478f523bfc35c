package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

// drained forgets what the receiver has got.
func (r *receiver) drained() {
	for len(r.got) > 0 {
		<-r.got
	}
}

// bodies returns what comes next, n messages without repeats, as TOPIC BODY.
func (r *receiver) bodies(n int) []string {
	r.t.Helper()
	seen := map[string]bool{}
	var all []string
	for len(all) < n {
		d := r.next()
		if text := d.header.Get("Hark-Topic") + " " + string(d.body); !seen[text] {
			seen[text] = true
			all = append(all, text)
		}
	}
	return all
}

// A webhook from a pattern within a store keeps its position across restarts, starts at
// the configured position, and loses its position when it is removed.
func TestWebhookFromPattern(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	const topics = "topics: [{name: 'orders.>', durability: relaxed}]\n"
	text := topics + strings.Replace(r.webhook("from: orders.eu.*\nattempts: 1000\ndurable: true\nposition: start\nbackoff_max: 1s"), "    backoff_max: 20ms\n", "", 1)

	b := start(t, configIn(t, dir, topics))
	web := newWebClient(t, b)
	web.numbers(201, "orders.eu.a", 0, 2)
	web.numbers(201, "orders.us.a", 0, 1)
	stop(t, b)
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusBadGateway) })
	b = start(t, configIn(t, dir, text))
	newWebClient(t, b).numbers(201, "orders.eu.b", 0, 2)
	r.next()
	stop(t, b)
	r.drained()

	r.reply(nil)
	b = start(t, configIn(t, dir, text))
	newWebClient(t, b).numbers(201, "orders.eu.c", 0, 1)
	want := []string{`orders.eu.a {"n":0}`, `orders.eu.a {"n":1}`, `orders.eu.b {"n":0}`, `orders.eu.b {"n":1}`, `orders.eu.c {"n":0}`}
	if got := r.bodies(5); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if w := b.webhooks.all[0].view(); !w.Durable {
		t.Errorf("got %+v, want it durable", w)
	}
	all, err := b.conn.StoreGroups(testContext(t), "orders.>")
	if err != nil || len(all) != 1 || all[0].Topic != "orders.eu.*" || all[0].Name != "webhook-shop" {
		t.Errorf("got the groups %+v, %v", all, err)
	}

	reload := func(text string) {
		t.Helper()
		c := configIn(t, dir, text)
		c.Listen, c.HTTP = b.config.Load().Listen, b.config.Load().HTTP
		if err := b.Reload(testContext(t), c); err != nil {
			t.Fatal(err)
		}
	}
	reload(topics)
	if all, err := b.conn.StoreGroups(testContext(t), "orders.>"); err != nil || len(all) != 0 {
		t.Errorf("got the groups %+v, %v, want the place of a former webhook forgotten", all, err)
	}
	newWebClient(t, b).numbers(201, "orders.eu.a", 2, 1)
	reload(strings.Replace(text, "position: start", "position: now", 1))
	newWebClient(t, b).numbers(201, "orders.eu.a", 3, 1)
	if got := r.bodies(1)[0]; got != `orders.eu.a {"n":3}` {
		t.Errorf("got %s, want what was published since it is there again", got)
	}
}

// A webhook whose topics become stored is durable from then on.
func TestWebhookBecomesDurable(t *testing.T) {
	for from, topic := range map[string]string{"orders.*": "orders.a", "invoices": "invoices"} {
		t.Run(from, func(t *testing.T) {
			r := newReceiver(t)
			text := r.webhook("from: '" + from + "'\nattempts: 1000")
			dir := t.TempDir()
			b := start(t, configIn(t, dir, text))
			newWebClient(t, b).numbers(202, topic, 0, 1)
			if got := r.bodies(1)[0]; got != topic+` {"n":0}` || b.webhooks.all[0].view().Durable {
				t.Errorf("got %s, durable: %v", got, b.webhooks.all[0].view().Durable)
			}
			text = "topics: [{name: '" + from + "', durability: relaxed}]\n" + text
			c := configIn(t, dir, text)
			c.Listen, c.HTTP = b.config.Load().Listen, b.config.Load().HTTP
			if err := b.Reload(testContext(t), c); err != nil {
				t.Fatal(err)
			}
			if !b.webhooks.all[0].view().Durable {
				t.Error("it is not durable after its topics are stored")
			}
			r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusBadGateway) })
			for n := range 2 {
				publishTo(t, storedTopic(t, b.conn, topic), &driver.Message{Data: fmt.Appendf(nil, `{"n":%d}`, n+1)})
			}
			r.next()
			stop(t, b)
			r.drained()
			r.reply(nil)
			start(t, configIn(t, dir, text))
			want := []string{topic + ` {"n":1}`, topic + ` {"n":2}`}
			if got := r.bodies(2); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// The dead letters of a webhook from a pattern go to one topic, however many topics
// match, and are not sent from there.
func TestDeadLettersOfPattern(t *testing.T) {
	for from, topics := range map[string][]string{
		"clicks.*":  {"clicks.a", "clicks.b"},
		"*.dead":    {"a.dead", "b.dead"}, // the topic for dead letters matches
		"stored.*":  {"stored.a", "stored.b"},
		"stored.>":  {"stored.a", "stored.a.b"},
		"someone.>": {"someone.a", "someone.a.b"},
	} {
		t.Run(from, func(t *testing.T) {
			r := newReceiver(t)
			r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusUnprocessableEntity) })
			text := r.webhook("from: '" + from + "'")
			status := http.StatusAccepted
			if strings.HasPrefix(from, "stored.") {
				text, status = "topics: [{name: '"+from+"', durability: relaxed}]\n"+text, http.StatusCreated
			}
			b := start(t, config(t, text))
			web := newWebClient(t, b)
			for _, topic := range topics {
				web.numbers(status, topic, 0, 1)
			}
			awaitDead(t, b, "webhook-shop.dead", 2)
			a := newAPI(t, b, "")
			if got := pages(a, "listDead", nil, func(v deadTopicView) string { return v.Topic }); !slices.Equal(got, []string{"webhook-shop.dead"}) {
				t.Errorf("got the topics %v for dead letters, want one", got)
			}
			got := pages(a, "listDeadMessages", args{"topic": "webhook-shop.dead"}, func(v deadView) string { return v.From })
			if slices.Sort(got); !slices.Equal(got, topics) {
				t.Errorf("got dead letters from %v, want %v", got, topics)
			}
			web.numbers(status, topics[0], 1, 1)
			want := []string{topics[0] + ` {"n":0}`, topics[0] + ` {"n":1}`, topics[1] + ` {"n":0}`}
			if got := r.bodies(3); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
				t.Errorf("got %q, want %q: nothing that was given up", got, want)
			}
		})
	}
}

// A webhook that must be durable, and whose messages are not all stored, is refused
// with the position in the file.
func TestDurableIsRefused(t *testing.T) {
	const topics = "topics: [{name: 'orders.>'}, {name: 'in.*'}, {name: named}]\n"
	for text, want := range map[string]string{
		"from: 'bills.>', durable: true":    "nothing stores bills.>",
		"from: bills, durable: true":        "nothing stores bills: declare it under topics",
		"from: '*.a', durable: true":        "*.a is stored in part only, by orders.>, in.*",
		"from: '>', durable: true":          "> is stored in part only, by orders.>, in.*, named",
		"from: 'in.>', durable: true":       "in.> is stored in part only, by in.*",
		"from: 'orders.>', durable: true":   "",
		"from: 'orders.*.a', durable: true": "",
		"from: named, durable: true":        "",
		"from: '*.a'":                       "",
	} {
		for kind, rest := range map[string]string{
			"routes":   "to: out",
			"webhooks": "name: a, url: https://example.com/x, secret: " + testSecret,
		} {
			_, err := Load(Source{File: write(t, topics+kind+": [{"+rest+", "+text+"}]\n")})
			if want == "" {
				if err != nil {
					t.Errorf("%s: %s: %v", kind, text, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), kind+"[0].durable") || !strings.Contains(err.Error(), ":2:") {
				t.Errorf("%s: %s:\ngot  %v\nwant line 2, %s[0].durable: %s", kind, text, err, kind, want)
			}
		}
	}
}

// TestWebhookFromPatternIsKilled kills the broker at random moments while it sends what
// matches a pattern: the receiver gets everything, in the order of each topic.
// HARK_LONG=1 kills it 50 times.
func TestWebhookFromPatternIsKilled(t *testing.T) {
	rounds := long(3, 50)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds)*patience)
	defer cancel()
	r := newReceiver(t)
	file := childConfig(t, "topics: [{name: 'orders.>'}]\n"+r.webhook("from: orders.eu.*\nposition: start\ntimeout: 1m\nattempts: 1000\ndurable: true"))
	names := []string{"orders.eu.a", "orders.eu.b"}

	next, sent, requests := map[string]int{}, 0, 0
	ids := map[string]string{} // of messages, by webhook-id
	// How many more may be published than have been sent.
	const ahead = 200
	credit := make(chan struct{}, 1<<16)
	for range ahead {
		credit <- struct{}{}
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			var d *delivered
			select {
			case d = <-r.got:
			case <-ctx.Done():
				t.Fatalf("never came true: %s; %v", what, next)
			}
			topic, n := d.header.Get("Hark-Topic"), 0
			if _, err := fmt.Sscanf(string(d.body), `{"n":%d}`, &n); err != nil || n > next[topic] {
				t.Fatalf("got %q of %s, want at most %d", d.body, topic, next[topic])
			}
			id, text := d.header.Get("Webhook-Id"), fmt.Sprint(topic, n)
			if was, ok := ids[id]; ok && was != text {
				t.Errorf("%s and %s have the ID %s", was, text, id)
			}
			ids[id] = text
			if requests++; n == next[topic] {
				next[topic]++
				sent++
				credit <- struct{}{}
			}
		}
	}

	b := startChild(t, file)
	stop, published, errs := make(chan struct{}), make([]int, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		c := b.connect(ctx, t, "?sync=always")
		topic, err := c.OpenTopic(ctx, driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true, Dedup: 2 * time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			published[i], errs[i] = publishUntil(ctx, stop, topic, i, func() {
				select {
				case <-credit:
				case <-stop:
				case <-ctx.Done():
				}
			})
		})
	}
	for range rounds {
		enough := sent + 20 + rand.N(100)
		until("some more have been sent", func() bool { return sent >= enough })
		b.kill()
		b = startChild(t, file)
	}
	close(stop)
	all.Wait()
	total := 0
	for i, name := range names {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		total += published[i]
		until("all of "+name+" have been sent", func() bool { return next[name] >= published[i] })
	}
	t.Logf("%d messages in %d requests over %d kills", total, requests, rounds)
}
