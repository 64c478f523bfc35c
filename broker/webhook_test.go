package broker

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

func init() {
	scenarios["webhooks"] = func(t *testing.T, a *api) {
		r := newReceiver(t)
		c := *a.broker.config.Load()
		c.Webhooks = load(t, r.webhook("from: webhooks.live")).Webhooks
		step, err := a.broker.webhooks.change(testContext(t), &c)
		if err != nil {
			t.Fatal(err)
		}
		step.finish(testContext(t))
		var all []webhookView
		a.want(http.StatusOK, "listWebhooks", nil, nil, &all)
		if len(all) != 1 || all[0].Name != "shop" || all[0].State != "on" {
			t.Errorf("got %+v", all)
		}
		var one webhookView
		if a.want(http.StatusOK, "disableWebhook", args{"name": "shop"}, nil, &one); one.State != "off" {
			t.Errorf("got %+v, want it off", one)
		}
		if a.want(http.StatusOK, "enableWebhook", args{"name": "shop"}, nil, &one); one.State != "on" {
			t.Errorf("got %+v, want it on", one)
		}
		a.refused(http.StatusNotFound, "no webhook", "enableWebhook", args{"name": "other"}, nil)
	}
}

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver is a server that webhooks send to.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	got    chan *delivered

	mu     sync.Mutex
	answer func(n int, w http.ResponseWriter, d *delivered) // to the n-th request; nil for 200
	n      int
}

// delivered is a request of a webhook.
type delivered struct {
	header http.Header
	body   []byte
	event  *cloudevents.Event
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, got: make(chan *delivered, 1000)}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // it was cut off
		}
		event, err := cloudevents.NewEventFromHTTPRequest(withBody(req, body))
		if err != nil {
			t.Errorf("a request that is no CloudEvent: %v %v", err, req.Header)
		}
		d := &delivered{req.Header, body, event}
		r.mu.Lock()
		r.n++
		n, answer := r.n, r.answer
		r.mu.Unlock()
		r.got <- d
		if answer != nil {
			answer(n, w, d)
		}
	}))
	t.Cleanup(r.server.Close)
	return r
}

func withBody(req *http.Request, body []byte) *http.Request {
	req.Body = io.NopCloser(strings.NewReader(string(body)))
	return req
}

// webhook returns a configuration with a webhook to the receiver.
func (r *receiver) webhook(more string) string {
	return fmt.Sprintf("webhooks:\n  - name: shop\n    url: %s/hook?token=t\n    secret: %s\n    private: true\n    backoff_min: 10ms\n    backoff_max: 20ms\n    %s\n",
		r.server.URL, testSecret, strings.ReplaceAll(more, "\n", "\n    "))
}

func (r *receiver) reply(f func(n int, w http.ResponseWriter, d *delivered)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *receiver) next() *delivered {
	r.t.Helper()
	select {
	case d := <-r.got:
		return d
	case <-testContext(r.t).Done():
		r.t.Fatal("nothing is delivered")
		return nil
	}
}

// TestSignature compares a signature with the example of Standard Webhooks.
func TestSignature(t *testing.T) {
	w, err := newWebhook(WebhookConfig{URL: "https://example.com", Secret: []string{testSecret, "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 24))}}, "/hark", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	w.sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	first, second, two := strings.Cut(h.Get("Webhook-Signature"), " ")
	if first != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || !two || !strings.HasPrefix(second, "v1,") || h.Get("Webhook-Timestamp") != "1614265330" {
		t.Errorf("got %v", h)
	}
}

func TestWebhook(t *testing.T) {
	r := newReceiver(t)
	b := start(t, config(t, "topics: [{name: orders, durability: relaxed}]\n"+r.webhook("from: orders\nwhere: type != \"skipped\"\nheader: \"Authorization: Bearer x\"")))
	web := newWebClient(t, b)
	web.post(201, "orders", `{"specversion":"1.0","id":"e 1","source":"/shop","type":"order.placed","subject":"ü","tenant":"eu","partitionkey":"ada","data":{"n":1}}`, "Content-Type: "+structuredType)
	web.post(201, "orders", `{"specversion":"1.0","id":"2","source":"/shop","type":"skipped","data":{"n":1}}`, "Content-Type: "+structuredType)
	web.post(201, "orders", "text \xff", "Content-Type: text/plain", "Hark-Header-Tenant: e u")

	one := r.next()
	e := one.event // the SDK does not decode what is percent-encoded
	if e.ID() != "e%201" || e.Source() != "/shop" || e.Type() != "order.placed" || e.Subject() != "%C3%BC" || e.Extensions()["tenant"] != "eu" || e.Extensions()["partitionkey"] != "ada" || string(one.body) != `{"n":1}` {
		t.Errorf("got %s", e)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Hark-Topic": "orders", "Hark-Seq": "1", "Hark-Attempt": "1", "Authorization": "Bearer x", "User-Agent": "hark"} {
		if got := one.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	verify(t, one)
	two := r.next()
	if two.header.Get("Content-Type") != "text/plain" || string(two.body) != "text \xff" || two.header.Get("Hark-Header-Tenant") != "e%20u" || two.header.Get("Hark-Seq") != "3" {
		t.Errorf("got %v %q", two.header, two.body)
	}
	verify(t, two)
}

// verify checks a signature in the way that a receiver does.
func verify(t *testing.T, d *delivered) {
	t.Helper()
	w := &webhook{}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(testSecret, secretPrefix))
	if err != nil {
		t.Fatal(err)
	}
	w.keys = [][]byte{key}
	var seconds int64
	if _, err := fmt.Sscan(d.header.Get("Webhook-Timestamp"), &seconds); err != nil || time.Since(time.Unix(seconds, 0)) > time.Minute {
		t.Errorf("got the time %q", d.header.Get("Webhook-Timestamp"))
	}
	h := http.Header{}
	w.sign(h, d.header.Get("Webhook-Id"), time.Unix(seconds, 0), d.body)
	if got := d.header.Get("Webhook-Signature"); got != h.Get("Webhook-Signature") {
		t.Errorf("got the signature %q, want %q", got, h.Get("Webhook-Signature"))
	}
}

// TestWebhookAnswers checks the outcome of messages for each kind of response.
func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	b := start(t, config(t, "topics: [{name: orders, durability: relaxed}]\n"+r.webhook("from: orders\nattempts: 3\ntimeout: 2s")))
	web := newWebClient(t, b)
	dead := func() *driver.Received {
		t.Helper()
		for has := false; !has; {
			var err error
			if has, err = b.conn.HasTopic(testContext(t), "orders.dead"); err != nil {
				t.Fatal(err)
			}
		}
		return newest(t, b, "orders.dead")
	}
	failure := func(m *driver.Received) (f hark.Failure) {
		t.Helper()
		if err := json.Unmarshal([]byte(m.Headers["hark-failure"]), &f); err != nil {
			t.Fatal(err)
		}
		return f
	}

	// 503 is tried again, with the same webhook-id, until it works.
	r.reply(func(n int, w http.ResponseWriter, _ *delivered) {
		if n <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	web.post(201, "orders", `{"n":1}`)
	var ids []string
	for i := range 3 {
		got := r.next()
		ids = append(ids, got.header.Get("Webhook-Id"))
		if want := fmt.Sprint(i + 1); got.header.Get("Hark-Attempt") != want {
			t.Errorf("got attempt %s, want %s", got.header.Get("Hark-Attempt"), want)
		}
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("got IDs %v of one message", ids)
	}

	// 422 says that it will never work: a dead letter at once.
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write([]byte("no \x00such\nfield"))
	})
	web.post(201, "orders", `{"n":2}`)
	r.next()
	m := dead()
	f := failure(m)
	if string(m.Data) != `{"n":2}` || m.ContentType != "application/json" || f.Attempts != 1 || f.Topic != "orders" || f.Seq != 2 || f.Subscription != "webhook-shop" ||
		!strings.Contains(f.Reason, "422 Unprocessable Entity: no such field") {
		t.Errorf("got %+v with %+v", m, f)
	}

	// A redirect is not followed, and 500 is tried three times.
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	web.post(201, "orders", `{"n":3}`)
	for range 3 {
		r.next()
	}
	for failure(dead()).Seq != 3 {
		awaitTick(t)
	}
	if f := failure(dead()); f.Attempts != 3 || !strings.Contains(f.Reason, "not followed") || elsewhere != 0 {
		t.Errorf("got %+v, and %d requests elsewhere", f, elsewhere)
	}

	// If a receiver does not answer in time, the request is repeated.
	hang := make(chan struct{})
	r.reply(func(n int, _ http.ResponseWriter, _ *delivered) {
		if n == 8 {
			<-hang
		}
	})
	began := time.Now()
	web.post(201, "orders", `{"n":4}`)
	r.next()
	r.next()
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it was asked again after %v, want after the timeout", took)
	}
	close(hang)

	// Retry-After is respected.
	r.reply(func(n int, w http.ResponseWriter, _ *delivered) {
		if n == 10 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	began = time.Now()
	web.post(201, "orders", `{"n":5}`)
	r.next()
	r.next()
	if took := time.Since(began); took < time.Second {
		t.Errorf("it was asked again after %v, want a second", took)
	}

	// 410 disables the webhook, and the message waits.
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusGone) })
	web.post(201, "orders", `{"n":6}`)
	r.next()
	hook := b.webhooks.named("shop")
	for hook.view().State != "off" {
		awaitTick(t)
	}
	r.reply(nil)
	web.post(201, "orders", `{"n":7}`)
	hook.enable()
	var after []string
	for range 2 {
		after = append(after, string(r.next().body))
	}
	if slices.Sort(after); !slices.Equal(after, []string{`{"n":6}`, `{"n":7}`}) {
		t.Errorf("got %v when it was switched on, want what waited", after)
	}
	if v := hook.view(); v.Dead != 2 || v.Dropped != 0 || v.Failed < 8 {
		t.Errorf("got %+v", v)
	}
}

// TestWebhookIsDurable stops the broker while a receiver is away: what was published
// meanwhile is sent by the next one, also what was under way.
func TestWebhookIsDurable(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	text := "topics: [{name: orders, durability: relaxed}]\n" + r.webhook("from: orders\nbackoff_max: 1s\nattempts: 100")
	text = strings.Replace(text, "    backoff_max: 20ms\n", "", 1)
	b := start(t, configIn(t, dir, text))
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusBadGateway) })
	web := newWebClient(t, b)
	web.numbers(201, "orders", 0, 5)
	r.next()
	stop(t, b)
	for len(r.got) > 0 {
		<-r.got
	}
	r.reply(nil)
	b = start(t, configIn(t, dir, text))
	newWebClient(t, b).numbers(201, "orders", 5, 2)
	seen := map[string]bool{}
	for len(seen) < 7 {
		seen[string(r.next().body)] = true
	}

	// Reloading starts and stops webhooks; one that is removed forgets its place.
	without := configIn(t, dir, "topics: [{name: orders, durability: relaxed}]")
	without.Listen, without.HTTP = b.config.Load().Listen, b.config.Load().HTTP
	if err := b.Reload(testContext(t), without); err != nil {
		t.Fatal(err)
	}
	newWebClient(t, b).numbers(201, "orders", 7, 1)
	with := configIn(t, dir, text)
	if err := b.Reload(testContext(t), with); err != nil {
		t.Fatal(err)
	}
	newWebClient(t, b).numbers(201, "orders", 8, 1)
	if got := r.next(); string(got.body) != `{"n":8}` {
		t.Errorf("got %s, want what was published since it is there again", got.body)
	}
}

// TestWebhookTargets checks which addresses webhooks may connect to.
func TestWebhookTargets(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.215.14": true, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": true,
		"127.0.0.1": false, "127.8.8.8": false, "0.0.0.0": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false, "::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false,
		"fc00::1": false, "fd12::1": false, "ff02::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	// A host name that resolves to this machine is detected when the connection is
	// made.
	r := newReceiver(t)
	w, err := newWebhook(WebhookConfig{Name: "x", URL: "https://localhost:1/", Secret: []string{testSecret}, Timeout: time.Second, Workers: 1}, "/hark", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.url.Scheme, w.url.Host = "http", strings.Replace(strings.TrimPrefix(r.server.URL, "http://"), "127.0.0.1", "localhost", 1)
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, w.url.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.client.Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "private: true") {
		t.Errorf("got %v, want it refused", err)
	}
}

func TestWebhookProblems(t *testing.T) {
	const whole = "name: a, from: orders, url: https://example.com/x, secret: " + testSecret
	for text, want := range map[string]string{
		"from: orders, url: https://example.com, secret: " + testSecret:    "webhooks[0].name: is missing",
		"name: a b, from: orders, url: https://x.com, secret: x":           "cannot be the name",
		"name: a, url: https://example.com, secret: " + testSecret:         "webhooks[0].from: is missing",
		"name: a, from: a..b, url: https://example.com":                    "empty token",
		"name: a, from: _INBOX.x, url: https://example.com":                "reserved for replies",
		"name: a, from: orders, secret: " + testSecret:                     "webhooks[0].url: is missing",
		"name: a, from: orders, url: \"ftp://x\"":                          "want https://HOST/PATH",
		"name: a, from: orders, url: \"http://example.com\"":               "http is not encrypted",
		"name: a, from: orders, url: \"https://10.0.0.1/\"":                "10.0.0.1 is on this machine or in a private network",
		"name: a, from: orders, url: \"https://u:p@example.com/\"":         "use the key header",
		"name: a, from: orders, url: https://example.com":                  "openssl rand",
		"name: a, from: orders, url: https://example.com, secret: whsec_x": "24 to 64 bytes",
		"name: a, from: orders, url: https://example.com, secret: file:/x": "no such file",
		whole + ", where: data.n ===":                                      "webhooks[0].where",
		whole + ", header: \"Webhook-Id: x\"":                              "is set by the broker",
		whole + ", header: nothing":                                        "want lines such as",
		whole + ", workers: 0":                                             "between 1 and 256",
		whole + ", attempts: 0":                                            "between 1 and 1000",
		whole + ", backoff_max: 1ms":                                       "at most backoff_max",
		whole + ", timeout: 1h":                                            "between 10ms and 5m",
		whole + ", dead_letter: orders":                                    "would be sent for ever",
		whole + ", position: end":                                          "want now or start",
		whole + ", position: start":                                        "webhooks[0].position: start is not possible: nothing stores orders: declare it under topics",
		whole + ", attempts: 1, backoff_max: 1s":                           "webhooks[0].backoff_max: sets the wait before the second attempt",
		whole + ", attempts: 1, backoff_min: 1s":                           "webhooks[0].backoff_min: sets the wait before the second attempt",
		whole + "}, {" + whole:                                             "two webhooks with the name a",
	} {
		c, err := Load(Source{File: write(t, "webhooks: [{"+text+"}]\n")})
		if err == nil {
			t.Errorf("%s: was taken: %+v", text, c.Webhooks)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// TestWebhookHeaders replaces a default header of the requests.
func TestWebhookHeaders(t *testing.T) {
	r := newReceiver(t)
	b := start(t, config(t, r.webhook("from: orders.>\nheader: 'user-agent: shop/1'\ndead_letter: orders.dead")))
	newWebClient(t, b).numbers(http.StatusAccepted, "orders.a", 0, 1)
	if got := r.next().header.Values("User-Agent"); !slices.Equal(got, []string{"shop/1"}) {
		t.Errorf("got the user agent %q", got)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{"0": 0, "120": 2 * time.Minute, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0, "": -1, "soon": -1, "-5": -1, "99999999999": -1} {
		got, ok := retryAfter(text, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, ok, want)
		}
	}
}

// The path and query of a webhook are often secret, and are not shown.
func TestWebhookSummary(t *testing.T) {
	w := WebhookConfig{Name: "chat", From: "orders", URL: "https://example.org/services/T1?sig=x"}
	if got, want := w.summary(), "chat: orders → https://example.org"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWebhookAnswersAreShort has a receiver answer with lines that are long and that
// terminals would obey.
func TestWebhookAnswersAreShort(t *testing.T) {
	r := newReceiver(t)
	b := start(t, config(t, "topics: [{name: orders, durability: relaxed}]\n"+r.webhook("from: orders\nattempts: 2")))
	d := newWebClient(t, b)
	long := "\x1b[2J\r\u202e" + strings.Repeat("x", 50_000)
	answers := []string{
		"HTTP/1.1 422 " + long + "\r\n\r\n",
		"HTTP/1.1 500 no\r\nContent-Length: 5\r\n\r\n\x1b[2J\r\n",
		"HTTP/1.1 " + long + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + long + "\r\n\r\n",
		"HTTP/1.1 308 moved\r\nLocation: " + long + "\r\n\r\n",
	}
	r.reply(func(_ int, w http.ResponseWriter, d *delivered) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if n, err := strconv.Atoi(d.header.Get("Hark-Seq")); err == nil {
			_, _ = io.WriteString(conn, answers[n-1]) // it may not read all of that
		}
	})
	for i := range answers {
		d.post(201, "orders", "{}")
		for b.webhooks.named("shop").view().Dead != uint64(i+1) {
			awaitTick(t)
		}
		m := newest(t, b, "orders.dead")
		var f hark.Failure
		if err := json.Unmarshal([]byte(m.Headers[failureHeader]), &f); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{f.Reason, b.webhooks.named("shop").view().LastError} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > maxReceiverError || text == "" {
				t.Errorf("answer %d: the error has %d bytes: %.100q", i, len(text), text)
			}
		}
	}
}

// TestWebhookGoneAtOnce adds a webhook whose receiver answers the first of the messages that
// are there with 410 Gone. Run it with -race.
func TestWebhookGoneAtOnce(t *testing.T) {
	r := newReceiver(t)
	r.reply(func(_ int, w http.ResponseWriter, _ *delivered) { w.WriteHeader(http.StatusGone) })
	dir := t.TempDir()
	const topics = "topics: [{name: orders, durability: memory}]\n"
	b := start(t, configIn(t, dir, topics))
	publishTo(t, storedTopic(t, b.conn, "orders"), keyed(0, "", "{}"))
	if err := b.Reload(testContext(t), configIn(t, dir, topics+r.webhook("from: orders\nposition: start"))); err != nil {
		t.Fatal(err)
	}
	for b.webhooks.named("shop").view().State != "off" {
		awaitTick(t)
	}
}

// FuzzWebhookAnswer reads any answer of a receiver.
func FuzzWebhookAnswer(f *testing.F) {
	f.Add(422, "Unprocessable\x1b[2J", "", []byte("no\r\nfield"))
	f.Add(429, "", "99999999999999999999", []byte("\xff\u202e"))
	f.Add(503, "", "Fri, 31 Dec 9999 23:59:59 GMT", []byte(nil))
	f.Add(308, "", "-1", []byte(" "))
	w := &webhook{log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, status int, text, after string, body []byte) {
		if status == http.StatusGone {
			return
		}
		err := w.verdict(&http.Response{StatusCode: status, Status: text, Header: http.Header{"Retry-After": {after}}}, body)
		if (err == nil) != (status >= 200 && status < 300) {
			t.Fatalf("%d is %v", status, err)
		}
		if err == nil {
			return
		}
		if line := (receiverError{err}).Error(); len(line) > maxReceiverError || !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the error is %q", line)
		}
		if d, ok := retryAfter(after, time.Now()); ok && d < 0 {
			t.Errorf("%q is %v", after, d)
		}
	})
}

// TestLargeMessagesForWebhook has a webhook of a topic that is not stored whose receiver
// does not answer while large messages come: those that wait are bounded in bytes, and the
// others are counted.
func TestLargeMessagesForWebhook(t *testing.T) {
	for _, from := range []string{"live", "live.*"} {
		t.Run(from, func(t *testing.T) {
			const size, n = 4 << 20, 2*liveSize>>22 + 8
			r := newReceiver(t)
			held := make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			t.Cleanup(release)
			r.reply(func(int, http.ResponseWriter, *delivered) { <-held })
			b := start(t, config(t, r.webhook("from: "+from+"\ntimeout: 1m")))
			c := dial(t, b, "")
			topic := strings.ReplaceAll(from, "*", "a")
			for range n {
				publish(t, c, topic, &driver.Message{Data: make([]byte, size)})
			}
			w := b.webhooks.named("shop")
			var v webhookView
			for ctx := testContext(t); v.Waiting+v.Dropped < n-1; awaitTick(t) { // one is in flight
				if v = w.view(); ctx.Err() != nil {
					t.Fatalf("got %+v", v)
				}
			}
			if most := uint64(2 * liveSize / size); v.Waiting > most || v.Dropped == 0 {
				t.Errorf("%d messages of %d bytes wait, want at most %d; %d were dropped", v.Waiting, size, most, v.Dropped)
			}
			release()
			for range 1 + v.Waiting {
				if d := r.next(); len(d.body) != size {
					t.Errorf("got %d bytes, want %d", len(d.body), size)
				}
			}
			publish(t, c, topic, &driver.Message{Data: []byte(`"end"`)})
			if d := r.next(); string(d.body) != `"end"` {
				t.Errorf("got %d bytes more, want what was published later", len(d.body))
			}
		})
	}
}
