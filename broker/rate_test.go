package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestRelayIsHeldToRate publishes more than the rate allows, half of it to where
// acknowledgements go, with real ones in between. Each message arrives when it may, in order, and little is
// read ahead.
func TestRelayIsHeldToRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, count, size = 10, 30, 10_000
		body := strings.Repeat("x", size)
		var said strings.Builder
		said.WriteString("CONNECT {}\r\n")
		for i := range count {
			fmt.Fprintf(&said, "PUB %s.%d %d\r\n%s\r\nPUB $JS.ACK.s.c.1.1.%d.1.0 0\r\n\r\n", []string{"a", "$JS.ACK.a"}[i%2], i, size, body, i)
		}
		for name, rule := range map[string]*replyRule{"restricted": eveRule, "everything": {everything: true}} {
			rest, read, got := said.String(), 0, 0
			client := readerFunc(func(p []byte) (int, error) {
				n := copy(p, rest[read:])
				if read += n; n == 0 {
					return 0, io.EOF
				}
				return n, nil
			})
			began, arrived, acked := time.Now(), 0, 0
			server := writerFunc(func(p []byte) (int, error) {
				got += len(p)
				arrived += strings.Count(string(p), fmt.Sprintf(" %d\r\n", size))
				acked += strings.Count(string(p), "$JS.ACK.s.")
				most := rate + int((time.Since(began)+time.Microsecond)*rate/time.Second)
				if arrived > most || acked > arrived {
					t.Errorf("%s: %d messages and %d acknowledgements after %v, want at most %d", name, arrived, acked, time.Since(began), most)
				}
				if read-got > largeBufferSize {
					t.Errorf("%s: %d bytes are read ahead", name, read-got)
				}
				return len(p), nil
			})
			r := newRelay(client, server, func() (*replyRule, error) { return rule, nil })
			r.limiter = &publishLimiter{rates: newRates(rate), who: "eve"}
			if err := r.run(); err != io.EOF {
				t.Error(err)
			}
			if took := time.Since(began).Round(time.Millisecond); took != (count-rate)*time.Second/rate || got != len(rest) || acked != count {
				t.Errorf("%s: %d bytes of %d, %d acknowledgements in %v", name, got, len(rest), acked, took)
			}
		}
	})
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestHeldBackForLong makes a client wait for the messages of its user's other
// clients. The server hears that it is alive, and the wait ends with its
// connection.
func TestHeldBackForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(1)
		for range 600 {
			r.reserve("eve")
		}
		began, flushed, alive := time.Now(), 0, 0
		over := make(chan struct{})
		p := &publishLimiter{rates: r, who: "eve", over: over}
		await := func() error {
			return p.await(func() error { flushed++; return nil }, func() error { alive++; return nil })
		}
		if err := await(); err != nil || flushed != 1 || alive != 3 || time.Since(began).Round(time.Second) != 600*time.Second {
			t.Errorf("got %v after %v, flushed %d times, said %d times that it is there", err, time.Since(began), flushed, alive)
		}
		time.AfterFunc(100*time.Millisecond, func() { close(over) })
		if err := await(); !errors.Is(err, errRefused) {
			t.Errorf("the connection is over: got %v", err)
		}
		if wait := r.reserve("eve"); wait > time.Second {
			t.Errorf("the next message waits for %v, and so for one that was never sent", wait)
		}
		p.who = "bob"
		if now := time.Now(); await() != nil || !time.Now().Equal(now) {
			t.Error("somebody else is held back")
		}
	})
}

// handClock is a clock moved by a test.
type handClock struct {
	mu    sync.Mutex // guards the fields below
	now   time.Time
	waits []handWait
}

type handWait struct {
	until time.Time
	over  chan time.Time
}

// set makes a broker use the clock. No client may be held back yet.
func (c *handClock) set(b *Broker) {
	r := b.proxy.rates
	r.mu.Lock()
	defer r.mu.Unlock()
	c.now = time.Now()
	r.now = func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.now
	}
	r.after = func(d time.Duration) <-chan time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		w := handWait{c.now.Add(d), make(chan time.Time, 1)}
		c.waits = append(c.waits, w)
		return w.over
	}
}

// advance moves the clock, and ends the waits that are over by then.
func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	left := c.waits[:0]
	for _, w := range c.waits {
		if w.until.After(c.now) {
			left = append(left, w)
			continue
		}
		w.over <- c.now
	}
	c.waits = left
}

// held returns once a number of clients wait.
func (c *handClock) held(t *testing.T, want int) {
	t.Helper()
	for ctx := testContext(t); ; {
		c.mu.Lock()
		n := len(c.waits)
		c.mu.Unlock()
		if n == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d clients are held back, want %d", n, want)
		case <-time.After(time.Millisecond):
		}
	}
}

// heard subscribes, and returns a function that waits for the next n messages. With
// look it also asks the server whether there are more, for which the client must
// not be held back.
func heard(t *testing.T, nc *nats.Conn, subject string, look bool) func(n int) []string {
	t.Helper()
	got := make(chan *nats.Msg, 1000)
	if _, err := nc.ChanSubscribe(subject, got); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func(n int) (all []string) {
		t.Helper()
		for ctx := testContext(t); len(all) < n; {
			select {
			case m := <-got:
				all = append(all, string(m.Data))
			case <-ctx.Done():
				t.Fatalf("got %d messages, want %d", len(all), n)
			}
		}
		if look {
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) > 0 {
			t.Fatalf("got %d messages more than %d", len(got), n)
		}
		return all
	}
}

// TestRateOfUsers publishes more than a second's worth as one user over two
// connections, one of them a WebSocket. Both are held back together, they still
// receive messages, nobody else is held back, and nothing is lost.
func TestRateOfUsers(t *testing.T) {
	const rate, each = 5, 20
	b := start(t, config(t, proxyUsers(0)+"limits: {rate: 5}\nwebsocket: {listen: '127.0.0.1:0'}\n"))
	var clock handClock
	clock.set(b)
	next := heard(t, connectAs(t, b, "bob", nil), "ask", true)
	plain := connectAs(t, b, "eve", nil)
	web, err := nats.Connect("ws://"+b.WebSocketAddr(), nats.UserInfo("eve", "secret-eve"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(web.Close)
	seen := heard(t, plain, "seen", false)
	for i := range each {
		for name, nc := range map[string]*nats.Conn{"plain": plain, "web": web} {
			if err := nc.Publish("ask", fmt.Append(nil, name, " ", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	of := map[string]int{}
	check := func(n int) {
		t.Helper()
		for _, m := range next(n) {
			name, number, _ := strings.Cut(m, " ")
			if number != fmt.Sprint(of[name]) {
				t.Errorf("got %q, want message %d", m, of[name])
			}
			of[name]++
		}
	}
	held := func(others int) { // counts those that have not published everything
		t.Helper()
		for _, name := range []string{"plain", "web"} {
			if of[name] < each {
				others++
			}
		}
		clock.held(t, others)
	}
	check(rate)
	held(0)

	// Another user, who may do everything, has a rate of its own.
	all := connectAs(t, b, "all", nil)
	for range rate + 1 {
		if err := all.Publish("seen", nil); err != nil {
			t.Fatal(err)
		}
	}
	seen(rate)
	held(1)
	clock.advance(time.Second / rate)
	seen(1)
	check(1)
	for range 2*each - rate - 1 {
		held(0)
		clock.advance(time.Second / rate)
		check(1)
	}
	if of["plain"] != each || of["web"] != each {
		t.Errorf("got %v, want %d of each", of, each)
	}
	const counter = "hark_held_back_messages_total"
	want := fmt.Sprintf("# HELP %s %s\n# TYPE %[1]s counter\n%[1]s{address=\"\",user=\"all\"} 1\n%[1]s{address=\"\",user=\"eve\"} %[3]d\n",
		counter, "Messages that were delayed because a user, or an address if there are no users, published more than limits.rate permits.", 2*each-rate)
	if err := testutil.GatherAndCompare(b.web.metrics.registry, strings.NewReader(want), counter); err != nil {
		t.Error(err)
	}

	// The broker stops while a client is held back.
	for range 2 * rate {
		if err := plain.Publish("ask", nil); err != nil {
			t.Fatal(err)
		}
	}
	clock.held(t, 1)
}

// TestRateOfAddresses limits clients by address on a broker without users.
func TestRateOfAddresses(t *testing.T) {
	const rate = 5
	b := start(t, config(t, "limits: {rate: 5}\ntopics: [{name: orders, durability: relaxed}]"))
	connect := func() *nats.Conn {
		nc, err := nats.Connect("nats://" + b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	// Nothing is forbidden to clients, and they need not log in.
	m, err := connect().Request("orders", []byte("1"), patience)
	if err != nil || !strings.Contains(string(m.Data), `"seq":1`) {
		t.Fatalf("got %v, %v", m, err)
	}
	r := &raw{dialBroker(t, b), nil}
	defer r.Close()
	r.in = bufio.NewReader(r)
	r.write(t, "SUB there 1\r\nPUB orders there 1\r\n2\r\n")
	r.expect(t, "MSG there 1 ")
	if answer := r.expect(t, "{"); !strings.Contains(answer, `"seq":2`) {
		t.Errorf("got %q", answer)
	}
	var clock handClock
	next := heard(t, connect(), "live", true)
	one, other := connect(), connect()
	clock.set(b)
	clock.advance(time.Hour)
	for range 2 * rate {
		for name, nc := range map[string]*nats.Conn{"one": one, "other": other} {
			if err := nc.Publish("live", []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := map[string]int{"one": 2 * rate, "other": 2 * rate}
	for {
		for _, name := range next(rate) {
			if left[name]--; left[name] == 0 {
				delete(left, name)
			}
		}
		if len(left) == 0 {
			break
		}
		clock.held(t, len(left))
		clock.advance(time.Second)
	}
	const series = `hark_held_back_messages_total{address="127.0.0.1",user=""}`
	if got := numbers(t, newAPI(t, b, "")); got[series] == "" || got["hark_metrics_truncated"] != "0" {
		t.Errorf("got %q of %s, truncated %s", got[series], series, got["hark_metrics_truncated"])
	}
	for i := range maxLabelled {
		for range rate + 2 {
			b.proxy.rates.reserve(fmt.Sprint("host", i))
		}
	}
	got := b.proxy.rates.heldBack()
	if n := got["host0"]; n != 2 {
		t.Errorf("%d messages of the first were held back, want 2", n)
	}
	if n := got[""]; n != 2 || len(got) != maxLabelled+1 {
		t.Errorf("%d messages of %d senders were held back in all others' name, want 2 of the last, which has no number of its own", n, len(got))
	}
	if got := numbers(t, newAPI(t, b, "")); got["hark_metrics_truncated"] != "1" {
		t.Error("nothing says that senders have no numbers of their own")
	}
}

// TestRateInCluster limits clients on a cluster without users. Each broker counts by
// itself, tells its clients where the others' proxies are, and lets nobody go around
// its own.
func TestRateInCluster(t *testing.T) {
	const rate = 5
	addresses := []string{freeAddress(t), freeAddress(t)}
	node := func(i int) string {
		return fmt.Sprintf("name: hark-%d\nlisten: 127.0.0.1:0\ndata: DIR\ncluster: {listen: %s, routes: ['%s']}\nlimits: {rate: 5}\n",
			i, addresses[i], strings.Join(addresses, "','"))
	}
	bs := startAll(t, node(0), node(1))
	var here, there []*nats.Conn
	for range 2 {
		for i, all := range []*[]*nats.Conn{&here, &there} {
			nc, err := nats.Connect("nats://" + bs[i].Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			*all = append(*all, nc)
		}
	}
	discovers(t, here[0], bs[1])
	goesAround(t, bs[0])
	next := heard(t, here[1], "live", true)
	if _, err := here[1].Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil { // if it is lost, the loop below notices
		t.Fatal(err)
	}
	for ctx := testContext(t); ; { // wait until the servers have exchanged subscriptions
		if _, err := there[1].RequestWithContext(ctx, "echo", nil); err == nil {
			break
		} else if !errors.Is(err, nats.ErrNoResponders) {
			t.Fatal(err)
		}
	}
	var clocks [2]handClock
	for i, b := range bs {
		clocks[i].set(b)
		clocks[i].advance(time.Hour)
	}
	publish := func(nc *nats.Conn, n int) {
		t.Helper()
		for range n {
			if err := nc.Publish("live", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(here[0], rate+1)
	next(rate)
	clocks[0].held(t, 1)
	publish(there[0], rate) // of the same address
	next(rate)
	clocks[1].held(t, 0)
	publish(there[0], 1)
	clocks[1].held(t, 1)
	for i := range clocks {
		clocks[i].advance(time.Second / rate)
		next(1)
	}
}

// TestRateOfNetworks checks which addresses are counted together.
func TestRateOfNetworks(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:7": "192.0.2.1", "[2001:db8:1:2:3::4]:7": "2001:db8:1:2::/64", "[fe80::1%eth0]:7": "fe80::/64", "[::ffff:192.0.2.1]:7": "::ffff:192.0.2.1", "pipe": "pipe",
	} {
		if got := senderOf("", address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if got := senderOf("eve", "192.0.2.1:7"); got != "user eve" {
		t.Errorf("got %s", got)
	}
}
