package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/race"
	"github.com/harkbus/hark/internal/tempfs"
)

// The tests in this file measure a broker, in its own process, under hard
// conditions. With HARK_LONG=1 they use the numbers that docs/reliability.md
// states.

// raw is a client that speaks the protocol by hand.
type raw struct {
	net.Conn
	in *bufio.Reader
}

// dialRaw connects, and returns once the server has answered.
func dialRaw(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &raw{conn, bufio.NewReader(conn)}
	r.write(t, "CONNECT {\"verbose\":false}\r\n")
	r.ping(t)
	return r
}

func (r *raw) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(r, text); err != nil {
		t.Fatal(err)
	}
}

// ping returns once the server has answered.
func (r *raw) ping(t *testing.T) {
	t.Helper()
	r.write(t, "PING\r\n")
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "PONG") {
			return
		}
	}
}

// connectTo connects a plain NATS client.
func connectTo(t *testing.T, addr string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func jetStreamOf(t *testing.T, nc *nats.Conn) nats.JetStreamContext {
	t.Helper()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// echo fails if a message does not get through the broker.
func echo(t *testing.T, nc *nats.Conn) time.Duration {
	t.Helper()
	sub, err := nc.SubscribeSync("echo")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := nc.Publish("echo", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	return took
}

// fill publishes messages of 100 kB until the broker accepts no more, and returns
// how many it accepted, and the reason. After a failed write to the disk it waits
// two seconds for answers: those that have not come by then never come.
func fill(t *testing.T, b *Broker, topic driver.Topic) (stored int, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var watch sync.WaitGroup
	watch.Go(func() {
		for b.store.WriteFault() == "" && sleep(ctx, 10*time.Millisecond) {
		}
		sleep(ctx, 2*time.Second)
		cancel()
	})
	defer watch.Wait()
	defer cancel()
	for ; stored < 1000; stored++ {
		if err := topic.Publish(ctx, []*driver.Message{{Data: make([]byte, 100_000)}}); err != nil {
			return stored, err
		}
	}
	t.Fatal("the disk does not get full")
	return 0, nil
}

// TestFullStore fills the share of the disk that topics may use. Publishers are
// told, and the stored messages stay.
func TestFullStore(t *testing.T) {
	dir := tempfs.Mount(t, "size=24m")
	b := start(t, configIn(t, dir, "topics: [{name: orders}, {name: other}]"))
	c := dial(t, b, "")
	stored, err := fill(t, b, storedTopic(t, c, "orders"))
	if !errors.Is(err, driver.ErrFull) {
		t.Errorf("after %d messages: got %v, want ErrFull", stored, err)
	}
	t.Logf("%d messages of 100 kB fit into 24 MiB; then: %v", stored, err)
	if code, body := get(t, b, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: got %d %v", code, body)
	}
	// Deleting messages makes room at once.
	for seq := range uint64(5) {
		if err := b.conn.DeleteMessage(testContext(t), "orders", seq+1); err != nil {
			t.Fatal(err)
		}
	}
	publishTo(t, storedTopic(t, c, "other"), &driver.Message{Data: []byte("1")})
	receive(t, replay(t, c, "orders"), stored-5)
}

// TestFullDisk fills the disk with other files while the broker believes it has
// room. No acknowledged message is lost, what needs no disk goes on, and /readyz
// says what to do.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := tempfs.Mount(t, "size=24m")
	others, data := filepath.Join(dir, "others"), filepath.Join(dir, "data")
	if err := os.WriteFile(others, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "topics: [{name: orders}]\nlimits: {disk: 1GiB}"
	b := start(t, configIn(t, data, text))
	c := dial(t, b, "")
	stored, err := fill(t, b, storedTopic(t, c, "orders"))
	if stored < 50 {
		t.Errorf("got %v after %d messages", err, stored)
	}
	t.Logf("%d messages of 100 kB were stored; then: %v", stored, err)
	sub := listen(t, c, "live.*")
	publish(t, c, "live.x", &driver.Message{Data: []byte("2")})
	receive(t, sub, 1)
	receive(t, replay(t, c, "orders"), stored)
	if code, body := get(t, b, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body["detail"], "free some space") || !strings.Contains(b.store.WriteFault(), "no space left on device") {
		t.Errorf("/readyz: got %d %v, want what is wrong with the disk", code, body)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}

	// Once there is room the broker accepts messages by itself again, and has all
	// that it acknowledged.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for code := 0; code != http.StatusOK; code, _ = get(t, b, "/readyz") {
		if !sleep(ctx, 20*time.Millisecond) {
			t.Fatal("the broker does not become ready")
		}
	}
	orders := storedTopic(t, c, "orders")
	group, err := orders.Subscribe(ctx, driver.SubscribeConfig{Group: "g", From: driver.FromNow, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	check := func(c driver.Conn, want int) {
		t.Helper()
		if s := stats(t, storedTopic(t, c, "orders")); s.Stored != uint64(want) {
			t.Errorf("got %+v, want the %d that were acknowledged, and what came then", s, stored)
		}
	}
	publishTo(t, orders, &driver.Message{Data: []byte("3")})
	if m := receive(t, group, 1)[0]; string(m.Data) != "3" {
		t.Errorf("got %s", m.Data)
	}
	check(c, stored+1)
	stop(t, b)
	b = start(t, configIn(t, data, text))
	c = dial(t, b, "")
	publishTo(t, storedTopic(t, c, "orders"), &driver.Message{Data: []byte("4")})
	check(c, stored+2)
}

// TestIdleConnections keeps many idle connections with one subscription each.
func TestIdleConnections(t *testing.T) {
	n := long(500, 10_000)
	b := startChild(t, childConfig(t, ""))
	nc := connectTo(t, b.addr)
	before := b.memory(t)
	start := time.Now()
	conns := make([]*raw, n)
	for i := range conns {
		conns[i] = dialRaw(t, b.addr)
		conns[i].write(t, fmt.Sprintf("SUB idle.%d 1\r\n", i))
	}
	for _, c := range conns {
		c.ping(t)
	}
	took, after := time.Since(start), b.memory(t)
	t.Logf("%d idle connections took %v to make and have %d MiB (%d before); a message through the broker takes %v", n, took.Round(time.Millisecond), after, before, echo(t, nc))
	if limit := before + 50 + n/16; after > limit && !race.Enabled { // 64 kB each
		t.Errorf("the broker has %d MiB, want at most %d", after, limit)
	}
	for i := 0; i < n; i += max(n/20, 1) { // they are still alive
		if err := nc.Publish(fmt.Sprintf("idle.%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
		line, err := conns[i].in.ReadString('\n')
		if line == "PING\r\n" { // the server pings new clients
			line, err = conns[i].in.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(line, "MSG") {
			t.Fatalf("connection %d: got %q, %v", i, line, err)
		}
	}
}

// TestSubscriberThatNeverReads has one such subscriber next to one that reads,
// while far more is published than may be buffered for it.
func TestSubscriberThatNeverReads(t *testing.T) {
	messages := long(640, 20_000) // of 64 KiB
	b := startChild(t, childConfig(t, "limits: {pending: 16MiB, message: 1MiB}"))
	stuck := dialRaw(t, b.addr)
	stuck.write(t, "SUB flood 1\r\n")
	stuck.ping(t)
	before := b.memory(t)
	nc, out := connectTo(t, b.addr), connectTo(t, b.addr)
	got := make(chan struct{}, messages)
	if _, err := nc.Subscribe("flood", func(*nats.Msg) { got <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64<<10)
	peak := 0
	for i := range messages {
		if err := out.Publish("flood", data); err != nil {
			t.Fatal(err)
		}
		if i%16 == 15 { // no faster than the subscriber that reads
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			for range 16 {
				select {
				case <-got:
				case <-testContext(t).Done():
					t.Fatal("the subscriber that reads gets nothing")
				}
			}
		}
		if i%200 == 0 {
			peak = max(peak, b.memory(t))
		}
	}
	t.Logf("%d MiB published beside a subscriber that never reads: the broker has had %d MiB, %d before", messages>>4, peak, before)
	if limit := before + 16 + 150; peak > limit && !race.Enabled {
		t.Errorf("the broker has had %d MiB, want at most %d", peak, limit)
	}
	// It was cut off: what had been sent to it ends.
	if err := stuck.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stuck.in); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("the one that never reads is still connected: %v", err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// TestLargeMessages publishes messages of the maximum size, and one byte more.
func TestLargeMessages(t *testing.T) {
	const limit = 1 << 20
	b := start(t, config(t, "topics: [{name: stored}]\nroutes: [{from: stored, to: routed}]\nlimits: {message: 1MiB}"))
	nc := connectTo(t, b.Addr().String())
	js := jetStreamOf(t, nc)
	if _, err := js.Publish("stored", make([]byte, limit)); err != nil {
		t.Fatal(err)
	}
	c := dial(t, b, "")
	if m := receive(t, replay(t, c, "stored"), 1)[0]; len(m.Data) != limit {
		t.Errorf("got %d bytes", len(m.Data))
	}
	if err := nc.Publish("stored", make([]byte, limit+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("a byte more: got %v, want %v", err, nats.ErrMaxPayload)
	}
	err := storedTopic(t, c, "stored").Publish(testContext(t), []*driver.Message{{Data: make([]byte, limit+1)}})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
		t.Errorf("a byte more, with hark: got %v, want one that names the limit", err)
	}
	// A client that ignores the limit is told, and cut off.
	r := dialRaw(t, b.Addr().String())
	r.write(t, fmt.Sprintf("PUB stored %d\r\n", limit+1))
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if line, err := r.in.ReadString('\n'); err != nil || !strings.Contains(line, "Maximum Payload Violation") {
		t.Errorf("a client that does not look at the limit: got %q, %v", line, err)
	}
	// The route cannot add its header to the largest message, and goes on.
	publishTo(t, storedTopic(t, c, "stored"), &driver.Message{Data: []byte("small")})
	if s := waitForRoute(t, b, func(s RouteStats) bool { return s.Routed == 1 }); s.Failed != 1 {
		t.Errorf("got %+v, want one message that failed and one that was routed", s)
	}
}

// TestLargeMessagesThatWait has a route that is not at work while large messages come: those
// that wait for it are bounded in bytes, and the others are counted.
func TestLargeMessagesThatWait(t *testing.T) {
	const size = 4 << 20
	b := start(t, config(t, "routes: [{from: live, to: routed}]"))
	c := dial(t, b, "")
	routed := listen(t, c, "routed")
	reader := b.routing.readers[readerKey{"live", false}]
	resume, ok := reader.pause(testContext(t), time.Minute)
	if !ok {
		t.Fatal("the route does not pause")
	}
	const n = liveSize/size + 4
	for range n {
		publish(t, c, "live", &driver.Message{Data: make([]byte, size)})
	}
	for _, c := range []driver.Conn{c, b.conn} { // the second knows what the first has sent
		if err := c.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	lag, err := reader.sub.Lag(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if lag.Waiting+lag.Lost != n || lag.Waiting > liveSize/size {
		t.Errorf("got %+v of %d messages of %d bytes, want at most %d bytes that wait", lag, n, size, liveSize)
	}
	resume()
	receive(t, routed, int(lag.Waiting))
	publish(t, c, "live", &driver.Message{Data: []byte(`"end"`)})
	if m := receive(t, routed, 1)[0]; string(m.Data) != `"end"` {
		t.Errorf("got %d bytes more, want what was published later", len(m.Data))
	}
}

// waitForRoute waits for the counters of the first route.
func waitForRoute(t *testing.T, b *Broker, done func(RouteStats) bool) RouteStats {
	t.Helper()
	for ctx := testContext(t); ; {
		s := b.RouteStats()[0]
		if done(s) {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("got %+v", s)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestManyTopics has a subscriber on each of many topics, some of which are stored.
func TestManyTopics(t *testing.T) {
	n, keep := long(5_000, 100_000), long(50, 1_000)
	var text strings.Builder
	text.WriteString("topics:\n")
	for i := range keep {
		fmt.Fprintf(&text, "  - {name: stored.%d}\n", i)
	}
	file := childConfig(t, text.String())
	empty := startChild(t, childConfig(t, ""))
	start := time.Now()
	b := startChild(t, file)
	made := time.Since(start)
	stored := b.memory(t) - empty.memory(t)
	nc := connectTo(t, b.addr)
	got := make(chan *nats.Msg, n)
	start = time.Now()
	for i := range n {
		if _, err := nc.ChanSubscribe(fmt.Sprintf("live.%d", i), got); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := nc.Publish(fmt.Sprintf("live.%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		select {
		case <-got:
		case <-testContext(t).Done():
			t.Fatalf("%d of %d messages came", i, n)
		}
	}
	took := time.Since(start)
	live := b.memory(t) - stored - empty.memory(t)
	b.kill()
	start = time.Now()
	startChild(t, file)
	t.Logf("%d stored topics: made and started in %v, %d MiB, started again after kill -9 in %v; %d other topics with a subscriber and a message each: %v, %d MiB",
		keep, made.Round(time.Millisecond), stored, time.Since(start).Round(time.Millisecond), n, took.Round(time.Millisecond), live)
	if limit := 64 + n/100; live > limit && !race.Enabled { // 10 kB each
		t.Errorf("%d topics take %d MiB, want at most %d", n, live, limit)
	}
}

// TestManyTopicsOfAStore stores a message on each of many topics of one pattern,
// lists and counts them, and restarts the broker after kill -9.
func TestManyTopicsOfAStore(t *testing.T) {
	n := long(1_200, 100_000)
	file := childConfig(t, "topics: [{name: many.*, durability: relaxed}]")
	b := startChild(t, file)
	before := b.memory(t)
	nc := connectTo(t, b.addr)
	js := jetStreamOf(t, nc)
	start := time.Now()
	for i := range n {
		if _, err := js.PublishAsync(fmt.Sprintf("many.%d", i), []byte(`{"n":1}`)); err != nil {
			t.Fatal(err)
		}
		if i%1000 != 999 && i != n-1 {
			continue
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-time.After(patience):
			t.Fatal("not all are acknowledged")
		}
	}
	stored := time.Since(start)
	ask := func(path string) (string, time.Duration) {
		t.Helper()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.http+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %d %.200s, %v", path, res.StatusCode, text, err)
		}
		return string(text), time.Since(start)
	}
	page, listing := ask("/v1/admin/topics?limit=100")
	metrics, gathering := ask("/metrics")
	stores, counting := ask("/v1/admin/stores")
	after := b.memory(t)
	if strings.Count(page, `"topic":"many.`) != 100 || !strings.Contains(metrics, "hark_metrics_truncated 1") || strings.Count(metrics, `hark_topic_messages{topic="many.`) != maxLabelled ||
		!strings.Contains(stores, fmt.Sprintf(`"topics":%d`, n)) {
		t.Errorf("got\n%.500s\n%.500s\n%s", page, metrics, stores)
	}
	b.kill()
	start = time.Now()
	b = startChild(t, file)
	again := time.Since(start)
	if stores, _ := ask("/v1/admin/stores"); !strings.Contains(stores, fmt.Sprintf(`"messages":%d`, n)) {
		t.Errorf("after kill -9: got %s", stores)
	}
	t.Logf("%d topics: stored in %v; a page of 100 listed in %v, metrics gathered in %v, the store counted in %v; %d MiB, %d before; started again after kill -9 in %v",
		n, stored.Round(time.Millisecond), listing.Round(time.Millisecond), gathering.Round(time.Millisecond), counting.Round(time.Millisecond), after, before, again.Round(time.Millisecond))
	if limit := before + 64 + n/250; after > limit && !race.Enabled { // 4 kB each
		t.Errorf("%d topics take %d MiB, want at most %d", n, after-before, limit-before)
	}
}

// garbage returns data that no client should send.
func garbage(r *rand.Rand, i int) string {
	noise := make([]byte, 1+r.IntN(8192))
	for j := range noise {
		noise[j] = byte(r.Uint32())
	}
	return []string{
		string(noise),
		"PUB x 99999999999999999999\r\n",
		"PUB x -1\r\nabc\r\n",
		"PUB " + strings.Repeat("a", 100_000) + " 1\r\nx\r\n",
		"CONNECT {" + strings.Repeat(`"a":[`, 2_000) + "\r\n",
		"CONNECT {}\r\nSUB > 1\r\nSUB\r\n",
		"HPUB x 20 10\r\nNATS/1.0\r\n\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(noise), // TLS
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n",
		"GET /" + strings.Repeat("%", 1000) + " HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 200) + "\r\n",
	}[i%13]
}

// TestGarbageUnderLoad sends garbage to both ports while messages are stored. None
// is lost, and memory use does not grow.
func TestGarbageUnderLoad(t *testing.T) {
	attempts := long(300, 10_000)
	b := startChild(t, childConfig(t, "topics: [{name: orders}]"))
	before := b.memory(t)
	nc := connectTo(t, b.addr)
	js := jetStreamOf(t, nc)
	var all sync.WaitGroup
	for worker, addr := range []string{b.addr, b.http, b.addr, b.http} {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for i := range attempts / 4 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Errorf("attempt %d: %v", i, err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(conn, garbage(r, i)) // the broker may refuse it halfway
				if i%13 == 0 {
					_, _ = conn.Read(make([]byte, 512)) // the broker's answer
				}
				_ = conn.Close()
			}
		})
	}
	stored := 0
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	for over := false; !over; {
		if _, err := js.Publish("orders", fmt.Appendf(nil, "%d", stored)); err != nil {
			t.Fatalf("message %d: %v", stored, err)
		}
		stored++
		select {
		case <-ended:
			over = true
		default:
		}
	}
	info, err := js.StreamInfo("hark-topic-orders")
	if err != nil || info.State.Msgs != uint64(stored) {
		t.Errorf("got %+v, %v, want %d messages", info, err, stored)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + b.http + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("/readyz: got %s", res.Status)
	}
	after := b.memory(t)
	t.Logf("%d connections with garbage, %d messages stored meanwhile; the broker has %d MiB, %d before; a message takes %v", attempts, stored, after, before, echo(t, nc))
	if limit := before + 100; after > limit && !race.Enabled {
		t.Errorf("the broker has %d MiB, want at most %d", after, limit)
	}
}
