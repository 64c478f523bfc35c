package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

var pubCommand = command{
	name: "pub", args: "TOPIC [DATA]", about: "publish messages",
	long: `It publishes DATA, or without DATA each line of the input as a separate message;
empty lines are skipped. Data that is not JSON is published as text. If the
broker stores the topic, it has stored all messages when the command ends.

` + templateHelp,
	setup: func(fs *flag.FlagSet) action {
		p := publishing{m: driver.Message{}, at: urlFlags(fs)}
		headers := headerFlag{}
		fs.StringVar(&p.m.Key, "key", "", "`key` that orders the messages")
		fs.StringVar(&p.m.ID, "id", "", "`id` of the message, for deduplication; with --template, of each message")
		fs.Var(headers, "header", "`name=value` of a header; may be given several times")
		fs.StringVar(&p.file, "file", "", "read from this `file` instead of the input")
		fs.BoolVar(&p.whole, "whole", false, "the whole input is one message, not one per line")
		fs.BoolVar(&p.template, "template", false, "fill in templates, see above")
		fs.IntVar(&p.count, "count", 1, "publish DATA this `number` of times")
		fs.Float64Var(&p.rate, "rate", 0, "maximum `messages` per second; 0 for no limit")
		timeVar(fs, &p.delay, "delay", "`time` to wait before delivery, such as 10m")
		fs.Func("at", "deliver at this `time`, such as 2026-01-31T12:00:00Z, and not before", func(s string) (err error) {
			if p.due, err = time.Parse(time.RFC3339, s); err != nil {
				return errors.New("want a time such as 2026-01-31T12:00:00Z")
			}
			return nil
		})
		timeVar(fs, &p.ttl, "ttl", "`time` after which the messages expire")
		fs.BoolVar(&p.m.Bare, "bare", false, "omit the CloudEvents envelope")
		timeout := timeoutFlag(fs, 0, "in all")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			p.m.Headers, p.json = headers, *output == "json"
			if err := p.check(words); err != nil {
				return usageError{err}
			}
			ctx, cancel := bounded(ctx, *timeout)
			defer cancel()
			return p.run(ctx, s)
		}
	},
}

// headerFlag collects name=value pairs.
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

// publishing is one run of hark pub.
type publishing struct {
	at         *brokerFlags
	topic      string
	data       []string       // one element, or none to read the input
	m          driver.Message // what all messages have in common
	file       string
	whole      bool
	template   bool
	count      int
	rate       float64
	delay, ttl time.Duration
	due        time.Time // of --at; zero if there is none
	json       bool

	repeats   string // begins what the broker recognises repeats by; empty if it does not store the topic
	make      func(line []byte) (*driver.Message, error)
	to        driver.Topic
	start     time.Time
	made      int
	batch     []*driver.Message
	published atomic.Int64
}

func (p *publishing) check(words []string) error {
	if len(words) < 1 || len(words) > 2 {
		return fmt.Errorf("want TOPIC and perhaps DATA, in quotes, got %s", plural(len(words), "word", "words"))
	}
	p.topic, p.data = words[0], words[1:]
	if err := names.Check(p.topic); err != nil {
		return err
	}
	one := len(p.data) > 0 || p.whole
	switch {
	case p.m.ID != "" && !p.template && (!one || p.count != 1):
		return errors.New("--id is for one message: give DATA, or make IDs that differ with --template")
	case len(p.data) > 0 && (p.file != "" || p.whole):
		return errors.New("want one of DATA and --file or --whole")
	case p.count < 1:
		return errors.New("--count must be at least 1")
	case p.count > 1 && len(p.data) == 0:
		return errors.New("--count is for DATA")
	case p.delay > 0 && !p.due.IsZero():
		return errors.New("want one of --delay and --at")
	case p.rate < 0:
		return errors.New("--rate must not be negative")
	}
	p.m.HasKey = p.m.Key != ""
	p.make = func(line []byte) (*driver.Message, error) { return withData(p.m, line), nil }
	if p.template {
		t, err := newTemplate(p.m, p.data)
		if err != nil {
			return err
		}
		p.make = func(line []byte) (*driver.Message, error) { return t.message(p.m, line) }
	}
	return nil
}

func (p *publishing) run(ctx context.Context, s Streams) error {
	if p.file != "" {
		f, err := os.Open(p.file)
		if err != nil {
			return err
		}
		defer f.Close()
		s.In = f
	}
	return p.at.with(ctx, s.Err, func(conn driver.Conn) error {
		return interruptible(ctx, func(ctx context.Context) error { return p.publish(ctx, conn, s) })
	})
}

// publish publishes over a connection, and reports how much it has published.
func (p *publishing) publish(ctx context.Context, conn driver.Conn, s Streams) (err error) {
	var stored bool
	if p.to, stored, err = openTopic(ctx, conn, p.topic); err != nil {
		return err
	}
	if stored {
		p.repeats = rand.Text() + "/"
	}
	delayed := p.delay > 0 || !p.due.IsZero()
	switch {
	case delayed && !has(conn, driver.Delay):
		return fmt.Errorf("%w: engine %s: %s", driver.ErrUnsupported, conn.Info().Engine, driver.Delay)
	case delayed && !stored && !has(conn, driver.EphemeralDelay):
		return fmt.Errorf("only stored topics hold messages back, and %s is not stored, or the user may not read it; declare it under topics in the configuration of the broker, or create it with hark topic create", p.topic)
	}
	p.start = time.Now()
	bar := p.bar(s)
	err = p.all(ctx, s)
	if c, ok := conn.(interface {
		Accepted(ctx context.Context, topic string) error
	}); ok && err == nil && !stored { // nothing has answered yet
		if err = c.Accepted(ctx, p.topic); err != nil {
			p.published.Store(0)
		}
	}
	bar()
	took := time.Since(p.start)
	n := int(p.published.Load())
	switch {
	case p.json:
		err = errors.Join(err, printJSON(s.Out, map[string]any{"topic": p.topic, "published": n, "seconds": took.Seconds()}))
	case len(p.data) == 0 || p.count > 1:
		fmt.Fprintf(s.Err, "%s published\n", plural(n, "message", "messages"))
	}
	return err
}

// bar shows progress, on a terminal and if it may take long, until the returned
// function is called.
func (p *publishing) bar(s Streams) (stop func()) {
	if terminalWidth(s.Err) == 0 || p.count == 1 && p.file == "" {
		return func() {}
	}
	return showProgress(s.Err, func(width int) string {
		n := p.published.Load()
		line := fmt.Sprintf("%d published, %.0f/s", n, float64(n)/time.Since(p.start).Seconds())
		if p.count > 1 {
			line = withGauge(width, float64(n)/float64(p.count), line)
		}
		return line
	}).stop
}

// maxTogether is how many messages are published in one call.
const maxTogether = 500

// all publishes everything.
func (p *publishing) all(ctx context.Context, s Streams) error {
	switch {
	case len(p.data) > 0:
		for range p.count {
			if err := p.add(ctx, []byte(p.data[0]), p.count == 1); err != nil {
				return err
			}
		}
	case p.whole:
		text, err := dataOrInput(ctx, nil, s)
		if err == nil {
			err = p.add(ctx, text, true)
		}
		return err
	default:
		err := eachLine(ctx, s, func(n int, line []byte, more bool) error {
			if err := p.add(ctx, line, !more); err != nil {
				return &callError{fmt.Sprintf("line %d", n), err}
			}
			return nil
		})
		if err != nil {
			return errors.Join(err, p.last(ctx))
		}
	}
	return p.flush(ctx)
}

// add queues a message, and publishes the queue if it is full or now is set.
func (p *publishing) add(ctx context.Context, line []byte, now bool) error {
	if p.rate > 0 {
		n := int(p.published.Load()) + len(p.batch)
		due := time.Duration(float64(n) / p.rate * float64(time.Second))
		if wait := due - time.Since(p.start); wait > 0 {
			if err := p.flush(ctx); err != nil {
				return err
			}
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
	}
	m, err := p.make(line)
	if err != nil {
		return err
	}
	p.made++
	if m.ID == "" && p.repeats != "" { // after a lost answer it is sent again
		m.DedupID = p.repeats + strconv.Itoa(p.made)
	}
	m.Due = p.due
	if p.delay > 0 {
		m.Due = m.Time.Add(p.delay)
	}
	if p.ttl > 0 {
		m.Expires = m.Time.Add(p.ttl)
	}
	if p.batch = append(p.batch, m); now || len(p.batch) == maxTogether {
		return p.flush(ctx)
	}
	return nil
}

// last publishes what was read before the input ended with an error, possibly the
// end of ctx.
func (p *publishing) last(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	return p.flush(ctx)
}

func (p *publishing) flush(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	err := p.to.Publish(ctx, p.batch)
	done := len(p.batch)
	var partial driver.PartialError
	if errors.As(err, &partial) {
		for _, err := range partial {
			if err != nil {
				done--
			}
		}
	} else if err != nil {
		done = 0
	}
	p.published.Add(int64(done))
	p.batch = p.batch[:0]
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
