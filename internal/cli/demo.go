package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
)

// demoCommand is hark demo. Each further demo is a command in subs.
var demoCommand = command{
	name:  "demo",
	about: "run a small application on real webhook deliveries",
	long: `It publishes GitHub webhook deliveries to github.<event> on a bus in this
process, where

  audit       records every one of them,
  mirror      handles them with four workers: those of one repository one at a
              time, and those of one event of it in order,
  reviews     forwards the pull requests that --where selects to reviews.wanted,
  reviewers   receive each of those,
  tracker     gets the issues, and sometimes fails: some issues are retried, and some
              are given up and become dead letters on dead.issues,
  postmortem  reads the dead letters,
  dashboard   is too slow for all of them, and drops the oldest.

At the end it accounts for every message, by its own count and by that of the
bus, and fails if one is missing. Ctrl-C ends it early, accounts included.

With --url it runs over an engine, where deliveries are stored on one topic. The
mirror, the reviews and the tracker are groups there, whose work several processes
of the demo share; each leaves a receipt, and each process accounts for everything
that is stored, whoever published and handled it. One that is killed loses
nothing: the others do what it has not done, or the next run does.`,
	setup: func(fs *flag.FlagSet) action {
		var o demoOptions
		fs.IntVar(&o.rate, "rate", 500, "`messages` per second; 0 for no limit")
		fs.IntVar(&o.count, "count", 1000, "`messages` to publish, starting the input again where it ends; 0 for the\n        input once")
		fs.StringVar(&o.input, "input", "", "`file` of deliveries, one {\"event\": …, \"payload\": …} a line; - for the standard\n        input; without it, 329 real ones that come with the program")
		fs.StringVar(&o.where, "where", `data.action == "opened"`, "which pull requests are wanted for review, a CEL `expression`\n       ")
		fs.Uint64Var(&o.seed, "seed", 1, "`number` that decides which issues the tracker fails on")
		fs.StringVar(&o.url, "url", "", "`URL` of an engine to run it over, such as file:./data or nats://127.0.0.1:7422")
		fs.BoolVar(&o.join, "join", false, "publish nothing, only share the work of processes that do, until Ctrl-C")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, _ []string, s Streams) error {
			o.json = *output == "json"
			return runDemo(ctx, o, s)
		}
	},
	subs: []command{demoChannelCommand, demoNotifyCommand, demoWebhooksCommand},
}

type demoOptions struct {
	rate, count  int
	input, where string
	seed         uint64
	url          string
	join         bool
	json         bool
}

// demo is the application: a publisher and seven subscriptions on one bus.
type demo struct {
	demoOptions
	bus          *hark.Bus
	topics       map[string]*hark.Topic[webhook] // github.<event>, by event
	incoming     []webhook
	opened       hark.Evaluator // --where
	ledger       *ledger
	orderChecker *orderChecker

	finishing atomic.Bool // nothing more will be published
}

func runDemo(ctx context.Context, o demoOptions, s Streams) error {
	if o.rate < 0 || o.count < 0 {
		return usageError{errors.New("--rate and --count must not be negative")}
	}
	opened, err := filter.Compile(o.where, filter.For[webhook]())
	if err != nil {
		return usageError{fmt.Errorf("--where: %w", err)}
	}
	if o.url != "" && o.url != "mem:" {
		return runEngineDemo(ctx, o, opened, s)
	}
	if o.join {
		return usageError{errors.New("--join is for several processes: give the broker with --url")}
	}
	d := newDemo(o, opened)
	if err := d.read(s, d.open); err != nil {
		return err
	}
	if err := d.subscribe(); err != nil {
		return err
	}

	start := time.Now()
	bar := showProgress(s.Err, d.progress)
	err = d.publish(ctx)
	took := time.Since(start)
	d.finishing.Store(true)
	err = errors.Join(err, d.close(ctx))
	bar.stop()

	interrupted := ctx.Err() != nil
	if interrupted {
		err = nil // the interruption is why publishing stopped and some handlers were cancelled
	}
	err = errors.Join(err, d.report(s, took))
	if err == nil && interrupted {
		return errInterrupted
	}
	return err
}

func newDemo(o demoOptions, opened hark.Evaluator) *demo {
	l := newLedger()
	return &demo{
		demoOptions:  o,
		bus:          hark.New(hark.WithHooks(l)), // the ledger hears of drops and dead letters
		topics:       map[string]*hark.Topic[webhook]{},
		opened:       opened,
		ledger:       l,
		orderChecker: newOrderChecker(),
	}
}

// subscribe connects the parts of the application. The ledger keeps an account of
// each; the last argument of connect returns how many messages it should get.
func (d *demo) subscribe() error {
	all := func() int64 { return d.ledger.published.Load() }
	of := func(event string) func() int64 { return func() int64 { return d.ledger.sent(event) } }
	wanted, err := hark.NewTopic[webhook](d.bus, "reviews.wanted")
	if err != nil {
		return err
	}
	var errs []error
	connect := func(name, to string, h hark.Handler[webhook], meant func() int64, opts ...hark.SubscribeOption) {
		errs = append(errs, d.ledger.subscribe(d.bus, name, to, h, meant, opts...))
	}

	connect("audit", "github.>", func(context.Context, *hark.Message[webhook]) error {
		return nil
	}, all)

	// The topics use the repository as the key, so four concurrent workers still
	// handle the messages of each repository one after the other.
	connect("mirror", "github.>", func(_ context.Context, m *hark.Message[webhook]) error {
		d.orderChecker.begins(m.Value.Repository, m.Topic(), m.Value.Seq)
		runtime.Gosched() // gives another worker a chance to interleave
		d.orderChecker.ends(m.Value.Repository)
		return nil
	}, all, hark.Group("mirror"), hark.Workers(4))

	connect("reviews", "github.pull_request", func(ctx context.Context, m *hark.Message[webhook]) error {
		if err := wanted.Publish(ctx, m.Value); err != nil {
			return err
		}
		d.ledger.routed.Add(1)
		return nil
	}, of("pull_request"), hark.Where(d.ledger.watch("reviews", d.opened)))

	connect("reviewers", "reviews.wanted", func(context.Context, *hark.Message[webhook]) error {
		return nil
	}, d.ledger.routed.Load)

	// Dead letters go to a topic of their own. By default they would go to
	// github.issues.dead, and subscribers of github.> would get them too.
	connect("tracker", "github.issues", func(_ context.Context, m *hark.Message[webhook]) error {
		return d.track(m.Value, m.Attempt())
	}, of("issues"), hark.MaxAttempts(3), hark.DeadLetter("dead.issues"),
		hark.Backoff(hark.BackoffPolicy{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}))

	connect("postmortem", "dead.issues", func(_ context.Context, m *hark.Message[webhook]) error {
		d.ledger.bury(m.Failure())
		return nil
	}, d.ledger.deadLetters)

	connect("dashboard", "github.>", func(ctx context.Context, _ *hark.Message[webhook]) error {
		select {
		case <-time.After(5 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, all, hark.Buffer(2), hark.Overflow(hark.DropOldest))

	return errors.Join(errs...)
}

var (
	errNoAnswer = errors.New("the tracker does not answer")
	errNoIssue  = errors.New("the tracker does not know this issue")
)

// track is a service that fails: always for some issues, at first for others. The
// seed alone decides which.
func (d *demo) track(w webhook, attempt int) error {
	switch luck := rand.New(rand.NewPCG(d.seed, uint64(w.Seq))).IntN(100); {
	case luck < 10:
		return errNoIssue
	case luck < 40 && attempt == 1:
		return errNoAnswer
	}
	return nil
}

// publish publishes the deliveries until all are published or ctx ends.
func (d *demo) publish(ctx context.Context) error {
	return d.deliver(ctx, func(w webhook) error {
		if err := d.topics[w.Event].Publish(ctx, w); err != nil {
			return err
		}
		d.ledger.note(w.Event)
		return nil
	})
}

// deliver calls publish with each delivery, at the given rate, until that fails or ctx
// ends.
func (d *demo) deliver(ctx context.Context, publish func(webhook) error) error {
	start := time.Now()
	for i := range d.total() {
		if d.rate > 0 {
			due := time.Duration(float64(i) / float64(d.rate) * float64(time.Second))
			if err := sleep(ctx, due-time.Since(start)); err != nil {
				return err
			}
		}
		w := d.incoming[i%len(d.incoming)]
		w.Seq = i
		if err := publish(w); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) total() int {
	if d.count == 0 {
		return len(d.incoming)
	}
	return d.count
}

// sleep waits for t or until ctx ends.
func sleep(ctx context.Context, t time.Duration) error {
	if t <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(t):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeTimeout is how long the application may keep working on what it has published
// after the user has interrupted it.
const closeTimeout = time.Second

// close waits until everything published has been handled, or, once ctx has ended,
// at most for closeTimeout; the rest then counts as dropped.
func (d *demo) close(ctx context.Context) error {
	closing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		_ = sleep(closing, closeTimeout)
		cancel()
	})()
	return d.bus.Close(closing)
}
