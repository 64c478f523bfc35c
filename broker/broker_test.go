package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/race"
	"github.com/harkbus/hark/internal/store"
)

const patience = time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// config returns a configuration with free ports and its own directory.
func config(t testing.TB, text string) *Config {
	t.Helper()
	return configIn(t, t.TempDir(), text)
}

func configIn(t testing.TB, dir, text string) *Config {
	t.Helper()
	c, err := Load(Source{File: write(t, text), Flags: map[string]string{
		"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "data": dir, "log-level": "warn",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start starts a broker, which stops when the test ends.
func start(t testing.TB, c *Config) *Broker {
	t.Helper()
	return startLogging(t, c, nil)
}

// startLogging is start with a logger; nil for none.
func startLogging(t testing.TB, c *Config, log *slog.Logger) *Broker {
	t.Helper()
	b, err := New(c, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, b) })
	return b
}

func stop(t testing.TB, b *Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// dial connects as a user, or anonymously.
func dial(t testing.TB, b *Broker, userinfo string) *natsdriver.Conn {
	t.Helper()
	c, err := natsdriver.Open(testContext(t), "nats://"+userinfo+b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil && b.store.Server().Running() { // otherwise the connection is lost
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func get(t *testing.T, b *Broker, path string) (int, map[string]string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "http://"+b.HTTPAddr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var members map[string]any
	if err := json.NewDecoder(res.Body).Decode(&members); err != nil {
		t.Fatal(err)
	}
	body := map[string]string{}
	for name, v := range members {
		body[name] = fmt.Sprint(v)
	}
	return res.StatusCode, body
}

func TestStartAndStop(t *testing.T) {
	const limit = 300 * time.Millisecond
	dir, fastest := t.TempDir(), time.Hour
	for starts := 0; starts < 3 || starts < 20 && fastest > limit && !race.Enabled; starts++ { // the machine may be busy with other work
		b := start(t, configIn(t, dir, "topics: [{name: orders.placed, age: 7d}]\nroutes: [{from: orders.>, to: all}]"))
		fastest = min(fastest, b.took)
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body := get(t, b, path); code != http.StatusOK || body["status"] != "ok" {
				t.Errorf("%s: got %d %v", path, code, body)
			}
		}
		for _, part := range []string{b.Addr().String(), b.HTTPAddr().String(), dir, "orders.placed  strict  for 7d", "1: orders.> → all", "hark.yaml"} {
			if !strings.Contains(b.Summary(), part) {
				t.Errorf("%q is not in the summary:\n%s", part, b.Summary())
			}
		}
		if err := b.Start(testContext(t)); err == nil {
			t.Error("started twice")
		}
		stop(t, b)
		stop(t, b)
	}
	if fastest > limit && !race.Enabled {
		t.Errorf("the fastest start took %v, want at most %v", fastest, limit)
	}
}

func TestStopOfTheNeverStarted(t *testing.T) {
	b, err := New(config(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, b)
	if err := b.Start(testContext(t)); err == nil {
		t.Error("started after it was stopped")
	}
}

func TestRun(t *testing.T) {
	b, err := New(config(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestWhatIsTaken checks the errors about ports and directories that are in use.
func TestWhatIsTaken(t *testing.T) {
	dir := t.TempDir()
	b := start(t, configIn(t, dir, ""))
	refused := func(change func(*Config), wants ...string) {
		t.Helper()
		c := config(t, "")
		change(c)
		other, err := New(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = other.Start(testContext(t))
		if err == nil {
			t.Fatal("started")
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
	_, port, _ := net.SplitHostPort(b.Addr().String())
	refused(func(c *Config) { c.Listen = b.Addr().String() }, "another hark serve", "lsof -i :"+port, "--listen")
	refused(func(c *Config) { c.HTTP = b.HTTPAddr().String() }, "another hark serve", "--http")
	refused(func(c *Config) { c.Data = dir }, dir, store.ErrInUse.Error(), "process")
	// The refused broker has left nothing behind.
	dial(t, b, "")
}

func TestClientsAndStore(t *testing.T) {
	dir := t.TempDir()
	text := "topics:\n  - {name: orders, count: 3, dedup: 1h}\n"
	b := start(t, configIn(t, dir, text))
	c := dial(t, b, "")
	topic, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: "orders", Stored: &driver.StoredConfig{Existing: true, Dedup: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := topic.Publish(testContext(t), []*driver.Message{{ID: fmt.Sprint(i), Data: []byte("{}")}}); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := topic.Stats(testContext(t))
	if err != nil || stats.Stored != 3 || stats.Last != 5 {
		t.Errorf("got %+v, %v, want the 3 last of 5", stats, err)
	}
	stop(t, b)

	// The broker is back, with other limits.
	b = start(t, configIn(t, dir, strings.Replace(text, "count: 3", "count: 100", 1)))
	c = dial(t, b, "")
	topic, err = c.OpenTopic(testContext(t), driver.TopicConfig{Name: "orders", Stored: &driver.StoredConfig{Existing: true, Dedup: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		if err := topic.Publish(testContext(t), []*driver.Message{{ID: fmt.Sprint(i), Data: []byte("{}")}}); err != nil {
			t.Fatal(err)
		}
	}
	if stats, err = topic.Stats(testContext(t)); err != nil || stats.Stored != 7 || stats.Deduplicated != 3 {
		t.Errorf("got %+v, %v, want the 3 that were kept recognised, and the others stored", stats, err)
	}
}

func TestTopicThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	b := start(t, configIn(t, dir, "topics: [{name: a}]"))
	stop(t, b)
	c := configIn(t, dir, "topics:\n  - {name: b}\n  - {name: a, durability: memory}")
	b, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Start(testContext(t))
	if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), ":3:5: topics[1]: ") || !strings.Contains(err.Error(), "strict, not memory") {
		t.Fatalf("got %v, want ErrConflict and its place", err)
	}
	b = start(t, configIn(t, dir, ""))
	if has, err := b.conn.HasTopic(testContext(t), "b"); has || err != nil {
		t.Errorf("topic b was made with a that could not be: got %v, %v", has, err)
	}
}

func TestGarbage(t *testing.T) {
	b := start(t, config(t, ""))
	for _, addr := range []net.Addr{b.Addr(), b.HTTPAddr()} {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("\x00\xff GARBAGE\r\n\r\nPUB x 99999999999999\r\n"))
		_ = conn.Close()
	}
	nc, err := nats.Connect("nats://" + b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Flush(); err != nil {
		t.Error(err)
	}
}

func TestUserCount(t *testing.T) {
	for n, want := range map[int]string{1: "1 user", 2: "2 users"} {
		if got := userCount(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestClientsComeAfterTopics has a client connect as soon as it can. The topics of the
// configuration are there by then, and what it publishes to them is stored.
func TestClientsComeAfterTopics(t *testing.T) {
	text := strings.Builder{}
	text.WriteString("topics:\n")
	for i := range 20 {
		fmt.Fprintf(&text, "  - name: t%d\n", i)
	}
	for name, more := range map[string]string{"directly": "", "through the proxy": "limits:\n  rate: 100000\n"} {
		t.Run(name, func(t *testing.T) {
			c := config(t, text.String()+more)
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c.Listen = free.Addr().String()
			if err := free.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := New(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, found := testContext(t), make(chan error, 1)
			go func() {
				conn, err := natsdriver.Open(ctx, "nats://"+c.Listen)
				for err != nil && ctx.Err() == nil {
					conn, err = natsdriver.Open(ctx, "nats://"+c.Listen)
				}
				if err != nil {
					found <- err
					return
				}
				has, err := conn.HasTopic(ctx, "t19")
				if err == nil && !has {
					err = errors.New("the topic is not there yet")
				}
				found <- errors.Join(err, conn.Close(ctx))
			}()
			if err := b.Start(ctx); err != nil {
				t.Fatal(err)
			}
			defer stop(t, b)
			if err := <-found; err != nil {
				t.Error(err)
			}
		})
	}
}
