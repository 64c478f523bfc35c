package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestPubFlags checks what the flags do to the published message.
func TestPubFlags(t *testing.T) {
	startBroker(t, "topics: [{name: orders}, {name: plans}]\n")
	ctx, cancel := context.WithTimeout(t.Context(), serveTimeout)
	defer cancel()
	nc, err := nats.Connect(strings.Replace(os.Getenv("HARK_URL"), "hark:", "nats:", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("live")
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	pub := func(args ...string) time.Duration {
		t.Helper()
		start := time.Now()
		if code, _, errs := call(t, "", append([]string{"pub"}, args...)...); code != exitOK {
			t.Fatalf("pub %q: got %d %s", args, code, errs)
		}
		return time.Since(start)
	}
	next := func() *nats.Msg {
		t.Helper()
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}

	pub("live", `{"n":1}`)
	if m := next(); m.Header.Get("ce-specversion") == "" || string(m.Data) != `{"n":1}` {
		t.Errorf("got %v %s, want the envelope of CloudEvents around it", m.Header, m.Data)
	}
	pub("live", `{"n":1}`, "--bare")
	if m := next(); m.Header.Get("ce-specversion") != "" || string(m.Data) != `{"n":1}` {
		t.Errorf("--bare: got %v %s, want no envelope", m.Header, m.Data)
	}
	pub("live", `{"n":1}`, "--ttl", "1h")
	m := next()
	sent, sentErr := time.Parse(time.RFC3339Nano, m.Header.Get("ce-time"))
	expires, err := time.Parse(time.RFC3339Nano, m.Header.Get("hark-expires"))
	if sentErr != nil || err != nil || expires.Sub(sent).Round(time.Second) != time.Hour {
		t.Errorf("--ttl 1h: got %v, %v, %v", m.Header, sentErr, err)
	}
	if took := pub("live", `{"n":1}`, "--count", "6", "--rate", "20"); took < 250*time.Millisecond {
		t.Errorf("--rate 20: 6 messages took %v, want 5/20 s at least", took)
	}
	for range 6 {
		next()
	}
	due := time.Now().Add(time.Hour).Truncate(time.Second)
	for _, flags := range [][]string{{"--at", due.Format(time.RFC3339)}, {"--delay", "1h"}} {
		code, _, errs := call(t, "", append([]string{"pub", "live", "x", "--output", "json"}, flags...)...)
		if code != exitFailed || !strings.Contains(errs, "stored") {
			t.Errorf("%q on a topic that is not stored: got %d %s", flags, code, errs)
		}
	}
	at := time.Now().Add(3 * time.Second).Truncate(time.Second)
	pub("plans", "then", "--at", at.Format(time.RFC3339))
	if code, out, errs := call(t, "", "sub", "plans", "--from", "start", "--count", "1", "--timeout", "20s", "--output", "data"); code != exitOK || out != "then\n" || time.Now().Before(at) {
		t.Errorf("--at: got %d %q %s at %v, want it at %v", code, out, errs, time.Now(), at)
	}
	before := time.Now()
	pub("orders", "later", "--delay", "500ms")
	pub("orders", "now")
	code, out, errs := call(t, "", "sub", "orders", "--from", "start", "--count", "2", "--timeout", "20s", "--output", "data")
	if took := time.Since(before); code != exitOK || out != "now\nlater\n" || took < 500*time.Millisecond {
		t.Errorf("--delay 500ms: got %d %q %s after %v, want it last, and not before", code, out, errs, took)
	}
}

// TestSubKeyed reads a topic as a member of a group that keeps the order of keys,
// which a member without --keyed cannot join.
func TestSubKeyed(t *testing.T) {
	startBroker(t, "topics: [{name: orders}]\n")
	want := map[string][]float64{}
	for _, key := range []string{"ada", "bob", "ada", "cy", "bob", "ada"} {
		n := float64(len(want[key]))
		want[key] = append(want[key], n)
		data, err := json.Marshal(map[string]float64{"n": n})
		if err != nil {
			t.Fatal(err)
		}
		if code, _, errs := call(t, "", "pub", "orders", string(data), "--key", key); code != exitOK {
			t.Fatal(errs)
		}
	}
	args := []string{"sub", "orders", "--group", "g", "--from", "start", "--count", "6", "--timeout", "20s"}
	code, out, errs := call(t, "", append(args, "--keyed")...)
	if code != exitOK {
		t.Fatalf("got %d %s", code, errs)
	}
	got := map[string][]float64{}
	for line := range strings.Lines(out) {
		var m struct {
			Key  string
			Data struct{ N float64 }
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got[m.Key] = append(got[m.Key], m.Data.N)
	}
	for key, ns := range want {
		if !slices.Equal(got[key], ns) {
			t.Errorf("%s: got %v, want %v", key, got[key], ns)
		}
	}
	if code, _, errs := call(t, "", args...); code != exitFailed || !strings.Contains(errs, "keys") {
		t.Errorf("a member without --keyed: got %d %s, want to be told that the members do not agree", code, errs)
	}
}

// TestPubAgain checks what the broker recognises messages by that are sent again because
// the answer was lost.
func TestPubAgain(t *testing.T) {
	startBroker(t, "topics: [{name: orders}]\n")
	for _, args := range []string{"pub orders", "pub orders 3 --id mine"} {
		if code, _, errs := call(t, "1\n2\n", strings.Fields(args)...); code != exitOK {
			t.Fatalf("%s: got %d %s", args, code, errs)
		}
	}
	nc, err := nats.Connect(strings.Replace(os.Getenv("HARK_URL"), "hark:", "nats:", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for seq := range uint64(3) {
		m, err := js.GetMsg("hark-topic-orders", seq+1)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.Header.Get(nats.MsgIdHdr))
	}
	if ids[0] == "" || ids[1] == "" || ids[0] == ids[1] || ids[2] != "mine" {
		t.Errorf("got %q, want two that differ, and the one given", ids)
	}
}
