package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// simple is an endpoint that only answers.
func simple(method string) endpoint {
	return endpoint{method: method, path: "/x", access: anybody, handle: func(c *call) error { return c.reply(nil) }}
}

// TestHostIsChecked sends requests with host names that a page could point here
// (DNS rebinding).
func TestHostIsChecked(t *testing.T) {
	plain := webOf(t, io.Discard, "", simple("GET"))
	named := webOf(t, io.Discard, "web: {hosts: [broker.example, other.example]}", simple("GET"))
	for _, tt := range []struct {
		host         string
		plain, named int
	}{
		{"127.0.0.1:7480", 200, 200},
		{"localhost:7480", 200, 200},
		{"LOCALHOST", 200, 200},
		{"[::1]:7480", 200, 200},
		{"10.1.2.3", 200, 200},
		{"evil.example", 421, 421},
		{"evil.example:7480", 421, 421},
		{"localhost.evil.example", 421, 421},
		{"127.0.0.1.evil.example", 421, 421},
		{"", 421, 421},
		{"broker.example:7480", 421, 200},
		{"Broker.Example.", 421, 200},
		{"x.broker.example", 421, 421},
	} {
		for i, h := range []http.Handler{plain, named} {
			r := httptest.NewRequest("GET", "/x", nil)
			r.Host = tt.host
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if want := []int{tt.plain, tt.named}[i]; rec.Code != want {
				t.Errorf("%q, configuration %d: got %d, want %d", tt.host, i, rec.Code, want)
			}
		}
	}
}

// TestForeignPages sends requests as pages of other sites do: with forms, scripts,
// and for WebSockets.
func TestForeignPages(t *testing.T) {
	plain := webOf(t, io.Discard, "", simple("GET"), simple("POST"))
	open := webOf(t, io.Discard, "web: {origins: [https://app.example]}", simple("GET"), simple("POST"))
	for _, tt := range []struct {
		name, method string
		headers      map[string]string
		plain, open  int
	}{
		{"no browser", "POST", nil, 200, 200},
		{"its own page", "POST", map[string]string{"Origin": "http://127.0.0.1:7480"}, 200, 200},
		{"another port", "POST", map[string]string{"Origin": "http://127.0.0.1:80"}, 403, 403},
		{"another scheme", "POST", map[string]string{"Origin": "https://127.0.0.1:7480"}, 403, 403},
		{"another site", "POST", map[string]string{"Origin": "https://evil.example"}, 403, 403},
		{"a file", "POST", map[string]string{"Origin": "null"}, 403, 403},
		{"an application", "POST", map[string]string{"Origin": "https://app.example"}, 403, 200},
		{"an application, asking first", "OPTIONS", map[string]string{"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}, 403, 204},
		{"another site, asking first", "OPTIONS", map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, 403, 403},
		{"a WebSocket of another site", "GET", map[string]string{"Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket"}, 403, 403},
		{"a WebSocket of its own", "GET", map[string]string{"Origin": "http://127.0.0.1:7480", "Connection": "Upgrade", "Upgrade": "websocket"}, 200, 200},
		{"an image", "GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403, 403},
		{"a link", "GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200, 200},
		{"a form that says no origin", "POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403, 403},
	} {
		for i, h := range []http.Handler{plain, open} {
			r := httptest.NewRequest(tt.method, "/x", nil)
			r.Host = "127.0.0.1:7480"
			for name, value := range tt.headers {
				r.Header.Set(name, value)
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if want := []int{tt.plain, tt.open}[i]; rec.Code != want {
				t.Errorf("%s, configuration %d: got %d, want %d", tt.name, i, rec.Code, want)
			}
			shared := rec.Header().Get("Access-Control-Allow-Origin")
			if rec.Code >= 400 && shared != "" || rec.Code < 400 && shared != tt.headers["Origin"] {
				t.Errorf("%s, configuration %d: the answer is shared with %q", tt.name, i, shared)
			}
		}
	}
}

func TestRequestsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(10)
		for _, who := range []string{"a", "b"} {
			for i := range 10 {
				if _, ok := r.take(who); !ok {
					t.Fatalf("request %d of %s is too many", i, who)
				}
			}
			if wait, ok := r.take(who); ok || wait != 100*time.Millisecond {
				t.Errorf("%s: got %v, %v, want one that is too many for 100ms", who, wait, ok)
			}
		}
		<-time.After(300 * time.Millisecond) // in the bubble's time
		for i := range 4 {
			if _, ok := r.take("a"); ok != (i < 3) {
				t.Errorf("request %d after 300ms: got %v", i, ok)
			}
		}
		for i := range 2 * maxBuckets {
			r.take(fmt.Sprint(i))
		}
		if len(r.buckets) > maxBuckets {
			t.Errorf("%d senders are remembered", len(r.buckets))
		}
	})
	h := webOf(t, io.Discard, "limits: {http_rate: 2}", simple("GET"))
	for i, want := range []int{200, 200, 429} {
		rec, why := ask(h, "GET", "/x", "", "")
		if rec.Code != want || want == 429 && (rec.Header().Get("Retry-After") != "1" || !strings.Contains(why.Hint, "limits.http_rate")) {
			t.Errorf("request %d: got %d %+v, want %d", i, rec.Code, why, want)
		}
	}
}

// TestHeadersOfStreams begins to follow a topic with many header fields, which are not
// kept, and with too many.
func TestHeadersOfStreams(t *testing.T) {
	b := start(t, config(t, ""))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/topics/orders/events", nil)
	for i := range maxFields {
		r.Header.Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 500))
	}
	w := &beginning{header: http.Header{}, begun: make(chan int, 1)}
	ended := make(chan struct{})
	go func() {
		b.web.handler().ServeHTTP(w, r)
		close(ended)
	}()
	if status := <-w.begun; status != http.StatusOK || len(r.Header) > 0 {
		t.Errorf("got %d, and %d fields are kept", status, len(r.Header))
	}
	cancel()
	<-ended

	r = httptest.NewRequestWithContext(testContext(t), http.MethodGet, "http://localhost/healthz", nil)
	for i := range maxFields + 1 {
		r.Header.Set(fmt.Sprintf("X-%d", i), "")
	}
	rec := httptest.NewRecorder()
	if b.web.handler().ServeHTTP(rec, r); rec.Code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("too many fields: got %d", rec.Code)
	}
}

// beginning is an http.ResponseWriter that says when an answer begins.
type beginning struct {
	header http.Header
	begun  chan int // the status
}

// Header implements http.ResponseWriter.
func (w *beginning) Header() http.Header { return w.header }

// Write implements http.ResponseWriter.
func (w *beginning) Write(text []byte) (int, error) { return len(text), nil }

// WriteHeader implements http.ResponseWriter.
func (w *beginning) WriteHeader(status int) { w.begun <- status }

// SetWriteDeadline is for http.ResponseController.
func (w *beginning) SetWriteDeadline(time.Time) error { return nil }

// Flush is for http.ResponseController.
func (w *beginning) Flush() {}

func TestConnectionsAreLimited(t *testing.T) {
	b := start(t, config(t, "limits: {connections: 3, http_connections: 2}"))
	// The broker itself has one of the three connections.
	for range 2 {
		nc, err := nats.Connect("nats://" + b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	if nc, err := nats.Connect("nats://" + b.Addr().String()); err == nil {
		t.Error("a connection too many was let in")
		nc.Close()
	}

	// Over HTTP further connections wait until there is room.
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", b.HTTPAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	answered := func(conn net.Conn, wait time.Duration) error {
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		_, err := bufio.NewReader(conn).ReadString('\n')
		return err
	}
	for _, conn := range conns[:2] {
		if err := answered(conn, patience); err != nil {
			t.Fatal(err)
		}
	}
	if err := answered(conns[2], 50*time.Millisecond); !isTimeout(err) {
		t.Errorf("the connection that is too many: got %v, want it to wait", err)
	}
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := answered(conns[2], patience); err != nil {
		t.Errorf("the connection that waited: %v", err)
	}
}

func TestSubscriptionsAreLimited(t *testing.T) {
	b := start(t, config(t, "limits: {subscriptions: 40}"))
	failed := make(chan error, 10)
	nc, err := nats.Connect("nats://"+b.Addr().String(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { failed <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for i := range 41 {
		if _, err := nc.SubscribeSync(fmt.Sprintf("s.%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-failed:
		if !strings.Contains(err.Error(), "maximum subscriptions exceeded") {
			t.Errorf("got %v", err)
		}
	case <-testContext(t).Done():
		t.Fatal("no subscription was too many")
	}
}

// TestTooManySubscriptions subscribes to more than the server accepts. Whoever is
// refused hears so: programs, routes that are loaded, and clients over HTTP, for all of
// which the broker has one connection.
func TestTooManySubscriptions(t *testing.T) {
	b := start(t, config(t, "limits: {subscriptions: 40}"))
	conn := dial(t, b, "")
	type heard struct {
		topic driver.Topic
		sub   driver.Subscription
	}
	subscribe := func(i int) (h heard, err error) {
		if h.topic, err = conn.OpenTopic(testContext(t), driver.TopicConfig{Name: fmt.Sprintf("s.%d", i)}); err != nil {
			t.Fatal(err)
		}
		h.sub, err = h.topic.Subscribe(testContext(t), driver.SubscribeConfig{Window: 1})
		return h, err
	}
	var all []heard
	fill := func() {
		t.Helper()
		for refused := 0; refused < 3; { // each hears so
			h, err := subscribe(len(all))
			switch {
			case errors.Is(err, natsdriver.ErrTooManySubscriptions):
				refused++
			case err != nil || len(all) > 40 || refused > 0:
				t.Fatalf("got %v after %d subscriptions and %d that were refused", err, len(all), refused)
			default:
				all = append(all, h)
			}
		}
		for _, h := range all {
			publishTo(t, h.topic, &driver.Message{})
			receive(t, h.sub, 1)
		}
	}
	fill()
	first := len(all)
	for _, h := range all[first-3:] {
		if err := h.sub.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	all = all[:first-3]
	if fill(); len(all) != first {
		t.Errorf("%d subscriptions, %d before some were closed", len(all), first)
	}

	var routes strings.Builder
	routes.WriteString("limits: {subscriptions: 40}\nroutes:\n")
	for i := range 40 {
		fmt.Fprintf(&routes, "  - {from: from%d, to: to%d}\n", i, i)
	}
	late, err := New(config(t, routes.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Start(testContext(t)); !errors.Is(err, natsdriver.ErrTooManySubscriptions) {
		t.Errorf("got %v, want a broker that does not start without its routes", err)
	}
	stop(t, late)
	web := newWebClient(t, b)
	for i := 0; ; i++ {
		res, err := web.do(testContext(t), http.MethodGet, fmt.Sprintf("/v1/topics/f%d/events", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			break
		}
		if res.StatusCode != http.StatusOK || i > 40 {
			t.Fatalf("got %s for number %d", res.Status, i)
		}
	}
}

// TestSlowRequests sends requests that never end, which must be cut off.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	b := start(t, config(t, ""))
	var conns []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", b.HTTPAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: loc"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Error("a request that does not end is waited for")
		}
	}
	if code, _ := get(t, b, "/healthz"); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

// TestSecretsAreNotLogged makes clients fail in every way, at the most verbose log
// level.
func TestSecretsAreNotLogged(t *testing.T) {
	c := config(t, users(t))
	var log syncBuffer
	b, err := New(c, newTestLogger(&log))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	const wrong = "wrong-password"
	for _, who := range []string{"ada:" + wrong, "nobody:" + wrong, "bob:secret-bob", "ada:secret-ada"} {
		if nc, err := nats.Connect("nats://" + who + "@" + b.Addr().String()); err == nil {
			nc.Close()
		}
	}
	for _, secret := range []string{wrong, "secret-bob"} {
		r, err := http.NewRequestWithContext(testContext(t), "GET", "http://"+b.HTTPAddr().String()+"/v1/admin/connections", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || bytes.Contains(body, []byte(secret)) || res.StatusCode < 400 {
			t.Errorf("%d %s, %v", res.StatusCode, body, err)
		}
		_ = res.Body.Close()
	}
	stop(t, b)
	for _, secret := range []string{wrong, "secret-bob", "secret-ada", c.Users[0].Password, strings.TrimPrefix(c.Users[1].Token, tokenPrefix), b.auth.secret} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is logged:\n%s", secret, log.String())
		}
	}
}

// TestReloadCutsUsersOff takes a permission away from a connected user.
func TestReloadCutsUsersOff(t *testing.T) {
	dir := t.TempDir()
	text := users(t)
	b := start(t, configIn(t, dir, text))
	lost := make(chan string, 10)
	connect := func(user string) *nats.Conn {
		nc, err := nats.Connect("nats://"+user+":secret-"+user+"@"+b.Addr().String(), nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- user }), nats.NoReconnect())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	ada := connect("ada")
	connect("bob")
	changed := strings.Replace(text, "publish: [region.*]", "publish: [other]", 1)
	if changed == text {
		t.Fatal("nothing was changed")
	}
	if err := b.Reload(testContext(t), configIn(t, dir, changed)); err != nil {
		t.Fatal(err)
	}
	select {
	case who := <-lost:
		if who != "bob" {
			t.Errorf("%s was cut off", who)
		}
	case <-testContext(t).Done():
		t.Fatal("bob goes on with what he might do before")
	}
	if err := ada.Flush(); err != nil {
		t.Errorf("ada, who has not changed: %v", err)
	}
}

// TestReloadCutsStreamsOff takes a permission away from a user who follows a topic over
// HTTP, in each form. Others go on.
func TestReloadCutsStreamsOff(t *testing.T) {
	dir := t.TempDir()
	users := func(bobs string) *Config {
		return configIn(t, dir, fmt.Sprintf("users: [{name: ada, token: %q, publish: orders, subscribe: orders}, {name: bob, token: %q, subscribe: %s}]", HashToken("a"), HashToken("b"), bobs))
	}
	b := start(t, users("orders"))
	web := newWebClient(t, b)
	ada, bob := web.follow("orders/events", "Authorization: Bearer a"), web.follow("orders/events", "Authorization: Bearer b")
	polled := make(chan string, 1)
	go func() {
		res, err := web.do(testContext(t), http.MethodGet, "/v1/topics/orders/events?wait=5m", nil, "Accept: "+ndjsonType, "Authorization: Bearer b")
		if err != nil {
			polled <- err.Error()
			return
		}
		_ = res.Body.Close()
		polled <- res.Status
	}()
	for b.gateway.open.Load() < 3 {
		awaitTick(t)
	}
	if err := b.Reload(testContext(t), users("other")); err != nil {
		t.Fatal(err)
	}
	if e, err := bob.next(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("bob follows: got %+v, %v, want the end", e, err)
	}
	if got := <-polled; got != "401 Unauthorized" {
		t.Errorf("bob polls: got %s, want 401", got)
	}
	web.post(http.StatusAccepted, "orders", `{"n":1}`, "Authorization: Bearer a")
	if e, err := ada.next(); err != nil || e.data.Data.N != 1 {
		t.Errorf("ada, who has not changed: got %+v, %v", e, err)
	}
}

// TestSecurityDoc checks that the tests named in docs/security.md exist, and always
// run.
func TestSecurityDoc(t *testing.T) {
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Errorf("%d tests are named", len(named))
	}
	var all []byte
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file...)
	}
	// Tests that need something not every machine has must ask for it in functions
	// of their own, which name what is missing and fail with HARK_REQUIRE=all.
	skips := regexp.MustCompile(`\bt\.Skip|testing\.Short\(|LookupEnv\(`)
	for _, n := range named {
		_, body, found := bytes.Cut(all, []byte("\nfunc "+string(n[1])+"(t *testing.T) {"))
		body, _, _ = bytes.Cut(body, []byte("\n}\n"))
		switch {
		case !found:
			t.Errorf("docs/security.md names %s, which is not there", n[1])
		case skips.Match(body):
			t.Errorf("docs/security.md names %s, which does not always run: %s", n[1], skips.Find(body))
		}
	}
}
