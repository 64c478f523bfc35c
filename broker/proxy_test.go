package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark"
)

// hello logs in as a user by hand, over a connection.
func hello(t *testing.T, conn net.Conn, user string) *raw {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	r := &raw{conn, bufio.NewReader(conn)}
	r.write(t, fmt.Sprintf("connect\t{\"verbose\":false,\"headers\":true,\"no_responders\":true,\"user\":%q,\"pass\":\"secret-%s\"}\n", user, user))
	r.ping(t)
	return r
}

// expect reads lines up to one with a given beginning, and returns it.
func (r *raw) expect(t *testing.T, begin string) string {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v, want %s", err, begin)
		}
		if strings.HasPrefix(line, begin) {
			return line
		}
	}
}

func dialBroker(t *testing.T, b *Broker) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestByHand speaks the protocol by hand as a restricted user. What is allowed
// works, and what is not is refused in the words of the server.
func TestByHand(t *testing.T) {
	b := start(t, config(t, proxyUsers(0)+"limits: {message: 1KiB}\n"))
	r := hello(t, dialBroker(t, b), "eve")
	r.write(t, "sub _INBOX.eve.> 1\r\nSUB seen 2\r\nhpub mine _INBOX.eve.a 16 18\r\nNATS/1.0\r\nA: b\r\nhi\r\n")
	r.expect(t, "MSG _INBOX.eve.a 1 ")
	if body := r.expect(t, "{"); !strings.Contains(body, `"seq":1`) {
		t.Errorf("got %q", body)
	}
	r.write(t, "PUB mine secret 2\r\nhi\r\nPUB nobody _INBOX.eve.b 0\r\n\r\nPUB ask _INBOX.eve.c 0\r\n\r\n")
	for _, want := range []string{
		`-ERR 'Permissions Violation for Publish with Reply of "_R_.secret"'`, `-ERR 'Permissions Violation for Publish to "nobody"'`, "HMSG _INBOX.eve.c 1 ", "NATS/1.0 503",
	} {
		r.expect(t, want)
	}
	// Without the status the server would store this, and then send trace events.
	const headers = "NATS/1.0 1\r\nNats-Trace-Dest: secret\r\n\r\n"
	r.write(t, fmt.Sprintf("HPUB mine _INBOX.eve.d %d %d\r\n%s\r\n", len(headers), len(headers), headers))
	r.expect(t, `-ERR 'Permissions Violation for Publish with Reply of "_R_.headers"'`)
	for _, tt := range []struct{ text, want string }{
		{"PUB mine 1025\r\n", "-ERR 'Maximum Payload Violation'"},
		{"SUB " + strings.Repeat("a", 5000), "-ERR 'maximum control line exceeded'"},
		{"GET / HTTP/1.1\r\n", "-ERR 'Unknown Protocol Operation'"},
		{"CONNECT {}\r\n", "-ERR 'Unknown Protocol Operation'"},
	} {
		r := hello(t, dialBroker(t, b), "eve")
		r.write(t, tt.text)
		r.expect(t, tt.want)
		if _, err := r.in.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("%.20q: got %v, want the connection to end", tt.text, err)
		}
	}
	for _, text := range []string{"CONNECT {\"user\":\"eve\",\"pass\":\"x\"}\r\n", "PUB mine 0\r\n\r\n", "\x16\x03\x01\x00\x05hello\r\n"} {
		r := &raw{dialBroker(t, b), nil}
		r.in = bufio.NewReader(r)
		r.write(t, text)
		if line := r.expect(t, "-ERR"); !strings.Contains(line, "Authorization Violation") {
			t.Errorf("%q: got %q", text, line)
		}
	}
}

// TestFeaturesThroughProxy uses hark as a user who may do everything in each feature, and
// as one who may do only the rest.
func TestFeaturesThroughProxy(t *testing.T) {
	b := start(t, config(t, proxyUsers(0)))
	ctx := testContext(t)
	open := func(user string) *hark.Bus {
		bus, err := hark.Open(ctx, "hark://"+user+":secret-"+user+"@"+b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := bus.Close(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
			}
		})
		return bus
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	eve, bob, all := open("eve"), open("bob"), open("all")

	mine, err := hark.NewTopic[order](eve, "mine", hark.Stored(hark.Retention{}))
	must(err)
	for i := range 100 {
		must(mine.Publish(ctx, order{i}))
	}
	theirs, err := hark.NewTopic[order](bob, "mine", hark.Stored(hark.Retention{}))
	must(err)
	got := make(chan int, 200)
	sub, err := theirs.Subscribe(func(_ context.Context, m *hark.Message[order]) error { got <- m.Value.N; return nil }, hark.Group("g"), hark.FromStart())
	must(err)
	n := 0
	for m, err := range mine.Messages(ctx, hark.FromStart()) {
		must(err)
		if m.Value.N != n {
			t.Fatalf("got %d, want %d", m.Value.N, n)
		}
		if n++; n == 100 {
			break
		}
	}
	for range 100 {
		select {
		case <-got:
		case <-ctx.Done():
			t.Fatal("messages of a group are missing")
		}
	}
	must(sub.Close())

	answering, err := hark.Reply(bob, "ask", func(_ context.Context, o order) (order, error) { return order{o.N + 1}, nil })
	must(err)
	answer, err := hark.Request[order, order](ctx, eve, "ask", order{1})
	if err != nil || answer.N != 2 {
		t.Errorf("got %v, %v", answer, err)
	}
	must(answering.Close())

	seen, err := hark.NewTopic[order](eve, "seen")
	must(err)
	live, err := seen.Subscribe(func(_ context.Context, m *hark.Message[order]) error { got <- m.Value.N; return nil })
	must(err)
	said, err := hark.NewTopic[order](all, "seen")
	must(err)
	must(said.Publish(ctx, order{7}))
	if n := <-got; n != 7 {
		t.Errorf("got %d", n)
	}
	must(live.Close())

	jobs, err := hark.NewChan[int](all, "jobs", 2)
	must(err)
	must(jobs.Send(ctx, 3))
	if j, err := jobs.Receive(ctx); err != nil || j != 3 {
		t.Errorf("got %d, %v", j, err)
	}
	v, err := hark.NewValue(all, "v", 1)
	must(err)
	if now, err := v.Update(ctx, func(n int) int { return n + 1 }); err != nil || now != 2 {
		t.Errorf("got %d, %v", now, err)
	}
	notifier, err := hark.NewNotifier(all)
	must(err)
	must(notifier.Latch(ctx, "ready"))
	must(notifier.Wait(ctx, "ready"))
}

// TestProxyKnowsAddresses checks that the API and the log show the addresses of
// clients.
func TestProxyKnowsAddresses(t *testing.T) {
	var log syncBuffer
	b, err := New(config(t, proxyUsers(0)+"  - {name: root, token: \""+HashToken("r")+"\", admin: '>'}\n"), newTestLogger(&log))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	defer stop(t, b)
	conn := dialBroker(t, b)
	r := hello(t, conn, "eve")
	var list page[*connectionView]
	newAPI(t, b, "Bearer r").want(http.StatusOK, "listConnections", args{"user": "eve"}, nil, &list)
	if len(list.Items) != 1 || list.Items[0].Address != conn.LocalAddr().String() {
		t.Errorf("got %+v", list.Items)
	}
	r.write(t, "PUB mine secret 0\r\n\r\n")
	r.expect(t, "-ERR")
	for ctx := testContext(t); !strings.Contains(log.String(), conn.LocalAddr().String()+" - cid:"); { // it is logged after the answer
		select {
		case <-ctx.Done():
			t.Fatalf("got %s", log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	r.write(t, "INFO {}\r\n")
	r.expect(t, "-ERR")

	// The server presents itself again to those who understand that.
	again := &raw{dialBroker(t, b), nil}
	defer again.Close()
	again.in = bufio.NewReader(again)
	again.expect(t, "INFO ")
	again.write(t, "CONNECT {\"verbose\":false,\"protocol\":1,\"user\":\"eve\",\"pass\":\"secret-eve\"}\r\nPING\r\n")
	if info := again.expect(t, "INFO "); !strings.Contains(info, `"client_ip":"127.0.0.1"`) || !strings.Contains(info, `"connect_info":true`) {
		t.Errorf("got %s", info)
	}

	// The server ends, and another takes its place.
	nc := connectAs(t, b, "eve", nil)
	if ip, err := nc.GetClientIP(); err != nil || ip.String() != "127.0.0.1" {
		t.Errorf("got %v, %v", ip, err)
	}
	lost := make(chan struct{})
	nc.SetDisconnectErrHandler(func(*nats.Conn, error) { close(lost) })
	if err := b.store.Revive(); err != nil {
		t.Fatal(err)
	}
	<-lost
	attempt(t, b, "eve", func(nc *nats.Conn) error { return nc.PublishRequest("mine", nc.NewInbox(), nil) })
	if err := b.conn.Flush(testContext(t)); err != nil { // the broker is connected again
		t.Fatal(err)
	}
}

// TestTooManyForProxy connects more clients than are allowed. The excess ones are
// told so, over TLS too.
func TestTooManyForProxy(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.Server(t)
	for _, secure := range []string{"", fmt.Sprintf("tls: {cert: %q, key: %q}\n", cert, key)} {
		b := start(t, config(t, proxyUsers(0)+secure+"limits: {connections: 2}\n")) // the broker itself counts as one
		scheme := "nats"
		opts := []nats.Option{nats.Timeout(patience)}
		if secure != "" {
			scheme, opts = "tls", append(opts, nats.RootCAs(a.File))
		}
		nc, err := nats.Connect(scheme+"://eve:secret-eve@"+b.Addr().String(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := nats.Connect(scheme+"://eve:secret-eve@"+b.Addr().String(), opts...); err == nil || err.Error() != "nats: maximum connections exceeded" {
			t.Errorf("%s: got %v, %v", scheme, other, err)
		}
		nc.Close()
	}
}

// TestProxyInCluster makes two brokers with users a cluster. Clients of one learn
// the address of the other's proxy, except over WebSockets, and the listeners of the
// servers admit nobody.
func TestProxyInCluster(t *testing.T) {
	const web = "websocket: {listen: '127.0.0.1:0'}\n"
	addresses := []string{freeAddress(t), freeAddress(t)}
	node := func(i int) string {
		return fmt.Sprintf("name: hark-%d\nlisten: 127.0.0.1:0\ndata: DIR\ncluster: {listen: %s, routes: ['%s'], user: node, password: secret-node}\n%s",
			i, addresses[i], strings.Join(addresses, "','"), proxyUsers(0))
	}
	bs := startAll(t, node(0)+web, node(1)+web)
	over, err := nats.Connect("ws://"+bs[0].WebSocketAddr(), nats.UserInfo("all", "secret-all"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(over.Close)
	discovers(t, connectAs(t, bs[0], "all", nil), bs[1])
	// What the servers say about each other is of no use over WebSockets.
	if err := over.Flush(); err != nil || len(over.DiscoveredServers()) > 0 {
		t.Errorf("got %v, %v", over.DiscoveredServers(), err)
	}
	other := connectAs(t, bs[1], "bob", nil)
	sub, err := other.SubscribeSync("ask")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	go func() {
		if m, err := sub.NextMsgWithContext(testContext(t)); err == nil {
			_ = m.Respond([]byte("42")) // if it is lost, the test below notices
		}
	}()
	eve := connectAs(t, bs[0], "eve", nil)
	for ctx := testContext(t); ; { // wait until the servers have exchanged subscriptions
		m, err := eve.RequestWithContext(ctx, "ask", nil)
		if errors.Is(err, nats.ErrNoResponders) {
			continue
		}
		if err != nil || string(m.Data) != "42" {
			t.Errorf("got %v, %v", m, err)
		}
		break
	}
	for _, b := range bs {
		goesAround(t, b)
	}
}

// discovers waits until a client has learnt where the clients of another broker
// connect.
func discovers(t *testing.T, nc *nats.Conn, other *Broker) {
	t.Helper()
	for ctx := testContext(t); !slices.Contains(nc.DiscoveredServers(), "nats://"+other.Addr().String()); {
		select {
		case <-ctx.Done():
			t.Fatalf("got %v, want %s among them", nc.DiscoveredServers(), other.Addr())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// goesAround tries to connect to a server in a cluster around its proxy.
func goesAround(t *testing.T, b *Broker) {
	t.Helper()
	conn, err := net.Dial("tcp", b.store.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := &raw{conn, bufio.NewReader(conn)}
	r.expect(t, "INFO")
	if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(testContext(t)); err == nil {
		t.Error("the server lets somebody in who does not come through the proxy")
	}
}

// TestProxyOverWebSocket connects NATS and MQTT clients over WebSockets, with and
// without TLS.
func TestProxyOverWebSocket(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.Server(t)
	pem, err := os.ReadFile(a.File)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	mqtt := func(scheme, addr string) ([]byte, error) {
		conn, res, err := websocket.Dial(testContext(t), scheme+"://"+addr+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			if res != nil {
				err = fmt.Errorf("%s", res.Status)
			}
			return nil, err
		}
		defer func() { _ = conn.CloseNow() }()
		connect := "\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x03eve\x00\x0asecret-eve"
		if err := conn.Write(testContext(t), websocket.MessageBinary, []byte("\x10"+string(rune(len(connect)))+connect)); err != nil {
			return nil, err
		}
		_, answer, err := conn.Read(testContext(t))
		return answer, err
	}
	secure := fmt.Sprintf("cert: %q, key: %q", cert, key)
	for _, tt := range []struct{ name, text, scheme, mqtt string }{
		{"plain", "mqtt: {listen: '127.0.0.1:0'}", "ws", "\x20\x02\x00\x00"},
		{"over TLS", "mqtt: {listen: '127.0.0.1:0'}\ntls: {" + secure + "}", "wss", "\x20\x02\x00\x00"},
		{"without MQTT", "tls: {" + secure + "}", "wss", "404 Not Found"},
		{"with certificates", fmt.Sprintf("mqtt: {listen: '127.0.0.1:0'}\ntls: {%s, client_ca: %q}", secure, a.File), "wss", "404 Not Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, config(t, proxyUsers(0)+"websocket: {listen: '127.0.0.1:0'}\n"+tt.text+"\n"))
			clientCert, clientKey := a.Client(t)
			pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
			if err != nil {
				t.Fatal(err)
			}
			transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
			answer, err := mqtt(tt.scheme, b.WebSocketAddr())
			if got := string(answer); got != tt.mqtt && (err == nil || err.Error() != tt.mqtt) {
				t.Errorf("MQTT: got %q, %v, want %q", answer, err, tt.mqtt)
			}
			refused := make(chan error, 1)
			opts := []nats.Option{
				nats.UserInfo("eve", "secret-eve"), nats.CustomInboxPrefix("_INBOX.eve"), nats.Timeout(patience),
				nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
			}
			if tt.scheme == "wss" {
				opts = append(opts, nats.RootCAs(a.File), nats.ClientCert(clientCert, clientKey))
			}
			nc, err := nats.Connect(tt.scheme+"://"+b.WebSocketAddr(), opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			large := make([]byte, 200_000)
			if m, err := nc.Request("mine", large, patience); err != nil || !strings.Contains(string(m.Data), `"seq":1`) {
				t.Errorf("got %v, %v", m, err)
			}
			if err := errors.Join(nc.PublishRequest("mine", "secret", nil), nc.Flush()); err != nil {
				t.Fatal(err)
			}
			if err := <-refused; !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestWebSocketsForTheDeaf makes a client request invalid WebSockets again and
// again, without reading the answers. It must be cut off.
func TestWebSocketsForTheDeaf(t *testing.T) {
	t.Parallel()
	b := start(t, config(t, proxyUsers(0)+"websocket: {listen: '127.0.0.1:0'}\n"))
	conn, err := net.Dial("tcp", b.WebSocketAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for ask := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 1000)); err == nil; {
		_, err = conn.Write(ask)
	}
	if isTimeout(err) {
		t.Error("the client is not cut off")
	}
}

// TestProxyStops stops a broker while it has clients in every state.
func TestProxyStops(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.Server(t)
	b := start(t, config(t, fmt.Sprintf("%stls: {cert: %q, key: %q}\nwebsocket: {listen: \"127.0.0.1:0\"}\n", proxyUsers(0), cert, key)))
	for _, addr := range []string{b.Addr().String(), b.WebSocketAddr()} {
		for range 3 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
	}
	for _, url := range []string{"tls://" + b.Addr().String(), "wss://" + b.WebSocketAddr()} {
		nc, err := nats.Connect(url, nats.UserInfo("eve", "secret-eve"), nats.RootCAs(a.File))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	stop(t, b) // anything left behind is found at the end of all tests
}
