package broker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// requestSeeds are requests, without the headers that all of them have.
func requestSeeds(add func(string)) {
	event := `{"specversion":"1.0","id":"1","source":"/s","type":"t","x":1,"data":{"a":[1,"<b>"]}}`
	for _, post := range []string{
		"?key=ada&ttl=1h\r\nHark-Header-Tenant: shop\r\n\r\n{\"n\":1}",
		"?delay=1ms\r\n\r\nlater",
		"?delay=1h\r\nIdempotency-Key: \"7f3a\"\r\n\r\ntext",
		"?at=2999-01-02T15:04:05Z\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\na=b",
		"\r\nContent-Type: " + structuredType + "\r\n\r\n" + event,
		"\r\nContent-Type: " + batchType + "\r\nIdempotency-Key: b\r\n\r\n[" + event + "," + strings.Replace(event, `"1"`, `"2"`, 1) + "]",
		"\r\nce-specversion: 1.0\r\nce-id: a%20b\r\nce-source: /s\r\nce-type: t\r\nContent-Type: application/json\r\n\r\n[]",
		"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"\r\nContent-Length: 30\r\n\r\nends too early",
		"\r\nOrigin: http://elsewhere.example\r\n\r\nx",
	} {
		target, rest, _ := strings.Cut(post, "\r\n")
		for _, topic := range []string{"stored", "live"} {
			add("POST /v1/topics/" + topic + target + " HTTP/1.1\r\n" + rest)
		}
	}
	for _, get := range []string{
		"/events?from=start&where=data.n+%3D%3D+1 HTTP/1.1\r\nAccept: text/event-stream\r\nLast-Event-ID: 1",
		"/events?from=last:2&max=1&wait=1ms HTTP/1.1\r\nAccept: application/x-ndjson",
		"/events?group=g&from=start&window=2&ack_wait=1s HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
	} {
		add("GET /v1/topics/stored" + get + "\r\n\r\n")
		add("GET /v1/topics/live.*" + get + "\r\n\r\n")
	}
	for i := range endpoints() {
		e := &endpoints()[i]
		path, query, body := e.path, "", ""
		for _, p := range e.params {
			switch {
			case p.in == "path":
				path = strings.Replace(path, "{"+p.name+"}", "stored", 1)
			case p.in == "query" && query == "":
				query = "?" + p.name + "=1"
			}
		}
		if e.body != nil {
			body = `{"from":"start","data":1}`
		}
		add(e.method + " " + path + query + " HTTP/1.1\r\n\r\n" + body)
		add(e.method + " " + path + " HTTP/1.1\r\n\r\n" + body)
	}
}

// FuzzHTTP sends arbitrary requests to a running broker. Each must be answered as
// the document says, never with an unforeseen failure, and exactly what is
// acknowledged must be stored.
func FuzzHTTP(f *testing.F) {
	requestSeeds(func(request string) { f.Add([]byte(request)) })
	b := start(f, config(f, "topics: [{name: stored, durability: memory, dedup: 1h}]"))
	a := newAPI(f, b, "")
	js, err := jetstream.New(b.client)
	if err != nil {
		f.Fatal(err)
	}
	count := 0
	f.Fuzz(func(t *testing.T, request []byte) {
		count++ // one at a time
		d := &fuzzedServer{t: t, api: *a, js: js, mark: strconv.Itoa(count)}
		d.api.t = t
		d.try(request)
	})
}

type fuzzedServer struct {
	t   *testing.T
	api api
	js  jetstream.JetStream
	// mark is a header value of what the request publishes.
	mark string
}

// markHeader is the header that carries the mark.
const markHeader = "fuzz"

// silenceTimeout is how long to listen to a silent stream.
const silenceTimeout = 20 * time.Millisecond

// try sends one request.
func (d *fuzzedServer) try(request []byte) {
	head, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	lower := bytes.ToLower(head)
	// The broker closes the connection after the answer, so that no part of the
	// body counts as another request.
	head = append(bytes.Clone(head), "\r\nHost: localhost\r\nConnection: close\r\n"+headerPrefix+markHeader+": "+d.mark...)
	whole := !bytes.Contains(lower, []byte("content-length")) && !bytes.Contains(lower, []byte("transfer-encoding"))
	if whole {
		head = fmt.Appendf(head, "\r\nContent-Length: %d", len(body))
	}
	text := append(append(head, "\r\n\r\n"...), body...)
	parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		parsed = &http.Request{Method: http.MethodGet, URL: &url.URL{}}
	}
	query := parsed.URL.Query()
	if query.Has("delay") || query.Has("at") {
		whole = false // it is stored later
	}
	e := d.endpoint(parsed)
	publishes := e != nil && e.name == "publish"
	before := d.stored()
	status, answer := d.send(text, whole, e != nil && e.stream, parsed)
	foreseen := []int{http.StatusHTTPVersionNotSupported, http.StatusNotImplemented} // from net/http, before an endpoint is known
	if e != nil {
		foreseen = append(e.outcomes(), http.StatusHTTPVersionNotSupported)
	}
	if status == http.StatusInternalServerError || status >= 500 && !slices.Contains(foreseen, status) {
		d.t.Fatalf("got %d %s", status, answer)
	}
	if !publishes || !whole {
		return
	}
	acknowledged := uint64(0)
	if status < 300 {
		var p published
		if err := json.Unmarshal(answer, &p); err != nil {
			d.t.Fatalf("got %d %s: %v", status, answer, err)
		}
		for _, one := range append(p.Events, p.placed) {
			if one.Seq > 0 && !one.Repeated {
				acknowledged++
			}
		}
	}
	if after := d.stored(); after != before+acknowledged && d.own(before+1, after) != acknowledged && status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout {
		d.t.Fatalf("got %d %s; %d messages were stored before, and %d after it", status, answer, before, after)
	}
}

// endpoint returns the endpoint of a request, or nil if there is none.
func (d *fuzzedServer) endpoint(r *http.Request) *endpoint {
	mux := http.NewServeMux()
	all := map[string]*endpoint{}
	for i := range d.api.broker.web.endpoints {
		e := &d.api.broker.web.endpoints[i]
		all[e.method+" "+e.path] = e
		mux.Handle(e.method+" "+e.path, http.NotFoundHandler())
	}
	_, pattern := mux.Handler(r)
	return all[pattern]
}

// stored returns how many messages the stored topic has taken. An earlier request
// may have removed the topic; then stored creates it again.
func (d *fuzzedServer) stored() uint64 {
	d.t.Helper()
	ctx := testContext(d.t)
	_, err := d.api.broker.conn.OpenTopic(ctx, driver.TopicConfig{Name: "stored", Stored: &driver.StoredConfig{Durability: driver.DurableMemory, Dedup: time.Hour, Existing: true}})
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := d.js.Stream(ctx, "hark-topic-stored")
	if err != nil {
		d.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// own returns how many messages in a range of sequences were published by this
// request: an earlier one may have published delayed messages that come due now.
func (d *fuzzedServer) own(from, to uint64) (n uint64) {
	d.t.Helper()
	ctx := testContext(d.t)
	s, err := d.js.Stream(ctx, "hark-topic-stored")
	if err != nil {
		d.t.Fatal(err)
	}
	for seq := from; seq <= to; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			d.t.Fatal(err)
		}
		if err == nil && m.Header.Get(markHeader) == d.mark {
			n++
		}
	}
	return n
}

// send sends a request and returns the answer. It stops reading a stream once it
// has begun, or stays silent.
func (d *fuzzedServer) send(text []byte, whole, stream bool, parsed *http.Request) (status int, answer []byte) {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.api.broker.HTTPAddr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	if _, err := conn.Write(text); err != nil {
		return 0, nil // it was refused before it was sent completely
	}
	if !whole { // the missing part does not come
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	var left atomic.Bool
	if stream {
		leave := time.AfterFunc(silenceTimeout, func() { left.Store(true); _ = conn.Close() })
		defer leave.Stop()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), parsed)
	if err == nil && (res.StatusCode == http.StatusSwitchingProtocols || stream && res.StatusCode == http.StatusOK) {
		return res.StatusCode, nil
	}
	if err == nil {
		answer, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	var late net.Error
	switch {
	case left.Load():
		return 0, nil
	case err == nil:
		return res.StatusCode, answer
	case errors.As(err, &late) && late.Timeout():
		d.t.Fatalf("no answer within %v", patience)
	}
	return 0, nil // cut off
}
