package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/filter"
)

// demoTopics are the topics of the demo over an engine. All deliveries are on one
// topic, because work that must outlive a process is done by groups, and a group
// belongs to one topic. All topics but the live one are stored, for a day.
const (
	deliveriesTopic = "demo.deliveries"
	wantedTopic     = "demo.reviews.wanted"
	deadTopic       = "demo.dead"
	receiptsTopic   = "demo.receipts"
	liveTopic       = "demo.live"
)

const demoAge = 24 * time.Hour

// engineDemo is the application over an engine. Groups, which all processes of the
// demo share, do the work on each delivery, and leave a trace: a receipt, a review
// request or a dead letter. Each process reads all of these and accounts for every
// stored delivery, whoever published it and whoever handled it.
type engineDemo struct {
	*demo
	join       bool
	run        string // distinguishes this process's deliveries and receipts
	deliveries *hark.Topic[webhook]
	wanted     *hark.Topic[webhook]
	live       *hark.Topic[webhook]
	receipts   *hark.Topic[receipt]
	book       *book
	published  atomic.Int64 // by this process
	waiting    atomic.Bool  // nothing more will be published here
	dashboard  *dashboard
}

// receipt says that a part of the application has finished a delivery.
type receipt struct {
	Of         deliveryID `json:"of"`
	By         string     `json:"by"`    // mirror or tracker
	Run        string     `json:"run"`   // the process that did it
	Place      uint64     `json:"place"` // sequence of the delivery on its topic
	Repository string     `json:"repository"`
}

func runEngineDemo(ctx context.Context, o demoOptions, opened hark.Evaluator, s Streams) (err error) {
	d := &engineDemo{demo: newDemo(o, opened), join: o.join, run: rand.Text()[:8], book: newBook(opened), dashboard: &dashboard{}}
	open := func(string) error { return nil }
	if err := d.read(s, open); err != nil {
		return err
	}
	at := brokerFlags{url: o.url}
	conn, err := at.connect(ctx, s.Err)
	if err != nil {
		return err
	}
	d.bus = hark.Over(conn, hark.WithHooks(d.dashboard))
	if err := d.subscribe(); err != nil {
		return errors.Join(err, closed(ctx, conn))
	}
	start := time.Now()
	bar := showProgress(s.Err, d.progress)
	if d.join {
		<-ctx.Done()
	} else if err = d.publish(ctx); err == nil {
		d.waiting.Store(true)
		err = d.book.settled(ctx)
	}
	took := time.Since(start)
	err = errors.Join(err, d.close(ctx))
	bar.stop()
	interrupted := ctx.Err() != nil
	if interrupted {
		err = nil // the interruption is why publishing stopped and some handlers were cancelled
	}
	err = errors.Join(err, d.report(s, took, interrupted))
	if err == nil && interrupted {
		return errInterrupted
	}
	return err
}

// subscribe opens the topics and connects the parts of the application.
func (d *engineDemo) subscribe() (err error) {
	stored := hark.Stored(hark.Retention{MaxAge: demoAge})
	if d.deliveries, err = hark.NewTopic[webhook](d.bus, deliveriesTopic, stored, hark.KeyBy(func(w webhook) string { return w.Repository })); err != nil {
		return err
	}
	if d.wanted, err = hark.NewTopic[webhook](d.bus, wantedTopic, stored); err != nil {
		return err
	}
	dead, err := hark.NewTopic[webhook](d.bus, deadTopic, stored)
	if err != nil {
		return err
	}
	if d.receipts, err = hark.NewTopic[receipt](d.bus, receiptsTopic, stored); err != nil {
		return err
	}
	if d.live, err = hark.NewTopic[webhook](d.bus, liveTopic); err != nil {
		return err
	}
	issues, err := filter.Compile(`data.event == "issues"`, filter.For[webhook]())
	if err != nil {
		return err
	}
	pulls, err := filter.Compile(`data.event == "pull_request"`, filter.For[webhook]())
	if err != nil {
		return err
	}
	var errs []error
	add := func(_ *hark.Subscription, err error) { errs = append(errs, err) }

	// Every process reads these independently, from the start.
	add(d.deliveries.Subscribe(func(_ context.Context, m *hark.Message[webhook]) error {
		d.book.published(m.Value)
		return nil
	}, hark.FromStart()))
	add(d.receipts.Subscribe(func(_ context.Context, m *hark.Message[receipt]) error {
		d.book.receive(m.Value, m.Value.Run == d.run)
		return nil
	}, hark.FromStart()))
	add(d.wanted.Subscribe(func(_ context.Context, m *hark.Message[webhook]) error {
		d.book.review(m.Value)
		return nil
	}, hark.FromStart()))
	add(dead.Subscribe(func(_ context.Context, m *hark.Message[webhook]) error {
		d.book.bury(m.Value)
		return nil
	}, hark.FromStart()))

	// The dashboard is too slow for everything, and drops the oldest. Stored
	// messages are never dropped, so it has an ephemeral topic of its own.
	add(d.live.Subscribe(d.dashboard.show, hark.Buffer(2), hark.Overflow(hark.DropOldest)))

	// These share the work with other processes. A new group starts with the oldest
	// delivery.
	add(d.deliveries.Subscribe(func(ctx context.Context, m *hark.Message[webhook]) error {
		d.orderChecker.begins(m.Value.Repository, m.Topic(), int(m.Seq()))
		defer d.orderChecker.ends(m.Value.Repository)
		runtime.Gosched() // gives another worker a chance to interleave
		return d.sign(ctx, "mirror", m)
	}, hark.Group("mirror"), hark.Workers(4), hark.FromStart()))
	add(d.deliveries.Subscribe(func(ctx context.Context, m *hark.Message[webhook]) error {
		// The ID makes passing a delivery on harmless when it is repeated.
		return d.wanted.Publish(ctx, m.Value, hark.ID(fmt.Sprintf("%s-%d", m.Value.Run, m.Value.Seq)))
	}, hark.Group("reviews"), hark.Where(pulls), hark.Where(d.opened), hark.FromStart()))
	add(d.deliveries.Subscribe(func(ctx context.Context, m *hark.Message[webhook]) error {
		if err := d.track(m.Value, m.Attempt()); err != nil {
			return err
		}
		return d.sign(ctx, "tracker", m)
	}, hark.Group("tracker"), hark.Where(issues), hark.FromStart(), hark.MaxAttempts(3), hark.DeadLetter(deadTopic),
		hark.Backoff(hark.BackoffPolicy{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond})))
	return errors.Join(errs...)
}

// dashboard shows deliveries, slowly. As a hook of the bus it learns what it has
// missed: no other part of the application drops anything.
type dashboard struct{ shown, dropped atomic.Int64 }

func (d *dashboard) show(ctx context.Context, _ *hark.Message[webhook]) error {
	if err := sleep(ctx, 5*time.Millisecond); err != nil {
		return err
	}
	d.shown.Add(1)
	return nil
}

// OnDrop implements hark.DropHook.
func (d *dashboard) OnDrop(e hark.DropEvent) { d.dropped.Add(int64(e.Count)) }

// sign publishes a receipt for a delivery.
func (d *engineDemo) sign(ctx context.Context, by string, m *hark.Message[webhook]) error {
	return d.receipts.Publish(ctx, receipt{
		Of: m.Value.id(), By: by, Run: d.run, Place: m.Seq(), Repository: m.Value.Repository,
	})
}

// publish publishes the deliveries until all are published or ctx ends. It returns
// when this process has read them all.
func (d *engineDemo) publish(ctx context.Context) error {
	err := d.deliver(ctx, func(w webhook) error {
		w.Run = d.run
		if err := d.deliveries.Publish(ctx, w); err != nil {
			return err
		}
		d.published.Add(1)
		return d.live.Publish(ctx, w)
	})
	if err != nil {
		return err
	}
	return d.book.read(ctx, d.run, d.total())
}

// progress describes the demo's progress, in at most width columns unless that is
// 0.
func (d *engineDemo) progress(width int) string {
	known, open, here := d.book.numbers()
	line := fmt.Sprintf("%d of %d done, %d by this process", known-open, known, here)
	narrow := width > 0 && width < 72
	if narrow {
		line = fmt.Sprintf("%d/%d done, %d here", known-open, known, here)
	}
	switch {
	case d.join:
		return line
	case d.waiting.Load():
		return "published, waiting: " + line
	case narrow:
		return fmt.Sprintf("%d/%d, %s", d.published.Load(), d.total(), line)
	}
	return fmt.Sprintf("%d of %d published, %s", d.published.Load(), d.total(), line)
}
