package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/harkbus/hark"
)

// deliveryID identifies a delivery across publishers.
type deliveryID struct {
	Run string `json:"run"`
	Seq int    `json:"seq"`
}

func (w webhook) id() deliveryID { return deliveryID{w.Run, w.Seq} }

// book is one process's account of all stored deliveries. Its messages may arrive
// in any order, and repeatedly.
type book struct {
	wanted hark.Evaluator // selects the pull requests to review

	mu       sync.Mutex // guards the fields below
	items    map[deliveryID]*item
	byRun    map[string]int    // deliveries read, by run
	places   map[string]uint64 // of the latest delivery that the mirror has handled, by repository
	known    int
	open     int // known, but not finished
	mirrored [2]int
	tracked  [2]int // by other processes, and by this one
	repeats  int    // receipts, reviews and dead letters beyond the first
	disorder int
	dead     int
	reviews  int
	pending  map[deliveryID]bool // what settled waits for; nil if nothing waits
	news     chan struct{}       // closed and replaced with each delivery read, and when nothing is pending any more
}

// item records what happened to a delivery.
type item struct {
	webhook
	known, reviewed, mirrored, tracked, dead bool
	wanted                                   bool
}

func newBook(wanted hark.Evaluator) *book {
	return &book{wanted: wanted, items: map[deliveryID]*item{}, byRun: map[string]int{}, places: map[string]uint64{}, news: make(chan struct{})}
}

// done reports whether all work on a delivery is finished.
func (i *item) done() bool {
	return i.mirrored && (i.Event != "issues" || i.tracked || i.dead) && (!i.wanted || i.reviewed)
}

// change updates the account of a delivery.
func (b *book) change(id deliveryID, f func(*item)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.items[id]
	if i == nil {
		i = &item{}
		b.items[id] = i
	}
	was := i.known && !i.done()
	f(i)
	switch is := i.known && !i.done(); {
	case is && !was:
		b.open++
	case was && !is:
		b.open--
		delete(b.pending, id)
	}
	b.tellLocked()
}

func (b *book) tellLocked() {
	close(b.news)
	b.news = make(chan struct{})
}

// published records a delivery.
func (b *book) published(w webhook) {
	wanted := w.Event == "pull_request"
	if wanted {
		ok, err := b.wanted.Eval(deliveryMessage{w})
		wanted = ok && err == nil
	}
	b.change(w.id(), func(i *item) {
		if i.known {
			return // a message may be read again after a lost connection
		}
		i.webhook, i.known, i.wanted = w, true, wanted
		b.known++
		b.byRun[w.Run]++
	})
}

// deliveryMessage is a delivery as a filter sees it.
type deliveryMessage struct{ w webhook }

func (m deliveryMessage) ID() string                   { return "" }
func (m deliveryMessage) Source() string               { return "" }
func (m deliveryMessage) Type() string                 { return "" }
func (m deliveryMessage) Subject() string              { return "" }
func (m deliveryMessage) Topic() string                { return deliveriesTopic }
func (m deliveryMessage) Key() string                  { return m.w.Repository }
func (m deliveryMessage) Time() time.Time              { return time.Time{} }
func (m deliveryMessage) Header(string) (string, bool) { return "", false }
func (m deliveryMessage) Data() any                    { return &m.w }

// receive records a receipt.
func (b *book) receive(r receipt, here bool) {
	mine := 0
	if here {
		mine = 1
	}
	b.change(r.Of, func(i *item) {
		switch {
		case r.By == "tracker" && !i.tracked:
			i.tracked = true
			b.tracked[mine]++
		case r.By == "mirror" && !i.mirrored:
			i.mirrored = true
			b.mirrored[mine]++
			if r.Repository == "" {
				break // no key, no order
			}
			if r.Place < b.places[r.Repository] {
				b.disorder++
			}
			b.places[r.Repository] = r.Place
		default:
			b.repeats++
		}
	})
}

// review records that a review was requested.
func (b *book) review(w webhook) {
	b.change(w.id(), func(i *item) {
		if i.reviewed {
			b.repeats++
			return
		}
		i.reviewed = true
		b.reviews++
	})
}

// bury records a dead letter.
func (b *book) bury(w webhook) {
	b.change(w.id(), func(i *item) {
		if i.dead {
			b.repeats++
			return
		}
		i.dead = true
		b.dead++
	})
}

func (b *book) numbers() (known, open, here int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known, b.open, b.mirrored[1]
}

// read waits until count deliveries of a run have been read.
func (b *book) read(ctx context.Context, run string, count int) error {
	return b.await(ctx, func() bool { return b.byRun[run] >= count })
}

// settled waits until all deliveries known at the time of the call are finished.
func (b *book) settled(ctx context.Context) error {
	b.mu.Lock()
	b.pending = map[deliveryID]bool{}
	for id, i := range b.items {
		if i.known && !i.done() {
			b.pending[id] = true
		}
	}
	b.mu.Unlock()
	return b.await(ctx, func() bool { return len(b.pending) == 0 })
}

// await waits until ready returns true. It calls ready with mu held.
func (b *book) await(ctx context.Context, ready func() bool) error {
	for {
		b.mu.Lock()
		ok, news := ready(), b.news
		b.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// engineReport says what happened to every stored delivery.
type engineReport struct {
	Engine    string  `json:"engine"`
	Published int64   `json:"published"` // by this process
	Seconds   float64 `json:"seconds"`
	Stored    int     `json:"stored"`
	Runs      int     `json:"runs"`
	Mirror    shared  `json:"mirror"`
	Tracker   shared  `json:"tracker"`
	Dead      int     `json:"dead"`
	Wanted    int     `json:"reviewsToDo"`
	Reviews   int     `json:"reviews"`
	Shown     int64   `json:"shown"`
	Dropped   int64   `json:"dropped"`

	Repositories int      `json:"repositories"`
	Disorder     int      `json:"outOfOrder"`
	Overlaps     int      `json:"atTheSameTime"`
	Repeats      int      `json:"doneMoreThanOnce"`
	Open         int      `json:"open"` // not finished yet
	Faults       []string `json:"faults"`
}

// shared is work that the processes of the demo share.
type shared struct {
	Todo   int `json:"toDo"`
	Here   int `json:"doneHere"`
	Others int `json:"doneByOthers"`
}

// report prints what happened to every delivery, and returns an error if anything
// is wrong.
func (d *engineDemo) report(s Streams, took time.Duration, interrupted bool) error {
	r := d.account(took, interrupted)
	if d.demo.json {
		return errors.Join(printJSON(s.Out, r), faulty(r.Faults))
	}
	_, err := s.Out.Write(r.text(interrupted || d.join))
	return errors.Join(err, faulty(r.Faults))
}

// account sums up the demo.
func (d *engineDemo) account(took time.Duration, interrupted bool) *engineReport {
	b := d.book
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &engineReport{
		Engine: d.bus.Engine().Engine, Published: d.published.Load(), Seconds: took.Seconds(), Stored: b.known, Runs: len(b.byRun),
		Mirror: shared{b.known, b.mirrored[1], b.mirrored[0]}, Tracker: shared{0, b.tracked[1], b.tracked[0]},
		Dead: b.dead, Reviews: b.reviews, Shown: d.dashboard.shown.Load(), Dropped: d.dashboard.dropped.Load(),
		Repositories: len(b.places), Disorder: b.disorder, Repeats: b.repeats, Open: b.open, Faults: []string{},
	}
	for _, i := range b.items {
		if i.known && i.Event == "issues" {
			r.Tracker.Todo++
		}
		if i.known && i.wanted {
			r.Wanted++
		}
	}
	d.orderChecker.mu.Lock()
	r.Overlaps = d.orderChecker.overlaps
	d.orderChecker.mu.Unlock()
	if r.Disorder+r.Overlaps > 0 {
		r.Faults = append(r.Faults, "the order of a repository was broken")
	}
	if b.open > 0 && !interrupted && !d.join && len(b.pending) > 0 {
		r.Faults = append(r.Faults, fmt.Sprintf("%d deliveries are not done", len(b.pending)))
	}
	return r
}

// text returns the report for people; stopped says that work may be left for other
// processes.
func (r *engineReport) text(stopped bool) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s published by this process over %s in %.1f s\n", plural(int(r.Published), "delivery", "deliveries"), r.Engine, r.Seconds)
	fmt.Fprintf(&out, "%s stored, by %s of the demo\n\n", plural(r.Stored, "delivery is", "deliveries are"), plural(r.Runs, "run", "runs"))
	fmt.Fprintf(&out, "mirror:  %d to do, %d done here and %d by other processes\n", r.Mirror.Todo, r.Mirror.Here, r.Mirror.Others)
	fmt.Fprintf(&out, "tracker: %d to do, %d done here and %d by other processes, %d dead\n", r.Tracker.Todo, r.Tracker.Here, r.Tracker.Others, r.Dead)
	fmt.Fprintf(&out, "reviews: %d to do, %d wanted\n", r.Wanted, r.Reviews)
	fmt.Fprintf(&out, "dashboard: %d shown, %d dropped, by this process\n", r.Shown, r.Dropped)
	fmt.Fprintf(&out, "\n%s, %d out of order, %d at the same time; %d done more than once\n", plural(r.Repositories, "repository", "repositories"), r.Disorder, r.Overlaps, r.Repeats)
	switch {
	case r.Open == 0:
		fmt.Fprintln(&out, "every delivery is accounted for")
	case stopped:
		fmt.Fprintf(&out, "%d not done yet: they stay stored, for other processes of the demo and for its next run\n", r.Open)
	case len(r.Faults) == 0:
		fmt.Fprintf(&out, "every delivery of this process is accounted for; %d that others have published since are not done yet\n", r.Open)
	}
	return out.Bytes()
}
