package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/names"
)

var subCommand = command{
	name: "sub", args: "PATTERN", about: "print messages as they are published",
	long: `It prints each message of a topic, or of the topics that match a pattern such as
orders.*, as a line of JSON, until it is interrupted. * stands for one token, a
last > for one or more; both need quotes in a shell.`,
	setup: func(fs *flag.FlagSet) action {
		at := urlFlags(fs)
		where := fs.String("where", "", "print only messages that match this `filter`")
		count := fs.Int("count", 0, "end after this `number` of messages; 0 for never")
		start := fs.Bool("from-start", false, "begin with the oldest message that is stored; for one topic")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) != 1 {
				return usageError{fmt.Errorf("want one topic or pattern, in quotes, and not %s", plural(len(words), "word", "words"))}
			}
			l := &listening{at: at, pattern: words[0], count: *count, start: *start}
			switch err := names.CheckPattern(words[0]); {
			case err != nil:
				return usageError{err}
			case *count < 0:
				return usageError{errors.New("--count must not be negative")}
			case *start && names.IsPattern(words[0]):
				return usageError{errors.New("--from-start is for one topic, not a pattern")}
			}
			if *where != "" {
				f, err := filter.Compile(*where)
				if err != nil {
					return usageError{fmt.Errorf("--where: %w", err)}
				}
				l.where = f
			}
			return l.run(ctx, s)
		}
	},
}

// listening is one run of hark sub.
type listening struct {
	at      *brokerFlags
	pattern string
	where   *filter.Filter // nil for all
	count   int            // 0 for no end
	start   bool
}

func (l *listening) run(ctx context.Context, s Streams) (err error) {
	conn, err := l.at.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed(ctx, conn)) }()
	sub, err := l.subscribe(ctx, conn)
	if err != nil {
		return err
	}
	if terminalWidth(s.Err) > 0 {
		fmt.Fprintf(s.Err, "listening to %s; Ctrl-C ends\n", l.pattern)
	}
	return interruptible(ctx, s, func(ctx context.Context) error { return l.print(ctx, sub, s) })
}

// window is how many messages wait to be printed before the newest are dropped.
const window = 65536

func (l *listening) subscribe(ctx context.Context, conn driver.Conn) (driver.Subscription, error) {
	cfg := driver.SubscribeConfig{Window: window}
	if names.IsPattern(l.pattern) {
		return conn.SubscribePattern(ctx, l.pattern, cfg)
	}
	topic, stored, err := openTopic(ctx, conn, l.pattern)
	if err != nil {
		return nil, err
	}
	if l.start {
		if !stored {
			return nil, fmt.Errorf("%s is not stored: it has no start; declare it under topics in the configuration of the broker", l.pattern)
		}
		cfg.From = driver.FromStart
	}
	return topic.Subscribe(ctx, cfg)
}

// print writes messages until there were enough, or ctx ends.
func (l *listening) print(ctx context.Context, sub driver.Subscription, s Streams) error {
	out := bufio.NewWriter(s.Out)
	for n := 0; ; {
		ms, err := sub.Receive(ctx, 256)
		if err != nil {
			return err
		}
		for _, m := range ms {
			e := &broker.Event{Message: m}
			if l.where != nil && !l.where.Match(e) {
				continue
			}
			line, err := json.Marshal(e)
			if err == nil {
				_, err = out.Write(append(line, '\n'))
			}
			if err != nil {
				return err
			}
			if n++; n == l.count {
				return out.Flush()
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}
