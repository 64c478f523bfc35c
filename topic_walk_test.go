package hark_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harkbus/hark"
)

// parcel is what the walk publishes. Its lane is an origin with an order of its
// own, like a goroutine: a topic's Publish, or one of its Publishers.
type parcel struct {
	ID, Lane, Key int
	Topic         string
}

// topicWorld is a bus that a random walk operates on, and a model of it: for
// each subscription, the list of what it must account for.
type topicWorld struct {
	t      *testing.T
	rnd    *rand.Rand
	bus    *hark.Bus
	topics []*roadTopic
	subs   []*road
	next   int // the ID of the next parcel
}

// roadTopic is a topic and what has been published to it.
type roadTopic struct {
	*hark.Topic[parcel]
	name     string
	stored   bool
	handles  []*hark.Publisher[parcel]
	accepted []parcel
}

// road is a subscription, or all members of a group, with what it should
// receive and what its handlers saw. Its fields need no mutex: in the bubble,
// every access is ordered by the bus or by synctest.Wait.
type road struct {
	w       *topicWorld
	name    string
	topics  []*roadTopic
	members []*hark.Subscription
	cfg     roadConfig
	from    map[*roadTopic]int // index in accepted where it begins
	until   map[*roadTopic]int // index where it ends; missing while it lives
	cut     bool               // closed rather than drained
	trace   chan event
	events  []event
}

type roadConfig struct {
	seed                 uint64
	workers              int
	group, batch, filter bool
	slow                 bool
	policy               hark.Policy
	buffer               int
	fates                bool // handlers fail, drop and reject
}

// event is one thing that a handler did.
type event struct {
	p       parcel
	attempt int
	begin   bool
	fate    fate
}

type fate uint8

const (
	fateOK fate = iota
	fateAgain
	fateDrop
	fateDead
	fateCut // the handler's context ended
)

const (
	walkAttempts = 3
	walkTick     = 50 * time.Millisecond
)

// fateOf decides what a road's handler does with an attempt. The decision is
// always the same.
func (r *road) fateOf(p parcel, attempt int) fate {
	if !r.cfg.fates {
		return fateOK
	}
	switch h := (uint64(p.ID)*2654435761 + r.cfg.seed) % 16; {
	case h == 0:
		return fateDrop
	case h == 1:
		return fateDead
	case h == 2:
		return fateAgain // until its attempts are used up
	case h <= 5 && attempt < walkAttempts:
		return fateAgain
	}
	return fateOK
}

// wants reports whether the road's predicate accepts p.
func (r *road) wants(p parcel) bool { return !r.cfg.filter || (p.ID+int(r.cfg.seed))%3 != 0 }

func (r *road) handle(ctx context.Context, m *hark.Message[parcel]) error {
	p := m.Value
	r.trace <- event{p: p, attempt: m.Attempt(), begin: true}
	f := r.fateOf(p, m.Attempt())
	if r.cfg.slow && p.ID%4 == 0 {
		select {
		case <-time.After(time.Duration(p.ID%7+1) * walkTick):
		case <-ctx.Done():
			f = fateCut
		}
	}
	r.trace <- event{p: p, attempt: m.Attempt(), fate: f}
	switch f {
	case fateAgain:
		return fmt.Errorf("%w: parcel %d", errTrap, p.ID)
	case fateDrop:
		return hark.Drop(errTrap)
	case fateDead:
		return hark.Reject(errTrap)
	case fateCut:
		return context.Cause(ctx)
	}
	return nil
}

func (r *road) handleBatch(ctx context.Context, ms []*hark.Message[parcel]) error {
	failed := &hark.BatchError{}
	for i, m := range ms {
		if err := r.handle(ctx, m); err != nil {
			failed.Items = append(failed.Items, hark.ItemError{Index: i, Err: err})
		}
	}
	if len(failed.Items) > 0 {
		return failed
	}
	return nil
}

func (r *road) options() []hark.SubscribeOption {
	c := r.cfg
	opts := []hark.SubscribeOption{
		hark.MaxAttempts(walkAttempts), hark.Backoff(hark.BackoffPolicy{Min: walkTick, Max: 4 * walkTick}), hark.DeadLetter("dead"),
	}
	if c.workers > 1 {
		opts = append(opts, hark.Workers(c.workers))
	}
	if c.group {
		opts = append(opts, hark.Group(r.name))
	}
	if c.policy != 0 {
		opts = append(opts, hark.Overflow(c.policy))
	}
	if c.buffer != 0 {
		opts = append(opts, hark.Buffer(c.buffer))
	}
	if c.filter {
		opts = append(opts, hark.Where(hark.MatchFunc[parcel](r.wants)))
	}
	return opts
}

// join adds a member to the road.
func (r *road) join() {
	var sub *hark.Subscription
	var err error
	switch opts := r.options(); {
	case len(r.topics) > 1:
		sub, err = hark.SubscribePattern(r.w.bus, "walk.*", r.handle, opts...)
	case r.cfg.batch:
		sub, err = r.topics[0].SubscribeBatch(r.handleBatch, append(opts, hark.Batch(1+r.w.rnd.IntN(7), walkTick))...)
	default:
		sub, err = r.topics[0].Subscribe(r.handle, opts...)
	}
	if err != nil {
		r.w.t.Fatalf("%s: %v", r.name, err)
	}
	r.members = append(r.members, sub)
}

func (w *topicWorld) subscribe() {
	rnd := w.rnd
	topic := w.topics[rnd.IntN(len(w.topics))]
	r := &road{
		w: w, name: fmt.Sprintf("road%d", len(w.subs)), topics: []*roadTopic{topic},
		from: map[*roadTopic]int{}, until: map[*roadTopic]int{}, trace: make(chan event, 1<<16),
	}
	c := &r.cfg
	c.seed, c.workers = rnd.Uint64(), 1
	c.fates, c.slow, c.filter = rnd.IntN(2) == 0, rnd.IntN(3) == 0, rnd.IntN(3) == 0
	c.group = rnd.IntN(3) == 0
	if rnd.IntN(3) == 0 {
		c.workers = 2 + rnd.IntN(3)
	}
	switch rnd.IntN(5) {
	case 0:
		c.batch = true
	case 1:
		r.topics = w.topics
	}
	if len(r.topics) > 1 || !topic.stored {
		switch rnd.IntN(4) {
		case 0:
			c.buffer = 1 + rnd.IntN(20)
		case 1:
			c.policy, c.buffer = hark.DropOldest, 1+rnd.IntN(20)
		case 2:
			c.policy, c.buffer = hark.DropNewest, 1+rnd.IntN(20)
		case 3:
			c.buffer = hark.Unbounded
		}
	}
	for _, t := range r.topics {
		r.from[t] = len(t.accepted)
	}
	w.subs = append(w.subs, r)
	for range 1 + rnd.IntN(3) {
		r.join()
		if !c.group {
			break
		}
	}
}

// publish publishes n parcels to a topic in a random way.
func (w *topicWorld) publish(n int) {
	topic := w.topics[w.rnd.IntN(len(w.topics))]
	lane := w.rnd.IntN(1 + len(topic.handles))
	var ps []parcel
	for range n {
		p := parcel{ID: w.next, Lane: lane, Key: w.rnd.IntN(6), Topic: topic.name}
		if topic.stored {
			p.Lane = 0 // it has a single order, whoever publishes
		}
		w.next++
		ps = append(ps, p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var err error
	switch {
	case lane > 0:
		err = topic.handles[lane-1].PublishAll(ctx, ps)
	case n == 1:
		err = topic.Publish(ctx, ps[0])
	default:
		err = topic.PublishAll(ctx, ps)
	}
	var some *hark.BatchError
	switch {
	case err == nil:
		topic.accepted = append(topic.accepted, ps...)
	case !errors.Is(err, context.DeadlineExceeded):
		w.t.Fatalf("publish: %v", err)
	case errors.As(err, &some):
		topic.accepted = append(topic.accepted, ps[:some.Items[0].Index]...)
	}
}

func (w *topicWorld) anyLive() *road {
	var live []*road
	for _, r := range w.subs {
		if len(r.members) > 0 {
			live = append(live, r)
		}
	}
	if len(live) == 0 {
		return nil
	}
	return live[w.rnd.IntN(len(live))]
}

// leave ends one member of a road.
func (w *topicWorld) leave(r *road) {
	i := w.rnd.IntN(len(r.members))
	sub := r.members[i]
	r.members = slices.Delete(r.members, i, i+1)
	last := len(r.members) == 0
	if last {
		for _, t := range r.topics {
			r.until[t] = len(t.accepted)
		}
	}
	if w.rnd.IntN(2) == 0 {
		r.cut = true
		if err := sub.Close(); err != nil {
			w.t.Errorf("%s: close: %v", r.name, err)
		}
	} else {
		if last { // otherwise a paused member would hold it up
			sub.Resume()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := sub.Drain(ctx); err != nil {
			w.t.Errorf("%s: drain: %v", r.name, err)
		}
	}
	if !last {
		return
	}
	synctest.Wait()
	r.collect()
	seen := len(r.events)
	w.publish(1)
	synctest.Wait()
	if r.collect(); len(r.events) != seen {
		w.t.Errorf("%s: a handler ran after the last member had left", r.name)
	}
	// A group on a stored topic keeps its place, which no one will ask for.
	r.check(sub.Stats())
}

// collect takes what the handlers have recorded.
func (r *road) collect() {
	for {
		select {
		case e := <-r.trace:
			r.events = append(r.events, e)
		default:
			return
		}
	}
}

// meant returns what the road should receive, in order for each topic.
func (r *road) meant() (all []parcel) {
	for _, t := range r.topics {
		until, ended := r.until[t]
		if !ended {
			until = len(t.accepted)
		}
		all = append(all, t.accepted[r.from[t]:until]...)
	}
	return all
}

// check compares the outcomes of all messages with the model. The road has no
// members, or its bus is closed.
func (r *road) check(s hark.SubscriptionStats) {
	t := r.w.t
	r.collect()
	meant := r.meant()
	want := map[int]parcel{}
	for _, p := range meant {
		want[p.ID] = p
	}
	lasting := r.cfg.group && len(r.topics) == 1 && r.topics[0].stored
	lossy := r.cfg.policy != 0
	var ok, dropped, dead, filtered uint64
	final := map[int]fate{}
	attempts, begun := map[int]int{}, map[int]bool{}
	for _, e := range r.events {
		if _, meant := want[e.p.ID]; !meant {
			t.Fatalf("%s got parcel %d, which was not for it", r.name, e.p.ID)
		}
		if !r.wants(e.p) {
			t.Errorf("%s got parcel %d, which its predicate refuses", r.name, e.p.ID)
		}
		if _, over := final[e.p.ID]; over {
			t.Fatalf("%s got parcel %d again after it was done with", r.name, e.p.ID)
		}
		if e.begin {
			if begun[e.p.ID] {
				t.Fatalf("%s: two handlers have parcel %d at a time", r.name, e.p.ID)
			}
			if e.attempt != attempts[e.p.ID]+1 {
				t.Errorf("%s: parcel %d: attempt %d after %d", r.name, e.p.ID, e.attempt, attempts[e.p.ID])
			}
			begun[e.p.ID] = true
			attempts[e.p.ID] = e.attempt
			continue
		}
		begun[e.p.ID] = false
		switch {
		case e.fate == fateOK:
			ok++
		case e.fate == fateDrop:
			dropped++
		case e.fate == fateDead, e.attempt == walkAttempts:
			dead++
		default:
			continue
		}
		final[e.p.ID] = e.fate
	}
	for _, p := range meant {
		if !r.wants(p) {
			filtered++
		}
	}
	r.checkOrder()
	accounted := s.Delivered + s.Filtered + s.Dropped + s.Dead + s.Waiting + s.Retrying + s.InFlight
	if s.Delivered != ok || s.Dead != dead || s.InFlight != 0 {
		t.Errorf("%s: stats %+v, but handlers saw %d done and %d given up", r.name, s, ok, dead)
	}
	switch {
	case lasting: // what waits belongs to the topic
		if accounted < uint64(len(meant)) {
			t.Errorf("%s: stats %+v account for %d of %d", r.name, s, accounted, len(meant))
		}
		return
	case accounted != uint64(len(meant)) || s.Waiting+s.Retrying != 0:
		t.Errorf("%s: stats %+v account for %d of %d", r.name, s, accounted, len(meant))
	}
	if r.cut || lossy {
		if s.Filtered > filtered || s.Dropped < dropped {
			t.Errorf("%s: stats %+v, want at most %d filtered and at least %d dropped", r.name, s, filtered, dropped)
		}
		return
	}
	if s.Filtered != filtered || s.Dropped != dropped {
		t.Errorf("%s: stats %+v, want %d filtered and %d dropped", r.name, s, filtered, dropped)
	}
}

// checkOrder checks the order of first attempts against the ordering promises.
func (r *road) checkOrder() {
	type line struct {
		topic     string
		lane, key int
	}
	last, running := map[line]int{}, map[line]int{}
	for _, e := range r.events {
		l := line{e.p.Topic, e.p.Lane, e.p.Key}
		alone := !r.cfg.group && r.cfg.workers == 1
		if alone && !r.cfg.fates {
			l.key = 0 // one worker, no retries: one order for the whole lane
		}
		if !e.begin {
			running[l]--
			continue
		}
		if running[l]++; running[l] > 1 {
			r.w.t.Errorf("%s: two of key %d at a time, of topic %s", r.name, e.p.Key, e.p.Topic)
		}
		if r.cfg.batch && r.cfg.fates {
			continue // the items of a batch were seen together
		}
		if prev, ok := last[l]; ok && e.p.ID < prev {
			r.w.t.Errorf("%s %+v: parcel %d came after %d, of topic %s, lane %d, key %d", r.name, r.cfg, e.p.ID, prev, e.p.Topic, e.p.Lane, e.p.Key)
		}
		last[l] = e.p.ID
	}
}

func (w *topicWorld) step() {
	r := w.anyLive()
	switch k := w.rnd.IntN(20); {
	case k < 6:
		w.publish(1)
	case k < 9:
		w.publish(1 + w.rnd.IntN(40))
	case k < 11 || r == nil:
		w.subscribe()
	case k < 12:
		r.members[w.rnd.IntN(len(r.members))].Pause()
	case k < 14:
		for _, sub := range r.members {
			sub.Resume()
		}
	case k < 15 && r.cfg.group:
		r.join()
	case k < 16:
		w.leave(r)
	case k < 18:
		time.Sleep(time.Duration(w.rnd.IntN(10)) * walkTick)
	default:
		synctest.Wait()
	}
}

// finish closes the bus and checks the remaining roads.
func (w *topicWorld) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	live := map[*road]*hark.Subscription{}
	for _, r := range w.subs {
		if len(r.members) > 0 {
			live[r] = r.members[0]
		}
	}
	if err := w.bus.Close(ctx); err != nil {
		w.t.Errorf("close: %v", err)
	}
	for r, sub := range live {
		r.check(sub.Stats())
	}
	var dead, kept uint64
	for _, r := range w.subs {
		for _, e := range r.events {
			if !e.begin && (e.fate == fateDead || e.attempt == walkAttempts && e.fate != fateOK && e.fate != fateDrop) {
				dead++
			}
		}
	}
	for _, s := range w.bus.Stats().Topics {
		if s.Name == "dead" {
			kept = s.Stored
		}
	}
	if dead != kept {
		w.t.Errorf("%d dead letters are kept, want %d", kept, dead)
	}
}

// TestTopicWalk operates randomly on topics and compares the outcome of each
// message with a model.
func TestTopicWalk(t *testing.T) {
	walk(t, 60, func(t *testing.T, rnd *rand.Rand) {
		w := &topicWorld{t: t, rnd: rnd, bus: hark.New()}
		key := hark.KeyBy(func(p parcel) string { return string(rune('a' + p.Key)) })
		for _, stored := range []bool{true, false} {
			name, opts := "walk.ephemeral", []hark.TopicOption{key}
			if stored {
				name, opts = "walk.stored", append(opts, hark.Stored(hark.Retention{}))
			}
			topic, err := hark.NewTopic[parcel](w.bus, name, opts...)
			if err != nil {
				t.Fatal(err)
			}
			rt := &roadTopic{Topic: topic, name: name, stored: stored}
			for range 2 {
				rt.handles = append(rt.handles, topic.Publisher())
			}
			w.topics = append(w.topics, rt)
		}
		for range 120 {
			w.step()
		}
		w.finish()
	})
}
