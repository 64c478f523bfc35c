package broker

import (
	"bytes"
	"encoding/json"
	"fmt"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// outputRelay passes on what the server sends to a NATS client. It rewrites each
// INFO, because the server does not know how the client is connected. It sends INFO
// when a client has logged in, when servers of the cluster come and go, and before it
// stops. Everything else passes unchanged, and at once.
type outputRelay struct {
	write func([]byte) error
	info  func(natsserver.Info) ([]byte, error) // returns what the client gets in place of INFO

	line []byte // the beginning of a line that is not complete
	body int    // how many bytes of a message are still to come
}

// forward passes on the next piece.
func (w *outputRelay) forward(text []byte) error {
	from, at := 0, 0 // text[from:at] may be passed on
	for at < len(text) {
		if w.body > 0 {
			n := min(w.body, len(text)-at)
			w.body, at = w.body-n, at+n
			continue
		}
		n := bytes.IndexByte(text[at:], '\n') + 1
		if n == 0 {
			w.line = append(w.line, text[at:]...)
			if !isInfo(w.line) {
				at = len(text)
			}
			break
		}
		line := text[at : at+n]
		if w.line != nil {
			line, w.line = append(w.line, line...), nil
		}
		if isInfo(line) {
			if err := w.forwardInfo(text[from:at], line); err != nil {
				return err
			}
			from = at + n
		} else {
			w.body = bodyAfter(line)
		}
		at += n
	}
	if from == at {
		return nil
	}
	return w.write(text[from:at])
}

// forwardInfo passes on what comes before an INFO, and what the client gets in its place.
func (w *outputRelay) forwardInfo(before, line []byte) error {
	info, err := parseInfo(line)
	if err != nil {
		return err
	}
	text, err := w.info(info)
	if err != nil {
		return err
	}
	if len(before) > 0 {
		if err := w.write(before); err != nil {
			return err
		}
	}
	return w.write(text)
}

// isInfo reports whether a line, of which the end may be missing, is INFO: nothing
// else from the server begins with this letter.
func isInfo(line []byte) bool { return line[0] == 'I' }

// bodyAfter returns how many bytes follow a line before the next one: those of the
// message that it announces, and their end.
func bodyAfter(line []byte) int {
	if line[0] != 'M' && line[0] != 'H' { // MSG, HMSG
		return 0
	}
	line = bytes.TrimRight(line, "\r\n")
	return max(sizeOf(line[bytes.LastIndexByte(line, ' ')+1:]), 0) + len("\r\n")
}

// parseInfo parses the line with which a server presents itself.
func parseInfo(line []byte) (info natsserver.Info, err error) {
	text, ok := bytes.CutPrefix(line, []byte("INFO "))
	if !ok {
		return info, fmt.Errorf("got %q, want INFO", line[:min(len(line), 64)])
	}
	return info, json.Unmarshal(text, &info)
}
