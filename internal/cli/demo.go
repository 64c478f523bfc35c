package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
	"github.com/harkbus/hark/testdata"
)

const demoUsage = `hark demo [flags] runs a small application on one bus, in this process.

It publishes GitHub webhook deliveries to github.<event>, where
  audit    writes down every one of them,
  index    handles them with four workers, in order within a repository,
  reviews  routes what --where matches to reviews.wanted,
  flaky    fails now and then on issues: some are retried, some given up,
  slow     is too slow for all of them and drops the oldest.
At the end it accounts for every message, and fails if one is missing.`

type demoOptions struct {
	rate, count  int
	input, where string
}

func runDemo(ctx context.Context, args []string, s Streams) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	var o demoOptions
	fs.IntVar(&o.rate, "rate", 500, "messages a `second`; 0 for as fast as they go")
	fs.IntVar(&o.count, "count", 1000, "`messages` to publish, from the start again where the input ends; 0 for the input once")
	fs.StringVar(&o.input, "input", "", "`file` of deliveries, one {\"event\":…,\"payload\":…} a line; without it, 329 real ones that come with the program")
	fs.StringVar(&o.where, "where", `data.action == "opened"`, "CEL `expression`: which pull requests are routed to reviews.wanted")
	rest, err := parseFlags(fs, args, demoUsage, s)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usageError{fmt.Errorf("demo: unexpected argument %q; see hark demo --help", rest[0])}
	}
	if o.rate < 0 || o.count < 0 {
		return usageError{errors.New("demo: --rate and --count must not be negative")}
	}
	where, err := filter.Compile(o.where, filter.For[webhook]())
	if err != nil {
		return usageError{fmt.Errorf("demo: --where: %w", err)}
	}
	hooks, bad, err := loadWebhooks(o.input, s)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d := &demo{options: o, out: s, bus: hark.New(), topics: map[string]*hark.Topic[webhook]{}, sent: map[string]int{}}
	return d.run(ctx, hooks, bad, where)
}

// loadWebhooks reads the deliveries, reports bad lines and returns how many
// there were.
func loadWebhooks(path string, s Streams) (hooks []webhook, bad int, err error) {
	var r io.Reader = bytes.NewReader(testdata.GitHubWebhooks)
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, 0, fmt.Errorf("%w; --input wants a file of JSON lines, or leave it out", err)
		}
		defer f.Close()
		r = f
	}
	for line, w := range readWebhooks(r) {
		if w.err != nil {
			bad++
			fmt.Fprintf(s.Err, "line %d skipped: %v\n", line, w.err)
			continue
		}
		hooks = append(hooks, w.webhook)
	}
	if len(hooks) == 0 {
		return nil, bad, fmt.Errorf("%s has no delivery; each line must be {\"event\": \"push\", \"payload\": {…}}", path)
	}
	return hooks, bad, nil
}

// demo is the application.
type demo struct {
	options demoOptions
	out     Streams
	bus     *hark.Bus
	topics  map[string]*hark.Topic[webhook]
	parts   []*part

	published atomic.Int64
	sent      map[string]int // by event; for the publisher alone until it is done
}

// part is one subscription, with what its handler itself has counted.
type part struct {
	name    string
	sub     *hark.Subscription
	handled atomic.Int64
	wants   func(event string) bool // which events it is to get
}

func (d *demo) run(ctx context.Context, hooks []webhook, bad int, where hark.Predicate) error {
	var disorder atomic.Int64
	if err := d.subscribe(where, &disorder); err != nil {
		return err
	}
	total := d.options.count
	if total == 0 {
		total = len(hooks)
	}
	quit, progress := make(chan struct{}), sync.WaitGroup{}
	progress.Go(func() { d.showProgress(total, quit) })
	err := d.publish(ctx, hooks, total)
	interrupted := ctx.Err() != nil
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if closed := d.bus.Close(closing); err == nil {
		err = closed
	}
	close(quit)
	progress.Wait()
	if err != nil && !interrupted {
		return err
	}
	missing := d.account(bad)
	switch {
	case missing > 0:
		return fmt.Errorf("demo: %d subscriptions do not add up", missing)
	case disorder.Load() > 0:
		return fmt.Errorf("demo: %d messages of a repository came out of order", disorder.Load())
	case interrupted:
		return errInterrupted
	}
	fmt.Fprintln(d.out.Out, "every message is accounted for")
	return nil
}

// subscribe connects the parts of the application.
func (d *demo) subscribe(where hark.Predicate, disorder *atomic.Int64) error {
	wanted, err := hark.NewTopic[webhook](d.bus, "reviews.wanted")
	if err != nil {
		return err
	}
	every := func(string) bool { return true }
	only := func(event string) func(string) bool { return func(e string) bool { return e == event } }

	var order sync.Map // the last Seq, by event and repository
	return errors.Join(
		d.part("audit", "github.>", every, nil),
		d.part("index", "github.>", every, func(_ context.Context, m *hark.Message[webhook]) error {
			key := m.Topic() + " " + m.Key()
			if last, ok := order.Swap(key, m.Value.Seq); ok && last.(int) > m.Value.Seq {
				disorder.Add(1)
			}
			return nil
		}, hark.Group("index"), hark.Workers(4)),
		d.part("reviews", "github.pull_request", only("pull_request"), func(ctx context.Context, m *hark.Message[webhook]) error {
			return wanted.Publish(ctx, m.Value)
		}, hark.Where(where)),
		d.part("flaky", "github.issues", only("issues"), func(_ context.Context, m *hark.Message[webhook]) error {
			switch {
			case m.Value.Seq%7 == 0:
				return errors.New("the tracker does not know this issue")
			case m.Value.Seq%3 == 0 && m.Attempt() == 1:
				return errors.New("the tracker does not answer")
			}
			return nil
		}, hark.MaxAttempts(3), hark.DeadLetter("dead.issues"), hark.Backoff(hark.BackoffPolicy{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond})),
		d.part("slow", "github.>", every, func(ctx context.Context, _ *hark.Message[webhook]) error {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			return nil
		}, hark.Buffer(2), hark.Overflow(hark.DropOldest)),
	)
}

// part subscribes h, which may be nil, to a pattern.
func (d *demo) part(name, pattern string, wants func(string) bool, h hark.Handler[webhook], opts ...hark.SubscribeOption) error {
	p := &part{name: name, wants: wants}
	sub, err := hark.SubscribePattern(d.bus, pattern, func(ctx context.Context, m *hark.Message[webhook]) error {
		if h != nil {
			if err := h(ctx, m); err != nil {
				return err
			}
		}
		p.handled.Add(1)
		return nil
	}, opts...)
	p.sub = sub
	d.parts = append(d.parts, p)
	return err
}

// publish publishes total deliveries at the rate asked for.
func (d *demo) publish(ctx context.Context, hooks []webhook, total int) error {
	start := time.Now()
	for i := range total {
		if d.options.rate > 0 {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(d.options.rate))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		w := hooks[i%len(hooks)]
		w.Seq = i
		t := d.topics[w.Event]
		if t == nil {
			var err error
			t, err = hark.NewTopic[webhook](d.bus, "github."+w.Event, hark.KeyBy(func(w webhook) string { return w.Repository }))
			if err != nil {
				return err
			}
			d.topics[w.Event] = t
		}
		if err := t.Publish(ctx, w); err != nil {
			return err
		}
		d.sent[w.Event]++
		d.published.Add(1)
	}
	return nil
}

// showProgress says how far publishing is until quit is closed: in place on a
// terminal, otherwise now and then on a line of its own.
func (d *demo) showProgress(total int, quit <-chan struct{}) {
	every, begin, end := 2*time.Second, "", "\n"
	if isTerminal(d.out.Err) {
		every, begin, end = 100*time.Millisecond, "\r", "\x1b[K"
	}
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			slow := d.parts[len(d.parts)-1].sub.Stats()
			fmt.Fprintf(d.out.Err, "%spublished %d of %d, dropped %d%s", begin, d.published.Load(), total, slow.Dropped, end)
		case <-quit:
			if begin != "" {
				fmt.Fprint(d.out.Err, "\r\x1b[K")
			}
			return
		}
	}
}

// account prints what became of every message, and returns how many
// subscriptions do not add up: by what the demo published and what the handler
// counted, not only by what the bus says.
func (d *demo) account(bad int) (missing int) {
	fmt.Fprintf(d.out.Out, "published %d messages to %d topics, skipped %d bad lines\n\n", d.published.Load(), len(d.topics), bad)
	w := tabwriter.NewWriter(d.out.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "subscription\tmeant for it\tdelivered\tfiltered\tdropped\tdead\tretried\t\t")
	for _, p := range d.parts {
		var meant uint64
		for event, n := range d.sent {
			if p.wants(event) {
				meant += uint64(n)
			}
		}
		s := p.sub.Stats()
		verdict := "ok"
		if meant != s.Delivered+s.Filtered+s.Dropped+s.Dead || s.Delivered != uint64(p.handled.Load()) {
			verdict = fmt.Sprintf("MISSING (handled %d)", p.handled.Load())
			missing++
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", p.name, meant, s.Delivered, s.Filtered, s.Dropped, s.Dead, s.Redelivered, verdict)
	}
	w.Flush()
	fmt.Fprintln(d.out.Out)
	return missing
}
