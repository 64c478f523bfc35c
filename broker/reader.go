package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
)

const (
	// storedBatch is how many messages of a stored topic are routed together.
	storedBatch = 256
	// liveWindow is how many messages of another topic wait to be routed, or sent to
	// clients over HTTP, before the newest are dropped, counted. liveSize is how large
	// they may be together, and allLiveSize those of all topics.
	liveWindow  = 8192
	liveSize    = 64 << 20
	allLiveSize = 256 << 20
	// hopsHeader counts how often a message has been routed.
	hopsHeader = "hark-hops"
	// attemptTimeout is how long one attempt to publish may take.
	attemptTimeout = 10 * time.Second
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = 5 * time.Second
)

// reader routes the messages of a topic or of a pattern, one batch after the
// other, so that the messages of a topic keep their order.
type reader struct {
	routing *routing
	key     readerKey
	sub     driver.Subscription
	work    context.Context // ends when stopping takes too long
	cut     context.CancelFunc
	placed  bool                    // its group was made for it, by a reload
	done    chan struct{}           // closed when run has returned
	skip    atomic.Pointer[skipSet] // messages that another reader has routed; nil for none

	mu           sync.Mutex   // guards the fields below
	routed       *routedMarks // nil while nobody asks for them
	receiving    context.Context
	interrupt    context.CancelCauseFunc
	pauseRequest *pauseRequest // set by pause
}

// pauseRequest asks a reader to pause.
type pauseRequest struct {
	reached chan struct{} // closed when the reader has paused
	over    chan struct{} // closed when it may continue
}

// errPaused interrupts a reader that waits for messages.
var errPaused = errors.New("paused")

func newReader(r *routing, key readerKey) *reader {
	in := &reader{routing: r, key: key, done: make(chan struct{})}
	in.work, in.cut = context.WithCancel(r.work)
	in.receiving, in.interrupt = context.WithCancelCause(in.work)
	return in
}

// record makes the reader record in n what it routes; nil ends that.
func (in *reader) record(n *routedMarks) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.routed = n
}

// pause makes the reader route the messages that it has received, and then wait until
// resume is called. It returns once the reader waits. It reports false if that takes longer
// than patience.
func (in *reader) pause(ctx context.Context, patience time.Duration) (resume func(), ok bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h := &pauseRequest{make(chan struct{}), make(chan struct{})}
	in.mu.Lock()
	in.pauseRequest = h
	in.interrupt(errPaused)
	in.mu.Unlock()
	resume = func() { close(h.over) }
	select {
	case <-h.reached:
	case <-in.done:
	case <-ctx.Done():
		return resume, false
	}
	return resume, true
}

// waitPaused does what pause asks for.
func (in *reader) waitPaused() {
	in.mu.Lock()
	h := in.pauseRequest
	in.pauseRequest = nil
	in.receiving, in.interrupt = context.WithCancelCause(in.work)
	in.mu.Unlock()
	if h == nil {
		return
	}
	in.routeWaiting()
	close(h.reached)
	select {
	case <-h.over:
	case <-in.work.Done():
	}
}

// waiting returns how many messages have reached the connection and have not been
// received by the reader.
func (in *reader) waiting() int {
	if in.routing.conn.Flush(in.work) != nil {
		return 0
	}
	lag, err := in.sub.Lag(in.work)
	if err != nil {
		return 0
	}
	return int(lag.Waiting)
}

// routeWaiting routes these messages.
func (in *reader) routeWaiting() {
	now, cancel := context.WithCancel(in.work)
	left := in.waiting()
	cancel() // messages that are there are received all the same
	for left > 0 {
		ms, err := in.sub.Receive(now, min(left, storedBatch))
		if err != nil {
			return
		}
		in.route(ms)
		left -= len(ms)
	}
}

func (in *reader) start() {
	go func() {
		defer close(in.done)
		if in.key.stored {
			defer keepLeases(in.routing.conn, in.sub, in.routing.log.With("from", in.key.from))()
		}
		in.run()
	}()
}

// stop ends the reader when the messages that it has received are done, or ctx ends.
func (in *reader) stop(ctx context.Context) error {
	defer in.cut()
	err := in.sub.Drain(ctx)
	if err == nil {
		select {
		case <-in.done:
		case <-ctx.Done():
			err = fmt.Errorf("routes from %s: %w", in.key.from, context.Cause(ctx))
		}
	}
	err = errors.Join(err, in.sub.Close(ctx))
	select {
	case <-in.done:
	case <-ctx.Done():
		in.cut() // it cannot wait for anything any more
		<-in.done
	}
	return err
}

func (in *reader) run() {
	log := in.routing.log.With("from", in.key.from)
	for pause := minBackoff; ; {
		in.mu.Lock()
		receiving := in.receiving
		in.mu.Unlock()
		ms, err := in.sub.Receive(receiving, storedBatch)
		switch {
		case err == nil:
			pause = minBackoff
		case errors.Is(context.Cause(receiving), errPaused) && in.work.Err() == nil && !errors.Is(err, driver.ErrEnded):
			in.waitPaused()
			continue
		case errors.Is(err, driver.ErrEnded), errors.Is(err, driver.ErrClosed), in.work.Err() != nil:
			return
		default:
			log.Error("messages cannot be received", "err", err, "retry_in", pause)
			sleep(in.work, pause)
			pause = min(2*pause, maxBackoff)
			continue
		}
		done := in.route(ms)
		if !in.key.stored {
			continue
		}
		if err := in.sub.Ack(in.work, ms[:done]); err != nil && in.work.Err() == nil {
			log.Warn("messages could not be acknowledged and will be delivered again", "err", err)
		}
		if done < len(ms) { // only when it is cut short
			return
		}
	}
}

// delivery is a message on its way to one target.
type delivery struct {
	number int // of the message in its batch
	route  *route
	target string
	out    *driver.Message
	err    error // for good
	sent   bool  // the target, which is not stored, has it
}

// routingBatch is what is to be done with the messages that a reader has received together.
type routingBatch struct {
	matches    []routeMatch
	deliveries []*delivery // of matches
	byTarget   map[string][]*delivery
	moves      moves
}

// route does with messages what the plan says, and returns how many of them, from
// the first on, are done with.
func (in *reader) route(ms []*driver.Received) int {
	p := in.routing.plan.Load()
	mine := in.mine(p, ms)
	b := in.decide(p, ms, mine)
	for !in.deliver(p, ms, b.byTarget) {
		if !sleep(in.work, minBackoff) {
			return 0 // repeats are recognised
		}
		p = in.routing.plan.Load() // it has been replaced
		before := b
		b = in.decide(p, ms, mine)
		b.noteSent(before)
	}
	for _, d := range b.deliveries {
		if d.err != nil {
			b.moves.keep(d.number)
		}
	}
	done := in.remove(ms, b.moves)
	b.moves.report(in.routing.log, ms[:done])
	for i := range b.matches {
		if t := &b.matches[i]; t.number < done {
			t.count(b.deliveries[t.begin:t.end], b.moves[t.number])
		}
	}
	return done
}

// mine reports which messages this reader routes, and records them. It must be called once
// for each message, because the marks of those to skip are used up.
func (in *reader) mine(p *plan, ms []*driver.Received) []bool {
	in.mu.Lock()
	routed := in.routed
	in.mu.Unlock()
	skip, mine := in.skip.Load(), make([]bool, len(ms))
	for i, m := range ms {
		if skip.has(m) || !in.key.stored && p.declared(m.Topic) {
			continue // another reader has it from its store, or had it before
		}
		routed.add(m)
		mine[i] = true
	}
	return mine
}

// decide finds out what a plan says about the messages of this reader.
func (in *reader) decide(p *plan, ms []*driver.Received, mine []bool) *routingBatch {
	b := &routingBatch{byTarget: map[string][]*delivery{}, moves: moves{}}
	for i, m := range ms {
		if !mine[i] {
			continue
		}
		groups := p.tasks[in.key]
		if p.mixed[in.key] {
			groups = matching(groups, m.Topic)
		}
		decisions := p.router.decide(groups, &Event{Message: m})
		if len(decisions) == 0 {
			continue
		}
		out, err := in.outgoing(p, m)
		if err != nil {
			in.routing.log.Error("message not routed", "topic", m.Topic, "seq", m.Seq, "id", m.ID, "err", err)
		}
		b.add(i, decisions, out)
	}
	return b
}

// add adds what the routes say about a message of the batch. out goes to their
// targets; it is nil if the message has been routed too often.
func (b *routingBatch) add(number int, decisions []Decision, out *driver.Message) {
	first := len(b.deliveries)
	for _, d := range decisions {
		t := routeMatch{
			route: d.route, number: number, otherwise: d.Otherwise, sampledOut: d.SampledOut, looped: out == nil,
			unresolved: len(d.Unresolved) > 0, move: d.Move, begin: len(b.deliveries),
		}
		if out != nil {
			for _, target := range d.Targets {
				one := &delivery{number: number, route: d.route, target: target, out: out}
				b.byTarget[target] = append(b.byTarget[target], one)
				b.deliveries = append(b.deliveries, one)
			}
			for _, target := range d.shared {
				j := slices.IndexFunc(b.deliveries[first:], func(one *delivery) bool { return one.target == target })
				b.deliveries = append(b.deliveries, b.deliveries[first+j])
			}
			if d.Move {
				b.moves.add(number, &d)
			}
		}
		t.end = len(b.deliveries)
		b.matches = append(b.matches, t)
	}
}

// noteSent notes what targets that are not stored have by the plan before: they would not
// recognise a repeat.
func (b *routingBatch) noteSent(before *routingBatch) {
	for target, ds := range b.byTarget {
		sent := map[int]bool{}
		for _, d := range before.byTarget[target] {
			sent[d.number] = d.sent
		}
		for _, d := range ds {
			d.sent = sent[d.number]
		}
	}
}

// outgoing makes the message that goes to targets.
func (in *reader) outgoing(p *plan, m *driver.Received) (*driver.Message, error) {
	hops, _ := strconv.Atoi(m.Headers[hopsHeader]) // what is no number counts as none
	if hops >= p.maxHops {
		return nil, fmt.Errorf("it has been routed %d times, which is the limit max_hops; routes and programs may pass it on in a loop", hops)
	}
	out := m.Message
	out.Headers = maps.Clone(m.Headers)
	if out.Headers == nil {
		out.Headers = map[string]string{}
	}
	out.Headers[hopsHeader] = strconv.Itoa(max(hops, 0) + 1)
	switch { // different messages of different topics may have the same ID
	case in.key.stored: // and the same sequence, in a topic that is created again
		out.DedupID = "route/" + m.Topic + "/" + strconv.FormatUint(m.Seq, 10) + "/" + strconv.FormatInt(m.Time.UnixNano(), 36) + "/" + m.ID
	case m.ID != "":
		out.DedupID = "route/" + m.Topic + "//" + m.ID
	}
	return &out, nil
}

// deliver publishes to all targets, each in the order of the messages. It reports
// false if it was cut short.
func (in *reader) deliver(p *plan, ms []*driver.Received, byTarget map[string][]*delivery) bool {
	var all sync.WaitGroup
	var short atomic.Bool
	for target, ds := range byTarget {
		topic, stored, err := p.target(in.work, in.routing.conn, target)
		switch {
		case err != nil:
			in.refuse(ms, target, ds, err)
		case !stored:
			ds = slices.DeleteFunc(slices.Clone(ds), func(d *delivery) bool { return d.sent })
			in.publish(p, ms, target, topic, ds) // it does not wait for anything
			for _, d := range ds {
				d.sent = d.err == nil
			}
		default:
			all.Go(func() {
				if !in.publish(p, ms, target, topic, ds) {
					short.Store(true)
				}
			})
		}
	}
	all.Wait()
	if short.Load() {
		return false
	}
	if in.key.stored && len(byTarget) > 0 && in.routing.conn.Flush(in.work) != nil {
		return false
	}
	return in.work.Err() == nil
}

// refuse records that a target cannot be published to.
func (in *reader) refuse(ms []*driver.Received, target string, ds []*delivery, err error) {
	for _, d := range ds {
		d.err = err
		in.routing.log.Error("message not routed", "route", d.route.Name, "to", target, "topic", ms[d.number].Topic, "seq", ms[d.number].Seq, "err", err)
	}
}

// publish publishes to one target. From a stored topic it tries for as long as it takes,
// or until there is another plan, which may have other targets. It reports false if it
// was cut short.
func (in *reader) publish(p *plan, ms []*driver.Received, target string, topic driver.Topic, ds []*delivery) bool {
	for pause := minBackoff; len(ds) > 0; pause = min(2*pause, maxBackoff) {
		again, why := in.attempt(topic, ds)
		for _, d := range ds {
			switch {
			case d.err == nil:
			case in.key.stored && len(again) > 0 && passes(d.err):
			default:
				in.refuse(ms, target, []*delivery{d}, d.err)
			}
		}
		if ds = again; len(ds) == 0 {
			return true
		}
		if in.work.Err() != nil || in.routing.plan.Load() != p {
			return false
		}
		in.routing.log.Warn("a target does not accept messages", "to", target, "waiting", len(ds), "err", why, "retry_in", pause)
		sleep(in.work, pause)
		for _, d := range ds {
			d.err = nil
		}
	}
	return true
}

// attempt publishes once, and returns what is to be tried again, and why.
func (in *reader) attempt(topic driver.Topic, ds []*delivery) (again []*delivery, why error) {
	ctx, cancel := context.WithTimeout(in.work, attemptTimeout)
	defer cancel()
	outs := make([]*driver.Message, len(ds))
	for i, d := range ds {
		outs[i] = d.out
	}
	err := topic.Publish(ctx, outs)
	var some driver.PartialError
	partial := errors.As(err, &some)
	for i, d := range ds {
		d.err = err
		if partial {
			d.err = some[i]
		}
		if d.err != nil && in.key.stored && passes(d.err) {
			again, why = append(again, d), d.err
		}
	}
	return again, why
}

// passes reports whether publishing may succeed later.
func passes(err error) bool {
	if errors.Is(err, driver.ErrTooLarge) {
		return false
	}
	for _, e := range []error{driver.ErrAgain, driver.ErrFull, driver.ErrUnsure, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
