package broker

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// TestServerWords passes on what a server says in pieces of every size. Each INFO is
// rewritten, and no message that only looks like one.
func TestServerWords(t *testing.T) {
	const info = "INFO {\"client_id\":7}\r\n"
	const message = "MSG a 1 22\r\n" + info + "\r\n"
	const headers = "HMSG a 1 _INBOX.b 22 28\r\n" + info + "\nINFO \r\n"
	said := info + "PING\r\n" + message + "MSG b 2 0\r\n\r\n" + info + info + headers + "+OK\r\n-ERR 'INFO '\r\nPONG\r\n" + info + message
	want := strings.NewReplacer(message, message, headers, headers, info, "<7>").Replace(said)
	for size := 1; size <= len(said); size++ {
		var got strings.Builder
		w := outputRelay{
			write: func(p []byte) error {
				if len(p) == 0 {
					t.Errorf("in pieces of %d: nothing is written", size)
				}
				got.Write(p)
				return nil
			},
			info: func(i natsserver.Info) ([]byte, error) { return fmt.Appendf(nil, "<%d>", i.CID), nil },
		}
		for rest := []byte(said); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			piece := bytes.Clone(rest[:min(size, len(rest))])
			if err := w.forward(piece); err != nil {
				t.Fatalf("in pieces of %d: %v", size, err)
			}
			clear(piece) // its buffer is used again
		}
		if got.String() != want {
			t.Errorf("in pieces of %d: got %q, want %q", size, got.String(), want)
		}
	}
	w := outputRelay{write: func([]byte) error { return nil }}
	if err := w.forward([]byte("INFO none\r\n")); err == nil {
		t.Error("an INFO that cannot be read passes")
	}
}
