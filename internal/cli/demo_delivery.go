package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/testdata"
)

// webhook is the part of a GitHub webhook delivery that the demo uses.
type webhook struct {
	Event      string `json:"event"`
	Action     string `json:"action"`     // such as "opened"; empty for some events
	Repository string `json:"repository"` // its full name; empty for events without a repository
	Seq        int    `json:"seq"`        // position in the order of publishing
	Run        string `json:"run"`        // the run that published it, over an engine
	Size       int    `json:"size"`       // size of the payload in bytes
}

// maxLine is the longest line read.
const maxLine = 8 << 20

// read reads the deliveries and opens what each event needs. It reports lines that
// are no delivery, with their numbers, and skips them.
func (d *demo) read(s Streams, open func(event string) error) error {
	in, name := io.Reader(bytes.NewReader(testdata.GitHubWebhooks)), "the input"
	switch d.input {
	case "":
	case "-":
		in = s.In
	default:
		f, err := os.Open(d.input)
		if err != nil {
			return fmt.Errorf("--input: %w; name a file of JSON lines, or leave it out to use the deliveries that come with the program", err)
		}
		defer f.Close()
		in, name = f, d.input
	}
	bad := 0
	for line, w := range readWebhooks(in) {
		if errors.As(w.err, new(readError)) {
			return fmt.Errorf("--input: line %d: %w", line, w.err)
		}
		if w.err == nil {
			w.err = open(w.Event)
		}
		if w.err != nil {
			bad++
			fmt.Fprintf(s.Err, "line %d skipped: %v\n", line, w.err)
			continue
		}
		d.incoming = append(d.incoming, w.webhook)
	}
	if len(d.incoming) == 0 {
		return fmt.Errorf(`--input: %s has no delivery; write one {"event": "push", "payload": {…}} on each line, or leave it out to use the deliveries that come with the program`, name)
	}
	if bad > 0 {
		fmt.Fprintf(s.Err, "%s skipped, %s read\n", plural(bad, "bad line", "bad lines"), plural(len(d.incoming), "delivery", "deliveries"))
	}
	return nil
}

// open opens the topic of an event, with the repository as the key.
func (d *demo) open(event string) (err error) {
	if d.topics[event] == nil {
		var t *hark.Topic[webhook]
		t, err = hark.NewTopic[webhook](d.bus, "github."+event, hark.KeyBy(func(w webhook) string { return w.Repository }))
		if err == nil {
			d.topics[event] = t
		}
	}
	return err
}

// readError says that the rest of the input cannot be read.
type readError struct{ error }

// readWebhooks yields the deliveries in r, one JSON object per line, with line
// numbers. An invalid line yields an error; reading goes on, except after a
// readError.
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
				yield(n, result{err: readError{err}})
				return
			}
		}
	}
}

type result struct {
	webhook
	err error
}

// readLine reads to the end of the line; it skips what exceeds maxLine.
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
