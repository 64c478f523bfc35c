package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// webOf returns the handler of a server with some endpoints; the server is not
// started.
func webOf(t *testing.T, log io.Writer, text string, es ...endpoint) http.Handler {
	t.Helper()
	b, err := New(config(t, text), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c := b.config.Load()
	w := &webServer{broker: b, endpoints: es, metrics: newMetrics(b, maxLabelled), streams: t.Context(), guard: newGuard(c, nil), rates: newRates(c.Limits.HTTPRate)}
	b.web = w
	return w.handler()
}

// ask sends a request, and decodes a refusal.
func ask(h http.Handler, method, target, contentType, body string) (*httptest.ResponseRecorder, refusal) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:7480"
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	var refusal refusal
	_ = json.Unmarshal(rec.Body.Bytes(), &refusal) // the answer may be something else
	return rec, refusal
}

func TestWhatIsRefused(t *testing.T) {
	var log bytes.Buffer
	in := struct {
		N int `json:"n"`
	}{}
	h := webOf(t, &log, "",
		endpoint{
			method: "POST", path: "/t/{topic}", access: anybody, body: &body{limit: 20, shape: in},
			params: []param{topicParam("topic", "which").inPath(), numberParam("limit", 1, 10, "how many"), flagParam("force", "whether"), choiceParam("how", "how", "fast", "slow"), filterParam("where", "which")},
			handle: func(c *call) error {
				v := in
				if err := c.decode(&v); err != nil {
					return err
				}
				return c.reply(map[string]any{"n": v.N, "topic": c.text("topic"), "limit": c.number("limit"), "force": c.flag("force"), "how": c.text("how")})
			},
		},
		endpoint{
			method: "GET", path: "/list", access: anybody,
			params: append(pageParams(), patternParam("pattern", "which").required(), textParam("X-Key", "a key").inHeader(), durationParam("for", "how long"), timeParam("from", "since when"), filterParam("where", "which")),
			handle: func(c *call) error {
				return c.reply([]any{c.number("limit"), c.text("pattern"), c.text("X-Key"), c.duration("for"), c.moment("from"), c.filter("where") != nil})
			},
		},
		endpoint{method: "POST", path: "/json", access: anybody, body: jsonBody(in), handle: func(c *call) error { return c.decode(new(map[string]any)) }},
		endpoint{method: "GET", path: "/panic", access: anybody, handle: func(*call) error { panic("oh") }},
		endpoint{method: "GET", path: "/fails", access: anybody, handle: func(*call) error { return io.ErrUnexpectedEOF }},
	)
	for _, tt := range []struct {
		method, target, media, body string
		status                      int
		says                        string
	}{
		{"POST", "/t/a.b?limit=3&force=true&how=slow", "application/json", `{"n":1}`, 200, ""},
		{"POST", "/t/a.b?where=data.n%20%3E%201", "", `{}`, 200, ""},
		{"GET", "/nowhere", "", "", 404, "no endpoint at /nowhere"},
		{"GET", "/t/a", "", "", 405, "it answers POST"},
		{"POST", "/t/a..b", "", "{}", 400, `topic: "a..b": empty token at byte 2`},
		{"POST", "/t/_INBOX.x", "", "{}", 400, "reserved for replies"},
		{"POST", "/t/$JS.API", "", "{}", 400, "reserved"},
		{"POST", "/t/a*b", "", "{}", 400, "inside a token"},
		{"POST", "/t/a?limit=11", "", "{}", 400, "limit: got \"11\", want a whole number from 1 to 10"},
		{"POST", "/t/a?limit=1&limit=2", "", "{}", 400, "limit is given 2 times"},
		{"POST", "/t/a?limt=1", "", "{}", 400, `unknown parameter "limt"; did you mean limit?`},
		{"POST", "/t/a?force=1", "", "{}", 400, "want true or false"},
		{"POST", "/t/a?how=slwo", "", "{}", 400, "did you mean slow?"},
		{"POST", "/t/a?where=data.", "", "{}", 400, "where: "},
		{"POST", "/t/a?%zz", "", "{}", 400, "the query cannot be read"},
		{"POST", "/t/a", "", "", 400, "the body is missing"},
		{"POST", "/t/a", "", "{", 400, "the body: "},
		{"POST", "/t/a", "", `{"m":1}`, 400, `unknown field "m"`},
		{"POST", "/t/a", "", `{"n":1}{}`, 400, "further text after the JSON"},
		{"POST", "/t/a", "text/plain", "{}", 415, `"text/plain", want application/json`},
		{"POST", "/t/a", "", `{"n":1,"n":2,"n":333333}`, 413, "longer than 20 bytes"},
		{"GET", "/list?pattern=a.*&for=7d&from=2026-01-02T15:04:05Z", "", "", 200, ""},
		{"GET", "/list", "", "", 400, "pattern is missing: which"},
		{"GET", "/list?pattern=a.*b", "", "", 400, "pattern: "},
		{"GET", "/list?pattern=_INBOX", "", "", 400, "reserved for replies"},
		{"GET", "/list?pattern=a&for=soon", "", "", 400, "for: got \"soon\", want a time such as 90s"},
		{"GET", "/list?pattern=a&from=now", "", "", 400, "want a time such as 2026"},
		{"GET", "/list?pattern=a&where=" + strings.Repeat("x", maxFilter+1), "", "", 400, "a filter may have"},
		{"POST", "/json", "", "[" + strings.Repeat("1,", jsonLimit) + "1]", 413, "longer than 65536 bytes"},
		{"GET", "/panic", "", "", 500, "its log says why"},
		{"GET", "/fails", "", "", 500, "its log says why"},
	} {
		rec, r := ask(h, tt.method, tt.target, tt.media, tt.body)
		if rec.Code != tt.status || !strings.Contains(r.Error(), tt.says) {
			t.Errorf("%s %s: got %d %s, want %d %s", tt.method, tt.target, rec.Code, rec.Body, tt.status, tt.says)
		}
		if rec.Code >= 400 && (rec.Header().Get("Content-Type") != refusalType || r.Status != rec.Code || r.Title != http.StatusText(rec.Code)) {
			t.Errorf("%s %s: got %s %s", tt.method, tt.target, rec.Header().Get("Content-Type"), rec.Body)
		}
	}
	for _, want := range []string{"panic=oh", "web_test.go", io.ErrUnexpectedEOF.Error()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, log.String())
		}
	}
}

func TestRefuse(t *testing.T) {
	rec := httptest.NewRecorder()
	refuse(rec, http.StatusForbidden, "orders.> is not <yours>")
	if want := `{"status":403,"title":"Forbidden","detail":"orders.> is not <yours>"}` + "\n"; rec.Code != http.StatusForbidden || rec.Body.String() != want {
		t.Errorf("got %d %s, want %s", rec.Code, rec.Body, want)
	}
}

// TestWhoMayAsk sends requests as users with and without permission.
func TestWhoMayAsk(t *testing.T) {
	text := strings.Replace(users(t), "subscribe: region.*", "subscribe: region.*, admin: [orders.>]", 1)
	who := func(c *call) error { return c.reply(map[string]any{"who": c.who.who()}) }
	topic := []param{topicParam("topic", "which").inPath()}
	h := webOf(t, io.Discard, text,
		endpoint{method: "GET", path: "/public", access: anybody, handle: who},
		endpoint{method: "GET", path: "/user", access: anyUser, handle: who},
		endpoint{method: "GET", path: "/broker", access: operator, handle: who},
		endpoint{method: "GET", path: "/admin/{topic}", access: administrator("topic"), params: topic, handle: who},
		endpoint{method: "GET", path: "/pub/{topic}", access: publisher("topic"), params: topic, handle: who},
		endpoint{method: "GET", path: "/sub/{topic}", access: subscriber("topic"), params: topic, handle: who},
	)
	ada, bob := basic("ada", "secret-ada"), "Bearer secret-bob"
	for _, tt := range []struct {
		target, auth string
		status       int
	}{
		{"/public", "", 200},
		{"/public", "Bearer nonsense", 200},
		{"/user", "", 401},
		{"/user", "Bearer nonsense", 401},
		{"/user", ada, 200},
		{"/broker", ada, 403},
		{"/admin/orders.placed", ada, 200},
		{"/admin/other", ada, 403},
		{"/admin/orders.placed", bob, 403},
		{"/pub/orders.placed", ada, 200},
		{"/pub/orders.placed", bob, 403},
		{"/sub/orders.placed", ada, 403},
		{"/sub/orders.placed", bob, 200},
	} {
		r := httptest.NewRequest("GET", tt.target, nil)
		r.Host = "127.0.0.1:7480"
		if tt.auth != "" {
			r.Header.Set("Authorization", tt.auth)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != tt.status {
			t.Errorf("%s as %.12s: got %d %s, want %d", tt.target, tt.auth, rec.Code, rec.Body, tt.status)
		}
		if asked := rec.Header().Get("WWW-Authenticate"); (asked != "") != (tt.status == 401) {
			t.Errorf("%s: got WWW-Authenticate %q", tt.target, asked)
		}
	}
}

// TestStreamsEnd stops a server in the middle of a stream.
func TestStreamsEnd(t *testing.T) {
	b, err := New(config(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	began, ended := make(chan struct{}), make(chan error, 1)
	b.web, err = listenWeb(b, []endpoint{{method: "GET", path: "/", access: anybody, stream: true, handle: func(c *call) error {
		c.rw.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(c.rw).Flush(); err != nil {
			return err
		}
		close(began)
		<-c.ctx.Done()
		ended <- context.Cause(c.ctx)
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	b.web.serve()
	r, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "http://"+b.HTTPAddr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-began
	if err := b.web.close(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrStopped) {
		t.Errorf("got %v, want ErrStopped", err)
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("the answer was cut: %v", err)
	}
}

// TestStreamsOutliveDeadlines checks that a stream continues past the deadlines of
// the server, within which other calls have to end, and the body of its request has
// to come. On a machine so busy that a handler starts after them, it tries again.
func TestStreamsOutliveDeadlines(t *testing.T) {
	const deadline = 200 * time.Millisecond
	stream := endpoint{method: "GET", path: "/stream", access: anybody, stream: true, handle: func(c *call) error {
		if c.endpoint.body != nil {
			if err := c.decode(&struct{}{}); err != nil {
				return err
			}
		}
		control := http.NewResponseController(c.rw)
		for range 3 {
			select {
			case <-time.After(deadline):
			case <-c.ctx.Done():
				return context.Cause(c.ctx)
			}
			if _, err := io.WriteString(c.rw, "still there\n"); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
		return nil
	}}
	posted := stream
	posted.method, posted.body = "POST", jsonBody(struct{}{})
	server := httptest.NewUnstartedServer(webOf(t, io.Discard, "", stream, posted))
	server.Config.ReadTimeout, server.Config.WriteTimeout = deadline, deadline
	server.Start()
	defer server.Close()
	for _, ask := range []func() (*http.Response, error){
		func() (*http.Response, error) { return server.Client().Get(server.URL + "/stream") },
		func() (*http.Response, error) {
			return server.Client().Post(server.URL+"/stream", jsonType, strings.NewReader("{}"))
		},
	} {
		whole := func() (err error) {
			for range 20 {
				var text []byte
				res, askErr := ask()
				if err = askErr; err == nil {
					text, err = io.ReadAll(res.Body)
					_ = res.Body.Close() // it has been read
				}
				if err == nil && strings.Count(string(text), "\n") == 3 {
					return nil
				}
			}
			return fmt.Errorf("each stream was cut off: %w", err)
		}
		if err := whole(); err != nil {
			t.Error(err)
		}
	}

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("a body that does not come: got %q, %v", answer, err)
	}
}
