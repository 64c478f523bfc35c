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

	"github.com/harkbus/hark"
)

var pubCommand = command{
	name: "pub", args: "TOPIC [DATA]", about: "publish messages",
	long: `It publishes DATA, or each line of the input as a message of its own if there is no
DATA; empty lines count for nothing. What is not JSON is published as text. A topic
that the broker stores has the message on disk when the command ends.`,
	setup: func(fs *flag.FlagSet) action {
		url := urlFlag(fs)
		key := fs.String("key", "", "`key` that orders the messages")
		id := fs.String("id", "", "`id` of the message, for deduplication; not for several")
		headers := headerFlag{}
		fs.Var(headers, "header", "`name=value` of a header; may be repeated")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) < 1 || len(words) > 2 {
				return usageError{fmt.Errorf("want TOPIC and perhaps DATA in quotes, and not %s", plural(len(words), "word", "words"))}
			}
			var opts []hark.PublishOption
			if *key != "" {
				opts = append(opts, hark.Key(*key))
			}
			for name, value := range headers {
				opts = append(opts, hark.Header(name, value))
			}
			if *id != "" {
				if len(words) == 1 {
					return usageError{errors.New("--id is for one message: give DATA")}
				}
				opts = append(opts, hark.ID(*id))
			}
			return pub(ctx, *url, words, opts, s)
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

// publisher publishes to one topic, which has a bus for each kind of content:
// a topic of a bus has one codec.
type publisher struct {
	url, topic string
	opts       []hark.PublishOption
	buses      map[string]*hark.Bus
	topics     map[string]*hark.Topic[[]byte]
}

// open returns the topic for a kind of content. A topic that the broker stores
// is opened as it is, so that publishing waits until it is stored.
func (p *publisher) open(ctx context.Context, contentType string) (*hark.Topic[[]byte], error) {
	if t := p.topics[contentType]; t != nil {
		return t, nil
	}
	bus, err := connect(ctx, p.url)
	if err != nil {
		return nil, err
	}
	p.buses[contentType] = bus
	t, err := hark.NewTopic[[]byte](bus, p.topic, hark.WithCodec(textCodec{contentType}))
	if err != nil {
		return nil, err
	}
	p.topics[contentType] = t
	return t, nil
}

func (p *publisher) publish(ctx context.Context, data []byte) error {
	contentType := "text/plain"
	if json.Valid(data) {
		contentType = "application/json"
	}
	t, err := p.open(ctx, contentType)
	if err != nil {
		return err
	}
	return t.Publish(ctx, data, p.opts...)
}

func (p *publisher) close(ctx context.Context) (err error) {
	for _, bus := range p.buses {
		err = errors.Join(err, bus.Close(ctx))
	}
	return err
}

func pub(ctx context.Context, url string, words []string, opts []hark.PublishOption, s Streams) (err error) {
	p := &publisher{url: url, topic: words[0], opts: opts, buses: map[string]*hark.Bus{}, topics: map[string]*hark.Topic[[]byte]{}}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectPatience)
		defer cancel()
		err = errors.Join(err, p.close(ctx))
	}()
	if len(words) == 2 {
		return p.publish(ctx, []byte(words[1]))
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReaderSize(newInput(ctx, s.In), 64<<10)
	for n := 1; ; n++ {
		line, tooLong, readErr := readLine(in)
		if tooLong {
			return fmt.Errorf("line %d is longer than %d bytes", n, maxLine)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := p.publish(ctx, bytes.Clone(line)); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}
