package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay stands between a command and a door of a broker, counts what the door sends,
// and cuts connections.
type relay struct {
	to string
	l  net.Listener

	work sync.WaitGroup
	mu   sync.Mutex // guards what follows
	more *sync.Cond
	// sent is how many bytes the door has sent, on so many connections.
	sent, answered int
	open           map[net.Conn]bool
	shut           bool // connections are not let through
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, l: l, open: map[net.Conn]bool{}}
	r.more = sync.NewCond(&r.mu)
	r.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.work.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		r.cut(true)
		r.work.Wait()
	})
	return r
}

func (r *relay) pass(c net.Conn) {
	defer c.Close()
	door, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer door.Close()
	r.mu.Lock()
	if r.shut {
		r.mu.Unlock()
		return
	}
	r.open[c], r.open[door] = true, true
	r.mu.Unlock()
	r.work.Go(func() {
		_, _ = io.Copy(door, c)
		_ = door.Close()
	})
	_, _ = io.Copy(&relayed{r, c, true}, door)
}

// relayed writes what the door sends.
type relayed struct {
	*relay
	to    net.Conn
	first bool
}

// Write implements io.Writer.
func (w *relayed) Write(p []byte) (int, error) {
	n, err := w.to.Write(p) // before it counts, since who waits for that may cut the connection
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent += len(p); w.first {
		w.first = false
		w.answered++
		w.more.Broadcast()
	}
	return n, err
}

// cut ends all connections, and lets none through any more if shut.
func (r *relay) cut(shut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = shut
	for c := range r.open {
		_ = c.Close()
	}
	clear(r.open)
	r.more.Broadcast()
}

func (r *relay) let() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = false
}

// wait waits until the door has answered on so many connections.
func (r *relay) wait(t *testing.T, n int) {
	t.Helper()
	late := time.AfterFunc(serveTimeout, func() { r.cut(true) })
	defer late.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.answered < n && !r.shut {
		r.more.Wait()
	}
	if r.answered < n {
		t.Fatalf("the door has answered on %d connections, want %d", r.answered, n)
	}
}

// answers returns on how many connections the door has answered.
func (r *relay) answers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

func (r *relay) bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

// doors puts relays before both doors of the broker that commands use, and returns them
// and the URL of the broker itself.
func doors(t *testing.T) (messages, web *relay, direct string) {
	t.Helper()
	direct = os.Getenv("HARK_URL")
	messages = newRelay(t, strings.TrimPrefix(direct, "hark://"))
	web = newRelay(t, strings.TrimPrefix(os.Getenv("HARK_HTTP_URL"), "http://"))
	t.Setenv("HARK_URL", "hark://"+messages.l.Addr().String())
	t.Setenv("HARK_HTTP_URL", "http://"+web.l.Addr().String())
	return messages, web, direct
}

// publish publishes a message for each n.
func publish(t *testing.T, url, topic string, ns ...int) {
	t.Helper()
	var in strings.Builder
	for _, n := range ns {
		fmt.Fprintf(&in, "{\"n\":%d,\"much\":%q}\n", n, strings.Repeat("x", 1000))
	}
	if code, _, errs := call(t, in.String(), "pub", topic, "--url", url); code != exitOK {
		t.Fatal(errs)
	}
}

// sub runs hark sub until it has ended. What it prints is on the screen.
func sub(t *testing.T, args ...string) (out *screen, wait func()) {
	t.Helper()
	out = newScreen()
	var errs screen
	done := make(chan int, 1)
	go func() {
		done <- Run(t.Context(), append([]string{"sub", "--output", "n={{.data.n}}."}, args...), Streams{Out: out, Err: &errs})
	}()
	return out, func() {
		t.Helper()
		if code := <-done; code != exitOK {
			t.Errorf("sub: got %d %s", code, errs.text.String())
		}
	}
}

// shown returns what is shown of a group.
func shown(t *testing.T, group string) string {
	t.Helper()
	code, out, errs := call(t, "", "group", "show", "stored", group)
	if code != exitOK {
		t.Fatal(errs)
	}
	return out
}

// TestFilterInBroker has what matches printed, and nothing else cross the network.
func TestFilterInBroker(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	messages, web, direct := doors(t)
	many := make([]int, 1000) // a megabyte of those that do not match
	publish(t, direct, "stored", append(many, 1, 2, 3)...)
	at := 0
	check := func(what, got string) {
		t.Helper()
		if want := "n=1.\nn=2.\nn=3.\n"; got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		if now := web.bytes(); now-at > 20_000 {
			t.Errorf("%s: %d bytes came over the network", what, now-at)
		} else {
			at = now
		}
		if n := messages.bytes(); n > 0 {
			t.Errorf("%s: %d bytes came by the other door", what, n)
		}
	}
	for _, args := range [][]string{{"--group", "g"}, {"--group", "ordered", "--keyed"}, nil} {
		out, wait := sub(t, append(args, "stored", "--from", "start", "--count", "3", "--where", "data.n > 0")...)
		wait()
		check("stored "+strings.Join(args, " "), out.text.String())
	}
	for _, group := range []string{"g", "ordered"} {
		if out := shown(t, group); !strings.Contains(out, "waiting       0\n") || !strings.Contains(out, "in flight     0\n") {
			t.Errorf("group %s has not done all: %s", group, out)
		}
	}
	at = web.bytes()
	for _, topics := range []string{"live", "*", ">"} {
		had := web.answers()
		out, wait := sub(t, topics, "--count", "3", "--where", `data.n > 0 && topic == "live"`)
		web.wait(t, had+1)
		publish(t, direct, "live", append(many, 1, 2, 3)...)
		wait()
		check(topics, out.text.String())
	}
}

// TestFilterInBrokerAgain cuts the connection of hark sub --where: nothing of a stored
// topic is missing or comes twice.
func TestFilterInBrokerAgain(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	_, web, direct := doors(t)
	for _, args := range [][]string{nil, {"--group", "g"}} {
		had := web.answers()
		out, wait := sub(t, append(args, "stored", "--count", "4", "--where", "data.n > 0")...)
		web.wait(t, had+1)
		web.cut(true) // before it has received anything
		publish(t, direct, "stored", 0, 1)
		web.let()
		out.after(t, "n=1")
		if args != nil {
			// A member of a group that is cut off before the broker knows what it has
			// printed prints it again: this waits until it knows.
			for !strings.Contains(shown(t, "g"), "in flight     0\n") {
			}
		}
		web.cut(true)
		publish(t, direct, "stored", 0, 2, 3)
		web.let()
		out.after(t, "n=3")
		publish(t, direct, "stored", 4)
		wait()
		got := strings.Fields(out.text.String())
		if args != nil {
			slices.Sort(got) // what the broker wrote to a connection that was cut comes again behind others
		}
		if want := []string{"n=1.", "n=2.", "n=3.", "n=4."}; !slices.Equal(got, want) {
			t.Errorf("%v: got %q, want %q", args, got, want)
		}
	}
}

// TestFilterHere looks at messages in the command where no broker does it.
func TestFilterHere(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	publish(t, os.Getenv("HARK_URL"), "stored", 0, 1)
	web := os.Getenv("HARK_HTTP_URL")
	args := []string{"sub", "stored", "--from", "start", "--count", "1", "--where", "data.n > 0", "--output", "{{.data.n}}"}
	t.Setenv("HARK_HTTP_URL", "")
	if code, out, errs := call(t, "", args...); code != exitOK || out != "1\n" || !strings.Contains(errs, "filtered here: it is not known where") {
		t.Errorf("without an address: got %d %s %s", code, out, errs)
	}
	nobody := newRelay(t, "127.0.0.1:1")
	for _, url := range []string{"http://" + nobody.l.Addr().String(), "http" + strings.TrimPrefix(os.Getenv("HARK_URL"), "hark")} {
		if code, out, errs := call(t, "", append(args, "--http", url)...); code != exitFailed || out != "" || !strings.Contains(errs, "no HTTP API of a hark broker found at "+url) {
			t.Errorf("nobody at %s: got %d %s %s", url, code, out, errs)
		}
	}
	if code, out, errs := call(t, "", append(args, "--http", web, "--from", "start", "nonsense")...); code != exitUsage || out != "" {
		t.Errorf("two topics: got %d %s %s", code, out, errs)
	}
	if code, _, errs := call(t, "", "sub", "live", "--from", "start", "--where", "data.n > 0", "--http", web); code != exitFailed || !strings.Contains(errs, "is not stored") {
		t.Errorf("the past of what is not stored: got %d %s", code, errs)
	}
	if code, out, errs := call(t, "", "sub", "stored", "--timeout", "1ns", "--where", "data.n > 0", "--http", web); code != exitFailed || out != "" || !strings.Contains(errs, "within --timeout") {
		t.Errorf("no time to connect: got %d %s %s", code, out, errs)
	}
}

// TestFilterAtPairedPorts has HTTP guessed from the port for messages, where a broker is that
// serves no HTTP, and where one does.
func TestFilterAtPairedPorts(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	publish(t, os.Getenv("HARK_URL"), "stored", 0, 1)
	for _, tt := range []struct {
		web  string
		here bool // the command leaves out what does not match
	}{
		{"http://127.0.0.1:1", true},
		{os.Getenv("HARK_HTTP_URL"), false},
	} {
		l := &listening{pattern: "stored", filter: "data.n > 0", from: "start", count: 1, output: "{{.data.n}}"}
		if err := l.check([]string{l.pattern}); err != nil {
			t.Fatal(err)
		}
		p := place{URL: os.Getenv("HARK_URL"), HTTP: tt.web, Web: paired, Said: "--url"}
		var out, notes strings.Builder
		began := time.Now()
		if err := l.follow(t.Context(), &p, Streams{Out: &out, Err: &notes}); err != nil || out.String() != "1\n" {
			t.Errorf("%s: got %q, %v", tt.web, out.String(), err)
		}
		if took := time.Since(began); took >= startTimeout {
			t.Errorf("%s: it took %v, want nothing to be waited for", tt.web, took)
		}
		if here := strings.Contains(notes.String(), "are filtered here: "+errNoBroker.Error()); here != tt.here {
			t.Errorf("%s: got %q", tt.web, notes.String())
		}
	}
}

// TestWebFeedSays reads what brokers say besides events, and what is none.
func TestWebFeedSays(t *testing.T) {
	m, err := webMessageOf([]byte(`{"dropped":3}`))
	if err != nil || m.Received != nil || !strings.Contains(m.note, "3 messages were missed") {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, text := range []string{"", "x", "[]", `{"dropped":"x"}`} {
		if m, err := webMessageOf([]byte(text)); !errors.Is(err, errUnreadable) {
			t.Errorf("%q: got %+v, %v", text, m, err)
		}
	}
	if m, err := webMessageOf([]byte(`{"specversion":"1.0","topic":"a","seq":7,"dropped":3,"data":{}}`)); err != nil || m.Received == nil || m.Seq != 7 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestWebCertainty says of which URLs the HTTP API is known.
func TestWebCertainty(t *testing.T) {
	for _, tt := range []struct {
		url, web string
		want     certainty
	}{
		{"hark://h", "", paired},
		{"hark://h:7422", "", paired},
		{"nats://h:7422", "", paired},
		{"tls://u:p@h:7422?tlsca=x", "", paired},
		{"nats://h", "", unknown},
		{"hark://h:4222", "", unknown},
		{"file:./data", "", unknown},
		{"nats://h", "http://x", told},
	} {
		p := place{URL: tt.url}
		if err := errors.Join(p.readURL(tt.web == ""), p.readWeb(tt.web)); err != nil || p.Web != tt.want {
			t.Errorf("%s %s: got %d, %v, want %d", tt.url, tt.web, p.Web, err, tt.want)
		}
	}
}

// TestSubStore reads the topics of a store by pattern, from the past and as a group.
func TestSubStore(t *testing.T) {
	startBroker(t, "topics: [{name: 'shop.>'}]")
	url := os.Getenv("HARK_URL")
	publish(t, url, "shop.a", 0, 1)
	publish(t, url, "shop.a.deep", 2)
	publish(t, url, "shop.b", 3)
	args := []string{"--count", "2", "--output", "{{.topic}} {{.seq}} {{.data.n}}"}
	for _, tt := range []struct{ args, want string }{
		{"shop.> --from start", "shop.a 1 0\nshop.a 2 1\n"},
		{"shop.* --from 2", "shop.a 2 1\nshop.b 4 3\n"},
		{"shop.* --from start --where data.n>0", "shop.a 2 1\nshop.b 4 3\n"},
		{"shop.> --from last:2", "shop.a.deep 3 2\nshop.b 4 3\n"},
		{"shop.* --from start --group g", "shop.a 1 0\nshop.a 2 1\n"},
		{"shop.> --from start --group g --where data.n!=1", "shop.a 1 0\nshop.a.deep 3 2\n"},
	} {
		code, out, errs := call(t, "", append(append([]string{"sub"}, strings.Fields(tt.args)...), args...)...)
		if code != exitOK || out != tt.want || errs != "" {
			t.Errorf("%s: got %d %q %s, want %q", tt.args, code, out, errs, tt.want)
		}
	}
	for _, tt := range []struct{ args, want string }{
		{"shop.a --from start", "shop.a 1 0\nshop.a 2 1\n"},
		{"shop.> --from 2", "shop.a 2 1\nshop.a.deep 3 2\nshop.b 4 3\n"},
		{"shop.* --from start --where data.n>0", "shop.a 2 1\nshop.b 4 3\n"},
		{"shop.> --from start --count 1", "shop.a 1 0\n"},
		{"shop.none --from start", ""},
	} {
		code, out, errs := call(t, "", append([]string{"sub", "--until-now", "--output", "{{.topic}} {{.seq}} {{.data.n}}"}, strings.Fields(tt.args)...)...)
		if code != exitOK || out != tt.want || errs != "" {
			t.Errorf("%s --until-now: got %d %q %s, want %q", tt.args, code, out, errs, tt.want)
		}
	}
	for _, args := range [][]string{{}, {"--from", "start", "--group", "g"}} {
		if code, _, errs := call(t, "", append([]string{"sub", "shop.a", "--until-now"}, args...)...); code != exitUsage || !strings.Contains(errs, "--until-now") {
			t.Errorf("--until-now with %v: got %d %s", args, code, errs)
		}
	}
	if code, out, errs := call(t, "", "sub", "shop.*", "--group", "g", "--count", "1", "--output", "{{.data.n}}"); code != exitOK || out != "3\n" {
		t.Errorf("the group goes on: got %d %q %s", code, out, errs)
	}
	if code, _, errs := call(t, "", "sub", "*.a", "--from", "start"); code != exitFailed || !strings.Contains(errs, "no store keeps all that match *.a") {
		t.Errorf("a pattern in no store: got %d %s", code, errs)
	}
}
