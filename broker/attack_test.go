package broker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/harkbus/hark/internal/race"
)

// TestMemoryUnderAttack lets many clients at once attack the gateway in the ways
// that docs/security.md describes, and checks the memory of the broker against the
// limits stated there. HARK_LONG=1 uses five times as many clients. The race
// detector, under which memory says nothing, uses a quarter.
func TestMemoryUnderAttack(t *testing.T) {
	b := startChild(t, childConfig(t, "topics: [{name: orders, durability: memory, bytes: 1MiB}]"))
	raw := func(text string) func(int) error {
		return func(int) error {
			conn, err := net.Dial("tcp", b.http)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			_, _ = io.WriteString(conn, text) // the broker may refuse it halfway
			_, err = io.Copy(io.Discard, conn)
			if isTimeout(err) {
				return fmt.Errorf("it is waited for: %w", err)
			}
			return nil // it was cut off
		}
	}
	post := func(topic, media string, text []byte, status int) func(int) error {
		return func(int) error {
			req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+b.http+"/v1/topics/"+topic, bytes.NewReader(text))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", media)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			answer, err := io.ReadAll(res.Body)
			if res.StatusCode != status || status >= 400 && len(answer) > 4<<10 {
				return fmt.Errorf("got %s with %d bytes: %.200s", res.Status, len(answer), answer)
			}
			return err
		}
	}
	first := b.memory(t)
	const event = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	lines := strings.Repeat("X-Fill: "+strings.Repeat("x", 1000)+"\r\n", 60)
	var members strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&members, `,"a%d":1`, i)
	}
	rich := event + strings.Join(strings.SplitAfter(members.String(), ",")[:maxMembers-4], "")
	batch := strings.Repeat(strings.TrimSuffix(rich, ",")+"},", maxBatchMembers/maxMembers)
	for _, tt := range []struct {
		name    string
		clients int
		most    int // MiB above the start
		attack  func(i int) error
	}{
		{"headers that do not end", 400, 100, raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + lines)},
		{"huge headers", 100, 100, raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat(lines, 20))},
		{"pages of other sites", 400, 100, raw("POST /v1/topics/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: https://evil.example\r\nContent-Length: 5\r\n\r\nhello")},
		{"floods over WebSockets", 50, 120, func(i int) error {
			ctx, cancel := context.WithTimeout(testContext(t), patience)
			defer cancel()
			conn, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s/v1/topics/orders/events?group=g%d", b.http, i), nil)
			if err != nil {
				return err
			}
			defer func() { _ = conn.CloseNow() }()
			acks := append([]byte(`{"ack":[1`), append(bytes.Repeat([]byte(",1"), 8000), "]}"...)...)
			for range 40 {
				if err := conn.Write(ctx, websocket.MessageText, acks); err != nil {
					return err
				}
			}
			return nil
		}},
		{"lists in lists", 16, 400, post("orders", jsonType, bytes.Repeat([]byte("["), 2<<20), http.StatusBadRequest)},
		{"events that are no JSON", 16, 400, post("orders", structuredType, []byte(event+`,"data":"`+strings.Repeat(`\x`, 2<<20)), http.StatusBadRequest)},
		{"events of very many members", 8, 500, post("orders", structuredType, []byte(event+members.String()+"}"), http.StatusBadRequest)},
		{"batches of as much as may be", 8, 500, post("live", batchType, []byte("["+strings.TrimSuffix(batch, ",")+"]"), http.StatusAccepted)},
		{"batches of very many", 6, 500, post("orders", batchType, []byte("["+strings.Repeat("1,", 2<<20)+"1]"), http.StatusBadRequest)},
	} {
		peak := 0
		var all sync.WaitGroup
		clients := long(tt.clients, 5*tt.clients)
		if race.Enabled {
			clients = (clients + 3) / 4
		}
		for i := range clients {
			all.Go(func() {
				if err := tt.attack(i); err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
			})
		}
		ended := make(chan struct{})
		go func() { all.Wait(); close(ended) }()
		for over := false; !over; {
			peak = max(peak, b.memory(t))
			select {
			case <-ended:
				over = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		t.Logf("%s: the broker has had %d MiB, %d at first", tt.name, peak, first)
		if peak > first+tt.most && !race.Enabled {
			t.Errorf("%s: the broker has had %d MiB, want at most %d", tt.name, peak, first+tt.most)
		}
		if err := post("orders", jsonType, []byte(`{"n":1}`), http.StatusCreated)(0); err != nil {
			t.Errorf("after %s: %v", tt.name, err)
		}
	}
}
