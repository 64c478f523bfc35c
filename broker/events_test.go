package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// webClient is a client of a broker that speaks only HTTP.
type webClient struct {
	t      *testing.T
	base   string
	client *http.Client
}

func newWebClient(t *testing.T, b *Broker) *webClient {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &webClient{t, "http://" + b.HTTPAddr().String(), &http.Client{Transport: transport}}
}

// do sends a request with headers such as "a: b".
func (web *webClient) do(ctx context.Context, method, path string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, web.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header = header(headers...)
	return web.client.Do(req)
}

// post publishes, wants a status, and returns the answer.
func (web *webClient) post(status int, topic, body string, headers ...string) published {
	web.t.Helper()
	res, err := web.do(testContext(web.t), http.MethodPost, "/v1/topics/"+topic, strings.NewReader(body), headers...)
	if err != nil {
		web.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		web.t.Fatalf("publish to %s: got %d %s, %v, want %d", topic, res.StatusCode, text, err, status)
	}
	var p published
	if status < 300 {
		if err := json.Unmarshal(text, &p); err != nil {
			web.t.Fatalf("%s: %v", text, err)
		}
	} else {
		p.Error = string(text)
	}
	return p
}

// numbers publishes {"n": from} and so on.
func (web *webClient) numbers(status int, topic string, from, n int) {
	web.t.Helper()
	for i := from; i < from+n; i++ {
		web.post(status, topic, fmt.Sprintf(`{"n":%d}`, i))
	}
}

// poll polls, and returns the lines and the position at which to continue.
func (web *webClient) poll(path string) (lines []gotEvent, next string) {
	web.t.Helper()
	res, err := web.do(testContext(web.t), http.MethodGet, "/v1/topics/"+path, nil, "Accept: application/x-ndjson")
	if err != nil {
		web.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		web.t.Fatalf("poll %s: got %d %s, %v", path, res.StatusCode, text, err)
	}
	for line := range bytes.Lines(text) {
		lines = append(lines, gotEvent{data: readEvent(web.t, line)})
	}
	return lines, res.Header.Get(nextHeader)
}

// gotEvent is an event as a client gets it.
type gotEvent struct {
	id, name string
	data     eventData
}

// eventData are the parts of an event that tests look at.
type eventData struct {
	SpecVersion, ID, Source, Type, Topic, Key string
	Seq                                       uint64
	Deliveries                                int
	Dropped                                   uint64
	Reset                                     bool
	Data                                      struct{ N int }
}

func readEvent(t *testing.T, text []byte) eventData {
	t.Helper()
	var e eventData
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if e.Dropped == 0 && !e.Reset && (e.SpecVersion != "1.0" || e.ID == "" || e.Source == "" || e.Type == "") {
		t.Fatalf("%s is no CloudEvent", text)
	}
	return e
}

// stream is a client of server-sent events that shares no code with the server.
type stream struct {
	t      *testing.T
	body   io.Closer
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// follow opens a stream, and returns when the response has begun.
func (web *webClient) follow(path string, headers ...string) *stream {
	web.t.Helper()
	ctx, cancel := context.WithCancel(testContext(web.t))
	res, err := web.do(ctx, http.MethodGet, "/v1/topics/"+path, nil, append(headers, "Accept: text/event-stream")...)
	if err != nil {
		web.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		text, _ := io.ReadAll(res.Body)
		web.t.Fatalf("follow %s: got %d %s", path, res.StatusCode, text)
	}
	s := &stream{web.t, res.Body, bufio.NewReader(res.Body), cancel}
	web.t.Cleanup(s.close)
	return s
}

func (s *stream) close() { s.cancel(); _ = s.body.Close() }

// next returns the next event, by the rules for parsing an event stream.
func (s *stream) next() (gotEvent, error) {
	var e gotEvent
	var data []string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if len(data) == 0 {
				e.name = ""
				continue
			}
			e.data = readEvent(s.t, []byte(strings.Join(data, "\n")))
			return e, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "retry":
			if _, err := strconv.Atoi(value); err != nil {
				s.t.Errorf("retry: %v", err)
			}
		default:
			s.t.Errorf("the field %q is none of the grammar", field)
		}
	}
}

// want fails unless the next events have these numbers.
func (s *stream) want(numbers ...int) []gotEvent {
	s.t.Helper()
	var all []gotEvent
	for i, n := range numbers {
		e, err := s.next()
		if err != nil || e.data.Data.N != n || e.name != "" {
			s.t.Fatalf("event %d: got %+v, %v, want number %d", i, e, err, n)
		}
		all = append(all, e)
	}
	return all
}

// wantReset fails unless the next event says that the topic was replaced.
func (s *stream) wantReset() {
	s.t.Helper()
	if e, err := s.next(); err != nil || e.name != "reset" || !e.data.Reset {
		s.t.Fatalf("got %+v, %v, want the event reset", e, err)
	}
}

func numbersOf(all []gotEvent) (numbers []int) {
	for _, e := range all {
		numbers = append(numbers, e.data.Data.N)
	}
	return numbers
}

func upTo(from, n int) (all []int) {
	for i := range n {
		all = append(all, from+i)
	}
	return all
}

const twoTopics = "topics: [{name: orders, durability: relaxed}, {name: quick, durability: memory, count: 50}]"

func TestServerSentEvents(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	live := web.follow("web.clicks/events")
	some := web.follow("web.clicks/events?where=" + url.QueryEscape("data.n == 1 || data.n == 3"))
	wide := web.follow("web.>/events")
	web.numbers(http.StatusAccepted, "web.clicks", 0, 4)
	for _, e := range live.want(0, 1, 2, 3) {
		if e.id != "" || e.data.Topic != "web.clicks" || e.data.Source != "/hark" {
			t.Errorf("got %+v, want no id of what is not stored", e)
		}
	}
	some.want(1, 3)
	wide.want(0, 1, 2, 3)

	web.numbers(http.StatusCreated, "orders", 0, 10)
	tail := web.follow("orders/events")
	all := web.follow("orders/events?from=start")
	from := web.follow("orders/events?from=8")
	last := web.follow("orders/events?from=last:2")
	none := web.follow("orders/events?from=last:0")
	past := web.follow("orders/events?from=12")
	resumed := web.follow("orders/events?from=start", "Last-Event-ID: 4")
	fresh := web.follow("orders/events", "Last-Event-ID: 400")
	since := web.follow("orders/events?from=2020-01-02T15:04:05Z&where=" + url.QueryEscape("data.n == 3 || data.n > 9"))
	web.numbers(http.StatusCreated, "orders", 10, 3)
	for _, e := range all.want(upTo(0, 13)...) {
		if want := strconv.Itoa(e.data.Data.N + 1); seqOf(e.id) != want || e.id == want || e.data.Seq != uint64(e.data.Data.N+1) {
			t.Errorf("got %+v, want id %s", e, want)
		}
	}
	tail.want(10, 11, 12)
	from.want(upTo(7, 6)...)
	last.want(upTo(8, 5)...)
	none.want(10, 11, 12)
	past.want(11, 12)
	resumed.want(upTo(4, 9)...)
	fresh.wantReset()
	fresh.want(upTo(0, 13)...)
	since.want(3, 10, 11, 12)
}

// TestResume disconnects a client repeatedly while others publish. It must get every
// event exactly once.
func TestResume(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	const total = 600
	published := make(chan error, 1)
	topic := openStored(t, b, "orders")
	go func() {
		for i := range total {
			if err := topic.Publish(t.Context(), []*driver.Message{{Data: fmt.Appendf(nil, `{"n":%d}`, i)}}); err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	got, last := 0, ""
	for round := 0; got < total; round++ {
		var headers []string
		if last != "" {
			headers = append(headers, "Last-Event-ID: "+last)
		}
		s := web.follow("orders/events?from=start", headers...)
		for range 7 + round%40 {
			e, err := s.next()
			if err != nil || e.data.Data.N != got {
				t.Fatalf("got %+v, %v behind %q, want number %d", e, err, last, got)
			}
			last = e.id
			if got++; got == total {
				break
			}
		}
		s.close()
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

// TestResumeOnReplacedTopic resumes, in all forms, on a topic that was deleted and
// created again, and that has more messages than the client has received. The client
// must get all of them, after a reset. A client that follows the topic meanwhile
// continues in the same way.
func TestResumeOnReplacedTopic(t *testing.T) {
	b := start(t, config(t, "topics: [{name: 'store.>', durability: relaxed}]"))
	for _, topic := range []string{"own", "store.a"} {
		t.Run(topic, func(t *testing.T) {
			d, nc := newWebClient(t, b), connectTo(t, b.Addr().String())
			path := topic + "/events"
			create := func() {
				t.Helper()
				var err error
				if topic == "own" {
					_, err = b.conn.OpenTopic(testContext(t), driver.TopicConfig{Name: topic, Stored: &driver.StoredConfig{Durability: driver.DurableRelaxed}})
				} else {
					_, err = b.conn.OpenStore(testContext(t), natsdriver.StoreConfig{Pattern: "store.>", StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			remake := func() {
				t.Helper()
				err := b.conn.DeleteTopic(testContext(t), topic)
				if topic != "own" {
					err = b.conn.DeleteStore(testContext(t), "store.>")
				}
				if err != nil {
					t.Fatal(err)
				}
				create()
			}
			put := func(from, n int) { // without IDs
				t.Helper()
				for i := range n {
					if err := nc.Publish(topic, fmt.Appendf(nil, `{"n":%d}`, from+i)); err != nil {
						t.Fatal(err)
					}
				}
				for stored := uint64(0); stored < uint64(n); {
					info, err := b.conn.TopicInfo(testContext(t), topic)
					if err != nil {
						t.Fatal(err)
					}
					stored = info.Messages
				}
			}
			if topic == "own" {
				create()
			}
			put(0, 5)
			before := d.follow(path + "?from=start").want(upTo(0, 5)...)
			member := d.follow(path + "?group=g&from=start")
			shared := member.want(upTo(0, 5)...)
			member.close()
			lines, next := d.poll(path + "?from=start&max=3")
			if got := numbersOf(lines); !slices.Equal(got, upTo(0, 3)) {
				t.Fatalf("got %v", got)
			}
			socket, mark := d.webSocketMark(path)
			idle := d.follow(path) // has the hub of the first topic open
			old := d.follow(path, "Last-Event-ID: "+before[1].id)
			old.want(2, 3, 4)

			remake()
			put(10, 7)
			for name, s := range map[string]*stream{"id": d.follow(path, "Last-Event-ID: "+before[4].id), "from": d.follow(path + "?from=" + next)} {
				t.Log(name)
				s.wantReset()
				for i, e := range s.want(upTo(10, 7)...) {
					if i < 5 && (e.data.Seq != before[i].data.Seq || e.id == before[i].id || e.data.ID == before[i].data.ID) {
						t.Errorf("got %+v and before %+v, want other IDs", e, before[i])
					}
				}
			}
			// The group is gone with the topic, and a member makes it anew.
			d.follow(path+"?group=g", "Last-Event-ID: "+shared[4].id).want(upTo(10, 7)...)
			again := d.follow(path + "?from=start").want(upTo(10, 7)...)
			d.follow(path, "Last-Event-ID: "+again[1].id).want(upTo(12, 5)...)
			d.follow(path, "Last-Event-ID: 2").want(upTo(12, 5)...) // a sequence alone is one of the topic as it is
			lines, next = d.poll(path + "?from=" + next + "&max=2")
			if len(lines) != 3 || !lines[0].data.Reset || lines[1].data.Data.N != 10 {
				t.Errorf("got %+v, want to be told, and the first messages", lines)
			}
			if lines, _ = d.poll(path + "?from=" + next + "&max=2"); !slices.Equal(numbersOf(lines), upTo(12, 2)) {
				t.Errorf("got %+v, want what is next", lines)
			}
			resumed, now := d.webSocketMark(path, "Last-Event-ID: 5."+mark)
			if e := d.hear(resumed); !e.Reset || now == mark {
				t.Errorf("got %+v and the mark %s, want to be told", e, now)
			}
			if e := d.hear(resumed); e.Data.N != 10 {
				t.Errorf("got %+v, want the first message", e)
			}
			for _, s := range []*stream{idle, old} { // they come again, with what they have had
				if e, err := s.next(); err == nil {
					t.Errorf("got %+v, want the stream to have ended", e)
				}
			}
			if _, _, err := socket.Read(testContext(t)); err == nil {
				t.Error("the WebSocket goes on with another topic")
			}
		})
	}
}

func openStored(t *testing.T, b *Broker, name string) driver.Topic {
	t.Helper()
	topic, err := dial(t, b, "").OpenTopic(testContext(t), driver.TopicConfig{Name: name, Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// newest returns the newest message of a stored topic.
func newest(t *testing.T, b *Broker, name string) *driver.Received {
	t.Helper()
	sub, err := openStored(t, b, name).Subscribe(testContext(t), driver.SubscribeConfig{From: driver.FromLast, Seq: 1, Window: 1})
	if err != nil {
		t.Fatal(err)
	}
	ms, err := sub.Receive(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	return ms[0]
}

// seqOf is the sequence of what clients resume with.
func seqOf(at string) string {
	seq, _, _ := strings.Cut(at, ".")
	return seq
}

func TestPoll(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	if lines, next := web.poll("orders/events?from=start&wait=0s"); len(lines) != 0 || seqOf(next) != "1" {
		t.Errorf("got %v, next %q of an empty topic, want nothing and 1", lines, next)
	}
	web.numbers(http.StatusCreated, "orders", 0, 10)
	lines, next := web.poll("orders/events?from=start&max=4")
	if !slices.Equal(numbersOf(lines), upTo(0, 4)) || seqOf(next) != "5" {
		t.Errorf("got %v, next %s", numbersOf(lines), next)
	}
	lines, next = web.poll("orders/events?from=" + next + "&where=" + url.QueryEscape("data.n == 6"))
	if !slices.Equal(numbersOf(lines), []int{6}) || seqOf(next) != "11" {
		t.Errorf("got %v, next %s, want 6, and what does not match passed over", numbersOf(lines), next)
	}
	if lines, again := web.poll("orders/events?wait=50ms&from=" + next); len(lines) != 0 || again != next {
		t.Errorf("got %v, next %s", numbersOf(lines), again)
	}
	waited := make(chan []gotEvent, 1)
	go func() {
		lines, _ := web.poll("orders/events?from=" + next)
		waited <- lines
	}()
	web.numbers(http.StatusCreated, "orders", 10, 1)
	if lines := <-waited; !slices.Equal(numbersOf(lines), []int{10}) {
		t.Errorf("got %v by waiting, want 10", numbersOf(lines))
	}

	// A group keeps its position between polls.
	var got []int
	for range 10 {
		lines, next := web.poll("orders/events?group=g&from=start&max=4&wait=1s")
		if next != "" {
			t.Errorf("got next %s of a group", next)
		}
		if len(lines) > 4 {
			t.Errorf("got %d lines, want at most 4", len(lines))
		}
		if got = append(got, numbersOf(lines)...); len(got) == 11 {
			break
		}
	}
	if slices.Sort(got); !slices.Equal(got, upTo(0, 11)) {
		t.Errorf("the group got %v, want each once", got)
	}
}

// webSocket opens a WebSocket.
func (web *webClient) webSocket(path string) *websocket.Conn {
	web.t.Helper()
	conn, _ := web.webSocketMark(path)
	return conn
}

// webSocketMark is webSocket with headers, and returns the mark of the topic.
func (web *webClient) webSocketMark(path string, headers ...string) (conn *websocket.Conn, mark string) {
	web.t.Helper()
	conn, res, err := websocket.Dial(testContext(web.t), web.base+"/v1/topics/"+path, &websocket.DialOptions{HTTPClient: web.client, HTTPHeader: header(headers...)})
	if err != nil {
		web.t.Fatalf("%s: %v, %v", path, res, err)
	}
	web.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, res.Header.Get(topicMarkHeader)
}

func (web *webClient) hear(conn *websocket.Conn) eventData {
	web.t.Helper()
	_, text, err := conn.Read(testContext(web.t))
	if err != nil {
		web.t.Fatal(err)
	}
	return readEvent(web.t, text)
}

func (web *webClient) say(conn *websocket.Conn, text string) {
	web.t.Helper()
	if err := conn.Write(testContext(web.t), websocket.MessageText, []byte(text)); err != nil {
		web.t.Fatal(err)
	}
}

func TestWebSocket(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	web.numbers(http.StatusCreated, "orders", 0, 3)
	conn := web.webSocket("orders/events?from=2&where=" + url.QueryEscape("data.n != 3"))
	web.numbers(http.StatusCreated, "orders", 3, 2)
	for _, n := range []int{1, 2, 4} {
		if e := web.hear(conn); e.Data.N != n || e.Seq != uint64(n+1) {
			t.Errorf("got %+v, want number %d", e, n)
		}
	}
	web.say(conn, `{"ack":1}`)
	if _, _, err := conn.Read(testContext(t)); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("an acknowledgement that nobody wants: got %v", err)
	}
}

// TestWebSocketGroup checks that a group over WebSockets delivers at least once.
func TestWebSocketGroup(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	web.numbers(http.StatusCreated, "orders", 0, 6)
	one := web.webSocket("orders/events?group=g&from=start&window=2")
	var held []uint64
	for range 2 {
		held = append(held, web.hear(one).Seq)
	}
	// The window is full, so the third message arrives after an acknowledgement.
	web.say(one, fmt.Sprintf(`{"ack":%d}`, held[0]))
	third := web.hear(one)
	web.say(one, fmt.Sprintf(`{"nack":[%d]}`, third.Seq))
	again := web.hear(one)
	for again.Seq != third.Seq { // others may come first
		web.say(one, fmt.Sprintf(`{"ack":%d}`, again.Seq))
		again = web.hear(one)
	}
	if again.Deliveries != 2 {
		t.Errorf("what was given back came again as %+v, want the second delivery", again)
	}
	// Messages that are in flight when a client disconnects go to the others.
	_ = one.CloseNow()
	two := web.webSocket("orders/events?group=g")
	seen := map[uint64]bool{}
	for !seen[held[1]] || !seen[third.Seq] {
		e := web.hear(two)
		seen[e.Seq] = true
		web.say(two, fmt.Sprintf(`{"ack":[%d]}`, e.Seq))
	}
	if seen[held[0]] {
		t.Error("what was acknowledged came again")
	}

	for _, text := range []string{"x", `{}`, `{"ack":"1"}`, `{"ack":-1}`} {
		conn := web.webSocket("orders/events?group=h")
		web.say(conn, text)
		if _, _, err := conn.Read(testContext(t)); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// TestAckWait checks that messages without an acknowledgement go to other clients after
// ack_wait.
func TestAckWait(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	web.numbers(http.StatusCreated, "orders", 0, 1)
	conn := web.webSocket("orders/events?group=g&from=start&ack_wait=1s")
	if e := web.hear(conn); e.Deliveries != 0 {
		t.Errorf("got %+v, want the first delivery", e)
	}
	if e := web.hear(conn); e.Deliveries != 2 || e.Seq != 1 {
		t.Errorf("got %+v, want the second delivery", e)
	}
}

func TestWhatIsRefusedOfEvents(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	tests := []struct {
		path    string
		status  int
		want    string
		headers []string
	}{
		{"a..b/events", 400, "empty token", nil},
		{"orders/events?where=data.n%20%3D%3D%3D%201", 400, "\n           ^", nil},
		{"orders/events?from=yesterday", 400, "want start, now, a sequence", nil},
		{"orders/events?from=2999-01-01T00:00:00Z", 400, "in the future", nil},
		{"orders/events", 400, "Last-Event-ID", []string{"Last-Event-ID: x"}},
		{"web/events?from=start", 409, "is not stored", nil},
		{"web.*/events?from=start", 409, "is not stored", nil},
		{"web/events", 409, "is not stored", []string{"Last-Event-ID: 1"}},
		{"orders/events?wait=1s", 400, "wait does not apply to this form", nil},
		{"orders/events?window=3", 400, "window does not apply to this form", []string{"Accept: application/x-ndjson"}},
		{"orders/events?wait=1h", 400, "at most 5m", []string{"Accept: application/x-ndjson"}},
		{"orders/events?max=0", 400, "max", []string{"Accept: application/x-ndjson"}},
		{"orders/events", 406, "text/event-stream", []string{"Accept: application/xml"}},
		{"orders/events?group=" + strings.Repeat("g", 300), 400, "group", nil},
		{"orders/events?keyed=true", 400, "members of a group", nil},
		{"orders/events", 400, "WebSocket", []string{"Upgrade: websocket", "Connection: Upgrade"}},
	}
	for _, tt := range tests {
		res, err := web.do(testContext(t), http.MethodGet, "/v1/topics/"+tt.path, nil, tt.headers...)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		var r refusal
		if err := json.Unmarshal(text, &r); err != nil || res.StatusCode != tt.status || !strings.Contains(r.Error(), tt.want) {
			t.Errorf("%s %v: got %d %s, want %d and %q", tt.path, tt.headers, res.StatusCode, text, tt.status, tt.want)
		}
	}
}

// TestStopWithClients stops a broker with clients of all forms, one of which does not
// read.
func TestStopWithClients(t *testing.T) {
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	sse, ws := web.follow("orders/events"), web.webSocket("orders/events?group=g")
	polled := make(chan int, 1)
	go func() {
		res, err := web.do(testContext(t), http.MethodGet, "/v1/topics/orders/events?wait=1m", nil, "Accept: application/x-ndjson")
		if err != nil {
			polled <- 0
			return
		}
		_ = res.Body.Close()
		polled <- res.StatusCode
	}()
	deaf := web.follow("noise/events")
	fill := strings.Repeat("x", 1<<20)
	for range 32 {
		web.post(http.StatusAccepted, "noise", fill)
	}
	for b.gateway.open.Load() < 4 {
		awaitTick(t)
	}
	closed := make(chan error, 1)
	go func() {
		_, _, err := ws.Read(testContext(t))
		closed <- err
	}()
	stop(t, b)
	if _, err := sse.next(); err == nil {
		t.Error("a stream goes on")
	}
	if err := <-closed; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("a WebSocket ended with %v", err)
	}
	if status := <-polled; status != http.StatusServiceUnavailable {
		t.Errorf("a poll ended with %d", status)
	}
	deaf.close()
}

// awaitTick gives other goroutines a moment before a fact is checked again.
func awaitTick(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(5 * time.Millisecond):
	case <-testContext(t).Done():
		t.Fatal("waited too long")
	}
}

// TestEverybodyGetsEverything publishes over each protocol, and checks that clients of
// each kind get every message.
func TestEverybodyGetsEverything(t *testing.T) {
	hook, stuck := newReceiver(t), newReceiver(t)
	b := start(t, config(t, twoTopics+"\n"+hook.webhook("from: orders")+
		fmt.Sprintf("  - {name: stuck, url: %s, secret: %s, private: true, from: orders}\n", stuck.server.URL, testSecret)))
	hold := make(chan struct{})
	defer close(hold)
	stuck.reply(func(int, http.ResponseWriter, *delivered) { <-hold })
	web := newWebClient(t, b)
	native := openStored(t, b, "orders")
	sub, err := native.Subscribe(testContext(t), driver.SubscribeConfig{Window: 256})
	if err != nil {
		t.Fatal(err)
	}
	sse, ws := web.follow("orders/events"), web.webSocket("orders/events")
	one, two := web.webSocket("orders/events?group=g"), web.webSocket("orders/events?group=g")
	shares := make(chan int, 100)
	for _, conn := range []*websocket.Conn{one, two} {
		go func() {
			for {
				_, text, err := conn.Read(context.WithoutCancel(t.Context()))
				if err != nil {
					return
				}
				var e eventData
				_ = json.Unmarshal(text, &e)
				if conn.Write(context.WithoutCancel(t.Context()), websocket.MessageText, fmt.Appendf(nil, `{"ack":%d}`, e.Seq)) != nil {
					return
				}
				shares <- e.Data.N
			}
		}()
	}
	for i := range 40 {
		if i%2 == 0 {
			web.numbers(http.StatusCreated, "orders", i, 1)
		} else if err := native.Publish(testContext(t), []*driver.Message{{ContentType: "application/json", Data: fmt.Appendf(nil, `{"n":%d}`, i)}}); err != nil {
			t.Fatal(err)
		}
	}
	sse.want(upTo(0, 40)...)
	for i := range 40 {
		if e := web.hear(ws); e.Data.N != i {
			t.Fatalf("got %+v, want %d", e, i)
		}
	}
	var natively []int
	for len(natively) < 40 {
		ms, err := sub.Receive(testContext(t), 40)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			var v struct{ N int }
			_ = json.Unmarshal(m.Data, &v)
			natively = append(natively, v.N)
		}
	}
	if !slices.Equal(natively, upTo(0, 40)) {
		t.Errorf("the native client got %v", natively)
	}
	var shared []int
	for len(shared) < 40 {
		select {
		case n := <-shares:
			shared = append(shared, n)
		case <-testContext(t).Done():
			t.Fatalf("the group got %v", shared)
		}
	}
	if slices.Sort(shared); !slices.Equal(shared, upTo(0, 40)) {
		t.Errorf("the group got %v, want each once", shared)
	}
	var hooked []int
	for range 40 {
		var v struct{ N int }
		_ = json.Unmarshal(hook.next().body, &v)
		hooked = append(hooked, v.N)
	}
	if slices.Sort(hooked); !slices.Equal(hooked, upTo(0, 40)) {
		t.Errorf("the webhook got %v, want each once", hooked)
	}
	stuck.next() // and was not waited for
}

var _ engineConn = (*natsdriver.Conn)(nil)

// TestDeafClients has clients that read nothing next to one that reads. The reader gets
// everything, publishers do not wait, and the others are disconnected.
func TestDeafClients(t *testing.T) {
	t.Parallel()
	b := start(t, config(t, twoTopics))
	b.gateway.timeout = 3 * time.Second
	web := newWebClient(t, b)
	const deaf, messages = 2, 240 // more than a hub and the connection of a client hold
	for range deaf {
		_ = web.follow("quick/events")
		_ = web.follow("noise/events")
	}
	good, noisy := web.follow("quick/events"), web.follow("noise/events")
	fill := strings.Repeat("x", 64<<10)
	heard := make(chan error, 1)
	go func() {
		for i := range messages {
			if e, err := noisy.next(); err != nil || e.data.Data.N != i || e.name != "" {
				heard <- fmt.Errorf("got %+v, %w, want %d", e, err, i)
				return
			}
		}
		heard <- nil
	}()
	for i := range messages {
		web.post(http.StatusCreated, "quick", fmt.Sprintf(`{"n":%d,"fill":"%s"}`, i, fill))
		web.post(http.StatusAccepted, "noise", fmt.Sprintf(`{"n":%d,"fill":"%s"}`, i, fill))
		good.want(i)
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	for b.gateway.open.Load() > 2 {
		awaitTick(t)
	}
	b.gateway.fans.mu.Lock()
	defer b.gateway.fans.mu.Unlock()
	for key, h := range b.gateway.fans.hubs {
		h.mu.Lock()
		if h.size > hubSize+1<<20 {
			t.Errorf("%s keeps %d bytes", key.topic, h.size)
		}
		h.mu.Unlock()
	}
}

// TestDropped compares the number of missed messages that a client is told with the
// number it has missed.
func TestDropped(t *testing.T) {
	b := start(t, config(t, ""))
	b.gateway.timeout = patience // it is not to be cut off
	web := newWebClient(t, b)
	s := web.follow("noise/events")
	const messages = 1200 // more than a hub and the connection hold
	fill := strings.Repeat("x", 16<<10)
	for i := range messages {
		web.post(http.StatusAccepted, "noise", fmt.Sprintf(`{"n":%d,"fill":"%s"}`, i, fill))
	}
	at, told := 0, 0
	for at < messages {
		e, err := s.next()
		if err != nil {
			t.Fatalf("after %d: %v", at, err)
		}
		if e.name == "dropped" {
			told += int(e.data.Dropped)
			at += int(e.data.Dropped)
			continue
		}
		if e.data.Data.N != at {
			t.Fatalf("got number %d, and was told of %d dropped, want %d", e.data.Data.N, told, at)
		}
		at++
	}
	if told == 0 {
		t.Error("nothing was dropped, so nothing is shown")
	}
	t.Logf("%d of %d were dropped", told, messages)
}

// TestWebSocketFlood sends invalid messages over WebSockets. Each connection is closed,
// and the broker continues to work.
func TestWebSocketFlood(t *testing.T) {
	t.Parallel()
	b := start(t, config(t, twoTopics))
	web := newWebClient(t, b)
	web.numbers(http.StatusCreated, "orders", 0, 1)
	closed := func(name string, flood func(conn *websocket.Conn) error) {
		t.Helper()
		conn := web.webSocket("orders/events?group=flood")
		var err error
		for err == nil {
			err = flood(conn)
		}
		if testContext(t).Err() != nil {
			t.Errorf("%s: it is not closed: %v", name, err)
		}
	}
	closed("a large message", func(conn *websocket.Conn) error {
		return conn.Write(testContext(t), websocket.MessageText, bytes.Repeat([]byte{' '}, maxClientMessage+1))
	})
	closed("a large message in fragments of a byte", func(conn *websocket.Conn) error {
		w, err := conn.Writer(testContext(t), websocket.MessageText)
		for range maxClientMessage + 1 {
			if err != nil {
				return err
			}
			_, err = w.Write([]byte{' '})
		}
		return errors.Join(err, w.Close())
	})
	closed("bytes", func(conn *websocket.Conn) error {
		return conn.Write(testContext(t), websocket.MessageBinary, []byte(`{"ack":1}`))
	})
	// Acknowledgements of messages that are not in flight are ignored, however many
	// there are.
	conn := web.webSocket("orders/events?group=acks&from=start")
	for range 2000 {
		web.say(conn, `{"ack":[7,8,9]}`)
	}
	if e := web.hear(conn); e.Seq != 1 {
		t.Errorf("got %+v beside a flood", e)
	}
	for b.gateway.open.Load() > 1 {
		awaitTick(t)
	}
}
