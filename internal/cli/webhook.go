package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// webhook is one delivery of a GitHub webhook, as far as the demo looks at it.
type webhook struct {
	Event      string `json:"event"`
	Action     string `json:"action"`     // such as "opened"; empty for some events
	Repository string `json:"repository"` // its full name; empty for events of no repository
	Seq        int    `json:"seq"`        // in the order of publishing
	Size       int    `json:"size"`       // of the payload, in bytes
}

// maxLine is the longest line read.
const maxLine = 8 << 20

// readWebhooks yields the deliveries in r, one JSON object a line, with their
// line numbers. A line that is none comes with an error; reading goes on.
func readWebhooks(r io.Reader) iter.Seq2[int, result] {
	return func(yield func(int, result) bool) {
		lines := bufio.NewReaderSize(r, 64<<10)
		for n := 1; ; n++ {
			line, tooLong, err := readLine(lines)
			if line = bytes.TrimSpace(line); len(line) > 0 || tooLong {
				w, bad := parseWebhook(line)
				if tooLong {
					bad = fmt.Errorf("longer than %d bytes", maxLine)
				}
				if !yield(n, result{w, bad}) {
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(n, result{err: fmt.Errorf("reading stops: %w", err)})
				return
			}
		}
	}
}

type result struct {
	webhook
	err error
}

// readLine reads to the end of the line; what is beyond maxLine is skipped.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			tooLong = true
		} else {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}

func parseWebhook(line []byte) (webhook, error) {
	var raw struct {
		Event   string          `json:"event"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return webhook{}, fmt.Errorf("not a JSON object: %w", err)
	}
	if raw.Event == "" {
		return webhook{}, errors.New(`no "event"`)
	}
	if len(raw.Payload) == 0 || raw.Payload[0] != '{' {
		return webhook{}, errors.New(`no object "payload"`)
	}
	var payload struct {
		Action     string `json:"action"`
		Repository struct {
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(raw.Payload, &payload); err != nil {
		return webhook{}, fmt.Errorf("the payload is not what GitHub sends: %w", err)
	}
	return webhook{
		Event: raw.Event, Action: payload.Action, Repository: payload.Repository.FullName, Size: len(raw.Payload),
	}, nil
}
