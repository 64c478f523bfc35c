package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

var pubCommand = command{
	name: "pub", args: "TOPIC [DATA]", about: "publish messages",
	long: `It publishes DATA, or each line of the input as a message of its own if there is no
DATA; empty lines count for nothing. What is not JSON is published as text. If the
broker stores the topic, it has stored all messages when the command ends.`,
	setup: func(fs *flag.FlagSet) action {
		at := urlFlags(fs)
		key := fs.String("key", "", "`key` that orders the messages")
		id := fs.String("id", "", "`id` of the message, for deduplication; only with DATA")
		headers := headerFlag{}
		fs.Var(headers, "header", "`name=value` of a header; may be given several times")
		return func(ctx context.Context, words []string, s Streams) error {
			switch {
			case len(words) < 1 || len(words) > 2:
				return usageError{fmt.Errorf("want TOPIC and perhaps DATA, in quotes, and not %s", plural(len(words), "word", "words"))}
			case names.Check(words[0]) != nil:
				return usageError{names.Check(words[0])}
			case *id != "" && len(words) == 1:
				return usageError{errors.New("--id is for one message: give DATA")}
			}
			m := driver.Message{ID: *id, Key: *key, HasKey: *key != "", Headers: headers}
			return pub(ctx, at, words[0], m, words[1:], s)
		}
	},
}

// headerFlag gathers name=value.
type headerFlag map[string]string

// Set implements flag.Value.
func (f headerFlag) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("want name=value")
	}
	f[name] = value
	return nil
}

// String implements flag.Value.
func (f headerFlag) String() string { return "" }

// maxTogether is how many messages are published with one call.
const maxTogether = 500

// pub publishes data, or each line of the input if there is none.
func pub(ctx context.Context, at *brokerFlags, name string, m driver.Message, data []string, s Streams) (err error) {
	conn, err := at.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed(ctx, conn)) }()
	topic, _, err := openTopic(ctx, conn, name)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		return topic.Publish(ctx, []*driver.Message{withData(m, []byte(data[0]))})
	}
	count, err := pubLines(ctx, topic, m, s)
	fmt.Fprintf(s.Err, "%s published\n", plural(count, "message", "messages"))
	return err
}

// withData returns m with data.
func withData(m driver.Message, data []byte) *driver.Message {
	m.Data, m.ContentType, m.Time = data, "text/plain", time.Now()
	if json.Valid(data) {
		m.ContentType = "application/json"
	}
	return &m
}

// pubLines publishes each line, and returns how many it has published.
func pubLines(ctx context.Context, topic driver.Topic, m driver.Message, s Streams) (count int, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReaderSize(newInput(ctx, s.In), 64<<10)
	var batch []*driver.Message
	for n := 1; ; n++ {
		line, tooLong, readErr := readLine(in)
		if tooLong {
			return count, fmt.Errorf("line %d is longer than %d bytes", n, maxLine)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			batch = append(batch, withData(m, bytes.Clone(line)))
		}
		// What has come is published before more is waited for.
		if len(batch) == maxTogether || len(batch) > 0 && (readErr != nil || in.Buffered() == 0) {
			if err := topic.Publish(ctx, batch); err != nil {
				return count, fmt.Errorf("up to line %d: %w", n, err)
			}
			count += len(batch)
			batch = batch[:0]
		}
		if readErr == io.EOF {
			return count, nil
		}
		if readErr != nil {
			return count, readErr
		}
	}
}
