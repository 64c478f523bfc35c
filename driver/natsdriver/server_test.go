package natsdriver

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/leak"
)

// A server that is shut down in the middle of a batch leaks the goroutines of the
// store in which it gathered the batch.
func TestMain(m *testing.M) {
	if task := os.Getenv(processVariable); task != "" {
		runProcess(task)
	}
	leak.Main(m, "github.com/nats-io/nats-server/")
}

// patience limits every wait of these tests.
const patience = time.Minute

// serverOption changes how a server is started.
type serverOption func(*server.Options)

func withJetStream(o *server.Options) { o.JetStream = true }

func withSync(o *server.Options) { o.JetStream, o.SyncAlways = true, true }

// testServer is a server that a test can stop and restart.
type testServer struct {
	t    testing.TB
	opts *server.Options
	srv  *server.Server
}

// startServer starts a server on a free local port, which stops when the test ends.
func startServer(t testing.TB, opts ...serverOption) *testServer {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, StoreDir: t.TempDir(), ServerName: t.Name()}
	for _, opt := range opts {
		opt(o)
	}
	s := &testServer{t: t, opts: o}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	opts := s.opts.Clone()
	srv, err := server.NewServer(opts)
	if err != nil {
		s.t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		s.t.Fatal("the server does not start")
	}
	s.srv = srv
	s.opts.Port = srv.Addr().(*net.TCPAddr).Port // the same after a restart
}

func (s *testServer) stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

func (s *testServer) url() string {
	return "nats://127.0.0.1:" + strconv.Itoa(s.opts.Port)
}

// open returns a connection, closed when the test ends.
func (s *testServer) open(t *testing.T, opts ...Option) *Conn {
	t.Helper()
	c, err := Open(testContext(t), s.url(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	return c
}

func closeConn(t *testing.T, c driver.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openTopic opens an ephemeral topic, or a stored one.
func openTopic(t *testing.T, c driver.Conn, name string, stored *driver.StoredConfig) driver.Topic {
	t.Helper()
	topic, err := c.OpenTopic(testContext(t), driver.TopicConfig{Name: name, Stored: stored})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func subscribe(t *testing.T, topic driver.Topic, cfg driver.SubscribeConfig) driver.Subscription {
	t.Helper()
	if cfg.Window == 0 {
		cfg.Window = 1024
	}
	s, err := topic.Subscribe(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish publishes bare messages with these texts.
func publish(t *testing.T, topic driver.Topic, texts ...string) {
	t.Helper()
	if err := topic.Publish(testContext(t), bare(texts...)); err != nil {
		t.Fatal(err)
	}
}

func bare(texts ...string) []*driver.Message {
	ms := make([]*driver.Message, len(texts))
	for i, text := range texts {
		ms[i] = &driver.Message{Data: []byte(text), Bare: true}
	}
	return ms
}

// numbered returns n consecutive numbers from first on, as texts.
func numbered(first, n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = strconv.Itoa(first + i)
	}
	return texts
}

// receive returns the next n messages.
func receive(t *testing.T, s driver.Subscription, n int) []*driver.Received {
	t.Helper()
	ctx := testContext(t)
	var rs []*driver.Received
	for len(rs) < n {
		more, err := s.Receive(ctx, n-len(rs))
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(rs), n, err)
		}
		if len(more) == 0 || len(more) > n-len(rs) {
			t.Fatalf("Receive returned %d messages, want 1 to %d", len(more), n-len(rs))
		}
		rs = append(rs, more...)
	}
	return rs
}

func texts(rs []*driver.Received) []string {
	all := make([]string, len(rs))
	for i, r := range rs {
		all[i] = string(r.Data)
	}
	return all
}

// eventually fails the test unless f becomes true in time.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}
