package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformanceOnURL runs the clauses on a bus over the server at HARK_TEST_NATS,
// such as nats://127.0.0.1:4222. Whatever its version, what it supports must hold,
// and only what it does not support may be refused. All of hark's streams in the
// account are removed before and after each clause, so there must be none at first.
func TestConformanceOnURL(t *testing.T) {
	at := os.Getenv("HARK_TEST_NATS")
	if at == "" {
		t.Skip("HARK_TEST_NATS is not set")
	}
	if left := harkStreams(t, at); len(left) > 0 {
		t.Fatalf("the account keeps %s, which the suite would remove: give it an account of its own", strings.Join(left, ", "))
	}
	var before *hark.Bus
	report := suiteOn(t, func(t *testing.T) string {
		if before != nil { // the previous bus has nothing to do with this clause
			_ = before.Close(testContext(t)) // its own clause checks errors
		}
		removeStreams(t, at)
		t.Cleanup(func() { removeStreams(t, at) })
		return at
	}, func(bus *hark.Bus) { before = bus })
	tellReport(t, report)
}

// documentedServer is the version that has a column in docs/drivers.md: that of
// Debian 12.
const documentedServer = "2.9.10"

// TestConformanceOnOldServer does the same with the installed nats-server, which on
// Debian is an old one.
func TestConformanceOnOldServer(t *testing.T) {
	t.Parallel()
	program := findOldServer(t)
	p := newProcess(t, "old", program, accounts(3*len(drivertest.Clauses())))
	t.Cleanup(p.tell)
	p.start()
	t.Cleanup(p.stop)
	p.await()
	start := inAccounts(p.address(), "")
	report := suite(t, start)
	tellReport(t, report)
	c, err := Open(testContext(t), start(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	_, err = c.OpenChan(testContext(t), driver.ChanConfig{Name: "a"})
	if !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "server "+report.Info.Server) || !strings.Contains(err.Error(), "channels") {
		t.Errorf("got %v, want ErrUnsupported that names the server's version and what it cannot do", err)
	}
	if v := report.Info.Server; v != documentedServer {
		t.Logf("docs/drivers.md is not compared: it is about %s, and this is %s", documentedServer, v)
		return
	}
	report.Compare(t, "../../docs/drivers.md", "NATS "+documentedServer)
}

// findOldServer returns the path of a nats-server, or skips the test.
func findOldServer(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("HARK_NATS_SERVER"), "nats-server", "/usr/sbin/nats-server"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "nats-server (Debian's package of that name, or HARK_NATS_SERVER=PATH)")
	return ""
}

// inAccounts returns a function that returns an empty server on each call: the next
// account of the servers at addresses.
func inAccounts(addresses, parameters string) func(t *testing.T) string {
	var next atomic.Int64
	return func(t *testing.T) string {
		at := fmt.Sprintf("nats://c%d:p@%s%s", next.Add(1)-1, addresses, parameters)
		t.Cleanup(func() { removeStreams(t, at) })
		return at
	}
}

// removeStreams removes the streams that a clause has left behind.
func removeStreams(t *testing.T, at string) {
	c, err := Open(context.Background(), at)
	if err != nil {
		t.Error(err)
		return
	}
	defer closeConn(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, name := range streamsOf(ctx, t, c) {
		if err := c.admin(ctx, func(ctx context.Context) error { return c.js.DeleteStream(ctx, name) }); err != nil {
			t.Errorf("remove stream %s: %v", name, err)
		}
	}
}

func harkStreams(t *testing.T, at string) []string {
	t.Helper()
	c, err := Open(testContext(t), at)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, c)
	return streamsOf(testContext(t), t, c)
}

// streamsOf returns the names of hark's streams.
func streamsOf(ctx context.Context, t *testing.T, c *Conn) []string {
	if c.js == nil {
		return nil
	}
	var names []string
	list := c.js.StreamNames(ctx)
	for name := range list.Name() {
		if strings.HasPrefix(name, "hark-") {
			names = append(names, name)
		}
	}
	if err := list.Err(); err != nil {
		t.Errorf("streams: %v", err)
	}
	slices.Sort(names)
	return names
}

// tellReport logs what the server refused.
func tellReport(t *testing.T, r *drivertest.Report) {
	refused := map[string][]string{} // by reason
	for id, reason := range r.Refused {
		refused[reason] = append(refused[reason], id)
	}
	for _, reason := range slices.Sorted(maps.Keys(refused)) {
		slices.Sort(refused[reason])
		t.Logf("server %s: refused for want of %s: %s", r.Info.Server, reason, strings.Join(refused[reason], ", "))
	}
}

// missing skips a test because something is not installed, or fails it where
// everything must be.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("HARK_REQUIRE") == "all" {
		t.Fatalf("HARK_REQUIRE=all, and there is no %s", what)
	}
	t.Skipf("SKIPPED: there is no %s", what)
}
