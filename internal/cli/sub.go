package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/internal/lease"
	"github.com/harkbus/hark/internal/names"
	"github.com/harkbus/hark/internal/timespan"
)

var subCommand = command{
	name: "sub", args: "PATTERN", about: "print messages as they are published",
	long: `It prints each message of a topic, or of the topics that match a pattern such as
orders.*, until it is interrupted. * stands for one token, a last > for one or more;
quote both in a shell.

With --group the members of the group share the messages. On a stored topic, or a
pattern that is a store or part of one, a group continues where it was, --from only
sets where a new group begins, and a message is done once it has been printed.

The broker applies --where: a message that does not match does not cross the network.
For that, hark sub receives over HTTP, from the URL in --http, HARK_HTTP_URL or the
context, or from port ` + defaultHTTPPort + ` of a broker on port ` + defaultPort + `. Messages are then CloudEvents with
a source and a type, and their JSON has no spaces between tokens. Other servers have
no filters: all messages are received and filtered here, and standard error says so.
With file: nothing crosses a network.

--until-now prints what is stored and ends. It filters here, too.

--output is json, one message per line; data, only its data; pretty, for people; or a
template of Go's text/template over the names in the JSON:
--output '{{.topic}} {{.data.total}}'. A field that the message does not have ends the
command; if only some have it: --output '{{or (index .data "total") "none"}}'.`,
	setup: func(fs *flag.FlagSet) action {
		l := &listening{at: httpFlags(fs)}
		fs.StringVar(&l.filter, "where", "", "print only messages that match this `filter`, which the broker applies")
		fs.StringVar(&l.config.Group, "group", "", "`name` of the group to join")
		fs.BoolVar(&l.config.Keyed, "keyed", false, "keep the order of keys in the group, as for topics with KeyBy; all members must agree")
		fs.StringVar(&l.from, "from", "now", "where to begin on a stored topic, or a pattern in a store: `start|now|SEQ|TIME|last:N`, TIME in RFC 3339, or 15m for 15 minutes ago")
		fs.IntVar(&l.count, "count", 0, "end after this `number` of messages; 0 for never")
		fs.BoolVar(&l.untilNow, "until-now", false, "end after what is stored now; for this, --from must be in the past")
		timeout := timeoutFlag(fs, 0, "in all")
		fs.StringVar(&l.output, "output", "json", "`json|data|pretty|TEMPLATE`: output format")
		return untilUnread(func(ctx context.Context, words []string, s Streams) error {
			if err := l.check(words); err != nil {
				return usageError{err}
			}
			ctx, cancel := bounded(ctx, *timeout)
			defer cancel()
			return l.run(ctx, s)
		})
	},
}

// listening is one run of hark sub.
type listening struct {
	at      *brokerFlags
	pattern string
	filter  string
	where   *filter.Filter // nil for all messages
	from    string
	count   int // 0 for no limit
	output  string
	config  driver.SubscribeConfig
	format  func(*broker.Event) ([]byte, error)

	untilNow bool
}

// window is how many messages may wait to be printed before the newest are dropped;
// groupWindow is how many a member of a group may have in hand.
const (
	window      = 65536
	groupWindow = 256
)

func (l *listening) check(words []string) (err error) {
	if len(words) != 1 {
		return fmt.Errorf("want one topic or pattern, in quotes, got %s", plural(len(words), "word", "words"))
	}
	l.pattern = words[0]
	if err := names.CheckPattern(l.pattern); err != nil {
		return err
	}
	if l.where, err = readWhere(l.filter); err != nil {
		return err
	}
	if err := parseFrom(l.from, &l.config); err != nil {
		return fmt.Errorf("--from %s: %w", l.from, err)
	}
	if l.format, err = messageFormat(l.output); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	l.config.Window = window
	if l.config.Group != "" {
		l.config.Window = groupWindow
	}
	switch {
	case l.count < 0:
		return errors.New("--count must not be negative")
	case l.config.Keyed && l.config.Group == "":
		return errors.New("--keyed is for the members of a --group")
	case l.untilNow && l.config.Group != "":
		return errors.New("--until-now with --group, whose messages also go to other members; use one of them")
	case l.untilNow && l.config.From == driver.FromNow:
		return errors.New("--until-now needs a start in the past, such as --from start")
	}
	return nil
}

// parseFrom parses where a subscription begins.
func parseFrom(s string, c *driver.SubscribeConfig) error {
	switch {
	case s == "now":
		c.From = driver.FromNow
		return nil
	case s == "start":
		c.From = driver.FromStart
		return nil
	}
	if last, ok := strings.CutPrefix(s, "last:"); ok {
		n, err := strconv.ParseUint(last, 10, 64)
		if err != nil || n == 0 {
			return errors.New("want last:N, with a number of at least 1")
		}
		c.From, c.Seq = driver.FromLast, n
		return nil
	}
	if seq, err := strconv.ParseUint(s, 10, 64); err == nil {
		c.From, c.Seq = driver.FromSeq, seq
		return nil
	}
	if ago, err := timespan.Parse(s); err == nil {
		c.From, c.Time = driver.FromTime, time.Now().Add(-ago)
		return nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("want start, now, a sequence, a time such as 2026-01-31T12:00:00Z or 15m for so long ago, or last:N")
	}
	c.From, c.Time = driver.FromTime, at
	return nil
}

// feed is a source of messages: a subscription of an engine, or a webFeed.
type feed interface {
	Receive(ctx context.Context, most int) ([]*driver.Received, error)
	Ack(ctx context.Context, ms []*driver.Received) error
	Close(ctx context.Context) error
}

func (l *listening) run(ctx context.Context, s Streams) error {
	p, err := l.at.place()
	if err != nil {
		return err
	}
	return l.follow(ctx, &p, s)
}

// follow prints the messages of a broker.
func (l *listening) follow(ctx context.Context, p *place, s Streams) (err error) {
	var conn driver.Conn
	if l.where != nil && !l.untilNow { // the API does not say where "now" is
		var web *webFeed
		if web, conn, err = l.overHTTP(ctx, p, s); err != nil {
			return err
		}
		if web != nil {
			defer func() { err = errors.Join(err, web.Close(ctx)) }()
			l.where = nil // the broker has applied it
			return l.listen(ctx, web, web.acks, s)
		}
	}
	if conn == nil {
		if conn, err = p.connect(ctx, s.Err); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, closed(ctx, conn)) }()
	sub, acks, err := l.subscribe(ctx, conn)
	if err != nil {
		return err
	}
	if l.untilNow {
		if err := sub.Drain(ctx); err != nil {
			return err
		}
	}
	if acks {
		defer lease.Keep(sub, conn.Info().Lease, func(err error) {
			note(s.Err, "sub: messages that wait to be printed may be delivered again: %v", err)
		})()
	}
	return l.listen(ctx, sub, acks, s)
}

// overHTTP subscribes at a broker that applies the filter. The feed is nil if there
// is no such broker. To find that out overHTTP may have connected to the port for
// messages; then it returns that connection.
func (l *listening) overHTTP(ctx context.Context, p *place, s Streams) (web *webFeed, conn driver.Conn, err error) {
	if p.HTTP == "" && p.Host == "" {
		return nil, nil, nil
	}
	missing := "it is not known where the broker has its HTTP API"
	if p.Web != unknown {
		client, err := p.client()
		if err != nil {
			return nil, nil, err
		}
		api := &admin{*p, client, s.Err}
		web, err = openWebFeed(ctx, api, l, p.Web == told)
		if p.Web == paired && errors.Is(err, syscall.ECONNREFUSED) {
			// A starting broker opens its port for HTTP first. Once it accepts
			// messages, there is no need to wait for that port.
			if conn, err = p.connect(ctx, s.Err); err != nil {
				return nil, nil, err
			}
			web, err = openWebFeed(ctx, api, l, false)
		}
		if err == nil || p.Web == told || !errors.Is(err, errNoBroker) {
			if conn != nil {
				_ = closed(ctx, conn) // nothing was sent over it
			}
			return web, nil, err
		}
		missing = err.Error()
	}
	fmt.Fprintf(s.Err, "hark: sub: all messages come over the network and are filtered here: %s (--http)\n", missing)
	return nil, conn, nil
}

func (l *listening) listen(ctx context.Context, from feed, acks bool, s Streams) error {
	announce(s, "listening to "+l.pattern)
	return interruptible(ctx, func(ctx context.Context) error { return l.print(ctx, from, acks, s) })
}

// subscribe subscribes. acks says that messages must be acknowledged.
func (l *listening) subscribe(ctx context.Context, conn driver.Conn) (sub driver.Subscription, acks bool, err error) {
	if names.IsPattern(l.pattern) {
		return l.subscribePattern(ctx, conn)
	}
	topic, stored, err := openTopic(ctx, conn, l.pattern)
	if err != nil {
		return nil, false, err
	}
	if l.config.From != driver.FromNow && !stored {
		return nil, false, fmt.Errorf("--from %s: %s is not stored, so what was published is gone, or the user may not read it; declare it under topics in the configuration of the broker, or add it to the user's subscribe", l.from, l.pattern)
	}
	sub, err = topic.Subscribe(ctx, l.config)
	return sub, stored && l.config.Group != "", err
}

// subscribePattern is subscribe for a pattern. It reads the store that keeps all of
// the pattern, if there is one that the user may read, and otherwise what is
// published from then on.
func (l *listening) subscribePattern(ctx context.Context, conn driver.Conn) (sub driver.Subscription, acks bool, err error) {
	store, err := openStore(ctx, conn, l.pattern)
	if store != nil && err == nil {
		if sub, err = store.Subscribe(ctx, l.config); err == nil {
			return sub, l.config.Group != "", nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, false, context.Cause(ctx)
	case l.config.From == driver.FromNow:
		sub, err = conn.SubscribePattern(ctx, l.pattern, l.config)
	case err == nil:
		err = fmt.Errorf("--from %s: no store keeps all that match %s, so what was published is gone, or on topics to be named one by one; declare the pattern under topics in the configuration of the broker", l.from, l.pattern)
	}
	return sub, false, err
}

// print prints messages until there are enough or no more to come, or ctx ends.
func (l *listening) print(ctx context.Context, from feed, acks bool, s Streams) error {
	out := bufio.NewWriter(s.Out)
	for n := 0; ; {
		most := 256
		if acks && l.count > 0 {
			most = min(most, l.count-n) // leave the others to the group
		}
		ms, err := from.Receive(ctx, most)
		switch {
		case l.untilNow && errors.Is(err, driver.ErrEnded):
			return nil
		case err != nil:
			return err
		}
		enough := false
		for _, m := range ms {
			e := &broker.Event{Message: m}
			if l.where != nil && !l.where.Match(e) {
				continue
			}
			text, err := l.format(e)
			if err == nil {
				_, err = out.Write(append(text, '\n'))
			}
			if err != nil {
				return err
			}
			if n++; n == l.count {
				enough = true
				break
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if acks {
			if err := from.Ack(ctx, ms); err != nil {
				return err
			}
		}
		if enough {
			return nil
		}
	}
}
