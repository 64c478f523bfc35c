package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// program finds a program that does not come with Go. If it is missing the test is
// skipped, or fails where everything must be tested.
func program(t *testing.T, name, why string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("HARK_REQUIRE") == "all" {
		t.Fatalf("%s is missing: %s", name, why)
	}
	t.Skipf("SKIPPED, not tested: %s is missing: %s", name, why)
	return ""
}

const allProtocols = "mqtt: {listen: \"127.0.0.1:0\"}\nwebsocket: {listen: \"127.0.0.1:0\"}\ntopics: [{name: orders.placed, durability: relaxed}]\n"

// TestNATSOverWebSocket connects the NATS client over a WebSocket.
func TestNATSOverWebSocket(t *testing.T) {
	b := start(t, config(t, allProtocols))
	nc, err := nats.Connect("ws://" + b.WebSocketAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("orders.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	web := newWebClient(t, b)
	web.post(http.StatusCreated, "orders.placed", `{"n":1}`)
	msg, err := sub.NextMsgWithContext(testContext(t))
	if err != nil || string(msg.Data) != `{"n":1}` || msg.Header.Get("ce-type") != "orders.placed" {
		t.Errorf("got %+v, %v", msg, err)
	}
	sse := web.follow("orders.placed/events")
	js := jetStreamOf(t, nc)
	if ack, err := js.Publish("orders.placed", []byte(`{"n":2}`)); err != nil || ack.Sequence != 2 {
		t.Errorf("got %+v, %v", ack, err)
	}
	sse.want(2)
	if s := b.Summary(); !strings.Contains(s, "mqtt://"+b.MQTTAddr()) || !strings.Contains(s, "ws://"+b.WebSocketAddr()) {
		t.Errorf("they are not in the summary:\n%s", s)
	}
}

// TestWebSocketOrigins checks that pages of other origins are refused.
func TestWebSocketOrigins(t *testing.T) {
	try := func(addr, origin string) error {
		conn, res, err := websocket.Dial(testContext(t), "ws://"+addr, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if err == nil {
			_ = conn.CloseNow()
		} else if res == nil {
			t.Fatal(err)
		}
		return err
	}
	b := start(t, config(t, allProtocols))
	if err := try(b.WebSocketAddr(), "https://evil.example"); err == nil {
		t.Error("a page of another host may connect")
	}
	if err := try(b.WebSocketAddr(), "http://"+b.WebSocketAddr()); err != nil {
		t.Errorf("a page of the same host may not connect: %v", err)
	}
	b = start(t, config(t, "web: {origins: \"https://app.example\"}\n"+allProtocols))
	if err := try(b.WebSocketAddr(), "https://app.example"); err != nil {
		t.Errorf("a page that is listed may not connect: %v", err)
	}
	if err := try(b.WebSocketAddr(), "https://evil.example"); err == nil {
		t.Error("a page of another host may connect")
	}
}

// mosquitto runs a mosquitto program against a broker.
func mosquitto(t *testing.T, b *Broker, name string, args ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(b.MQTTAddr())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	t.Cleanup(cancel)
	// Into a pipe it would write whole blocks; stdbuf is part of coreutils.
	return exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", program(t, name, "Debian has it in mosquitto-clients"), "-V", "311", "-h", host, "-p", port}, args...)...)
}

// TestMQTT publishes and subscribes with the mosquitto clients.
func TestMQTT(t *testing.T) {
	users := fmt.Sprintf("users:\n  - {name: shop, token: %q, publish: orders.>, subscribe: orders.>}\n  - {name: all, token: %q, publish: \">\", subscribe: \">\", admin: \">\"}\n", HashToken("s"), HashToken("a"))
	b := start(t, config(t, allProtocols+users))
	in := mosquitto(t, b, "mosquitto_sub", "-u", "shop", "-P", "s", "-q", "1", "-t", "orders/+", "-F", "%t %p", "-d")
	out, err := in.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in.Stderr = in.Stdout
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Process.Kill() // it does not exit by itself
		_ = in.Wait()
	}()
	lines := bufio.NewScanner(out)
	read := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("mosquitto_sub has not said %q: %v", want, lines.Err())
	}
	read("SUBACK")
	a := newAPI(t, b, "Bearer s")
	a.want(http.StatusCreated, "publish", args{"topic": "orders.placed"}, map[string]int{"n": 1}, nil)
	read(`orders/placed {"n":1}`)

	topic, err := dial(t, b, "all:a@").OpenTopic(testContext(t), driver.TopicConfig{Name: "orders.placed", Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Window: 1})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := mosquitto(t, b, "mosquitto_pub", "-u", "shop", "-P", "s", "-q", "1", "-t", "orders/placed", "-m", `{"n":2}`).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, text)
	}
	ms, err := sub.Receive(testContext(t), 1)
	if err != nil || string(ms[0].Data) != `{"n":2}` || ms[0].Seq != 2 {
		t.Errorf("got %+v, %v", ms, err)
	}
	read(`orders/placed {"n":2}`)

	// Users and their permissions apply to MQTT too.
	if text, err := mosquitto(t, b, "mosquitto_pub", "-u", "shop", "-P", "wrong", "-t", "orders/placed", "-m", "x").CombinedOutput(); err == nil {
		t.Errorf("a wrong token is let in: %s", text)
	}
	if text, err := mosquitto(t, b, "mosquitto_sub", "-u", "shop", "-P", "s", "-t", "other/x", "-W", "1", "-d").CombinedOutput(); !strings.Contains(string(text), "128") && !strings.Contains(string(text), "denied") {
		t.Errorf("a topic that is not for the user: got %v, %s", err, text)
	}
}

// TestEventSource follows a topic from a page in a browser, from another origin.
func TestEventSource(t *testing.T) {
	browser := program(t, "chromium-headless-shell", "it is the browser whose EventSource is tested")
	page := make(chan string, 1)
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(rw, <-page)
	}))
	defer site.Close()
	b := start(t, config(t, allProtocols+"web: {origins: \""+site.URL+"\"}\n"))
	web := newWebClient(t, b)
	web.numbers(http.StatusCreated, "orders.placed", 0, 5)
	page <- fmt.Sprintf(`<body><script>
		const got = [];
		const source = new EventSource("%s/v1/topics/orders.placed/events?from=start");
		source.onmessage = e => {
			got.push([e.lastEventId.split(".")[0], JSON.parse(e.data).data.n]);
			if (got.length == 5) { source.close(); document.body.textContent = "GOT " + JSON.stringify(got); }
		};
		source.onerror = e => { document.body.textContent = "ERROR " + source.readyState; };
	</script>`, web.base)
	text, err := exec.CommandContext(testContext(t), browser, "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--user-data-dir="+t.TempDir(), "--dump-dom", site.URL).CombinedOutput()
	if want := `GOT [["1",0],["2",1],["3",2],["4",3],["5",4]]`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("got %v, %s, want %s", err, text, want)
	}
}
