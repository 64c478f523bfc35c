package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/percent"
)

const (
	// answerTimeout is how long the server has to acknowledge messages before they
	// are sent again.
	answerTimeout = 5 * time.Second
	// clusterTimeout is the same where the servers recognise repeats, and an
	// answer may be missing because the leader is gone. It doubles each time,
	// because the servers may just be busy.
	clusterTimeout = time.Second
	// maxFlight is how many messages of one call await their acknowledgements at
	// once: servers hold 10,000 per stream before they refuse more.
	maxFlight = 1024
)

// The headers by which a message gives the server instructions.
const (
	natsMsgID = "Nats-Msg-Id"
	natsTTL   = "Nats-TTL" // at least 1 s
)

// outMsg is a message on its way to a stream.
type outMsg struct {
	msg      *nats.Msg
	err      error  // its outcome, once known
	seq      uint64 // where it is stored; 0 while it waits until it is due
	placed   bool   // the caller wants to know seq and repeated
	repeated bool   // it had been stored before
	sent     int    // how often it was sent
	reply    string // the reply subject with which it was first sent outside of bursts and batches
}

// prepare makes the outgoing messages of ms. It returns all of them, and those that can
// be sent separately by whether they are stored at once or wait until they are due.
func (t *stored) prepare(ctx context.Context, ms []*driver.Message, placed bool) (all []outMsg, now, later []*outMsg) {
	all, now = make([]outMsg, len(ms)), make([]*outMsg, 0, len(ms))
	for i, m := range ms {
		p := &all[i]
		p.placed = placed
		p.msg, p.err = t.message(m, &msgBuilder{})
		if !m.Due.IsZero() && p.err == nil {
			if p.err = t.takeDue(ctx); p.err == nil {
				t.delay(p.msg, m.Due)
				later = append(later, p)
			}
			continue
		}
		if p.err == nil {
			now = append(now, p)
		}
	}
	return all, now, later
}

// message builds the NATS message for a message, in l.
func (t *stored) message(m *driver.Message, l *msgBuilder) (*nats.Msg, error) {
	c := t.conn
	if !m.Due.IsZero() && !c.info.Has(driver.Delay) {
		return nil, c.refuse(string(driver.Delay))
	}
	subject := t.topic
	if m.HasKey {
		subject = t.partition(t.topic, partitionOf(m.Key))
	}
	msg, err := l.write(c, subject, t.topic, m)
	if err != nil {
		return nil, err
	}
	if m.Bare && m.HasKey {
		l.set(harkKey, percent.Encode(m.Key))
	}
	if id := cmp.Or(m.DedupID, m.ID); id != "" && t.wanted.Dedup > 0 {
		id = percent.Encode(id)
		if t.shared() { // all topics of a store share the deduplication window
			id = t.ownID(id)
		}
		l.set(natsMsgID, id)
	} else if t.config.Load().Replicas > 1 {
		// When the leader dies, messages on their way to it get no answer and are
		// sent again.
		l.set(natsMsgID, c.ids.next())
	}
	if cfg := t.config.Load(); !m.Expires.IsZero() && cfg.AllowMsgTTL && m.Due.IsZero() {
		// Whole seconds, rounded up: until then the receiver notices by itself that
		// the message has expired.
		ttl := max(time.Until(m.Expires), time.Second)
		l.set(natsTTL, strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10)+"s")
	}
	return msg, c.fits(msg)
}

// ownID makes an ID specific to the topic, where topics share a deduplication
// window.
func (t *stored) ownID(id string) string { return percent.Encode(t.topic) + " " + id }

// single holds one message on its way to a stream. It is not used any more once the
// message has been sent.
type single struct {
	out     outMsg
	msgs    [1]*outMsg
	builder msgBuilder
}

var singles = sync.Pool{New: func() any {
	s := &single{}
	s.msgs[0] = &s.out
	return s
}}

// directCalls is how many concurrent calls that publish one message send it
// themselves; the messages of further calls are gathered.
const directCalls = 1

// publishOne is Publish for a single message that is sent at once and outside
// batches.
func (t *stored) publishOne(ctx context.Context, m *driver.Message) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	s := singles.Get().(*single)
	s.out = outMsg{}
	if s.out.msg, s.out.err = t.message(m, &s.builder); s.out.err == nil {
		if t.calls.Add(1) <= directCalls || !t.bursts() {
			t.send(ctx, s.msgs[:], nil)
			t.sync(ctx, t.stream, s.msgs[:])
			t.calls.Add(-1)
		} else {
			// Other calls are waiting too; their messages go in one burst.
			err := t.writer.write(ctx, s.msgs[:])
			t.calls.Add(-1)
			if err != nil {
				return driver.PartialError{err} // the writer may still use s
			}
		}
	}
	s.builder.msg.Data = nil
	err := s.out.err
	singles.Put(s)
	if err != nil {
		return driver.PartialError{err}
	}
	return nil
}

// begin returns once the connection can take messages and their acknowledgements.
func (t *stored) begin(ctx context.Context) error {
	if t.conn.state.isClosed() {
		return errConnClosed
	}
	if isPattern(t.topic) {
		return fmt.Errorf("%s is a pattern; publish to one topic", t.topic)
	}
	return t.conn.acks.start(ctx)
}

// Publish implements driver.Topic.
func (t *stored) Publish(ctx context.Context, ms []*driver.Message) error {
	if len(ms) == 1 && ms[0].Due.IsZero() && !t.batches() {
		return t.publishOne(ctx, ms[0])
	}
	_, err := t.publish(ctx, ms, false)
	return err
}

// PublishPlaced implements driver.Placer.
func (t *stored) PublishPlaced(ctx context.Context, ms []*driver.Message) ([]driver.Place, error) {
	all, err := t.publish(ctx, ms, true)
	if all == nil {
		return nil, err
	}
	places := make([]driver.Place, len(all))
	for i := range all {
		if p := &all[i]; p.err == nil {
			places[i] = driver.Place{Seq: p.seq, Repeated: p.repeated}
		}
	}
	return places, err
}

// publish stores messages and returns the outcome of each, or nil if none is known.
// It finds out their places only if placed is true.
func (t *stored) publish(ctx context.Context, ms []*driver.Message, placed bool) ([]outMsg, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	all, now, later := t.prepare(ctx, ms, placed)
	t.sendAll(ctx, later, nil)
	for _, p := range later {
		p.seq = 0 // its place in the stream of waiting messages
	}
	if !t.batches() {
		t.sendAll(ctx, now, nil)
		t.sync(ctx, t.stream, now)
	} else if err := t.writer.write(ctx, now); err != nil {
		return nil, slices.Repeat(driver.PartialError{err}, len(ms)) // none is known to have been accepted
	}
	t.sync(ctx, dueStream, later)
	var failed driver.PartialError
	for i := range all {
		if all[i].err != nil && failed == nil {
			failed = make(driver.PartialError, len(all))
		}
		if failed != nil {
			failed[i] = all[i].err
		}
	}
	if failed == nil {
		return all, nil
	}
	return all, failed
}

// syncs reports whether acknowledged messages still have to be synced.
func (t *stored) syncs() bool {
	class, ok := t.config.Load().Metadata[metaDurability]
	if !ok {
		class = durabilities[t.wanted.Durability].name
	}
	return t.conn.opts.sync != nil && class == durabilities[driver.DurableStrict].name
}

// sync returns once the messages that a stream has taken are on disk, if they have to be.
func (t *stored) sync(ctx context.Context, stream string, ps []*outMsg) {
	taken := func(p *outMsg) bool { return p.err == nil }
	if !t.syncs() || !slices.ContainsFunc(ps, taken) {
		return
	}
	err := t.conn.opts.sync(ctx, stream)
	if err == nil {
		return
	}
	for _, p := range ps {
		if taken(p) {
			p.err = fmt.Errorf("%w (the message is stored, but may not be on disk yet)", err)
		}
	}
}

// sendAll sends messages in order, a limited number at a time.
func (t *stored) sendAll(ctx context.Context, ps []*outMsg, mu *sync.Mutex) {
	for len(ps) > 0 {
		n := min(len(ps), maxFlight)
		t.send(ctx, ps[:n], mu)
		ps = ps[n:]
	}
}

// send sends messages in order and waits until their outcomes are known, or ctx
// ends. It locks mu, if that is not nil, while it reads them.
func (t *stored) send(ctx context.Context, ps []*outMsg, mu *sync.Mutex) {
	var err error
	up := t.conn.state.connected()
	if up { // nearly always; then one attempt is enough
		ps, err = t.try(ctx, ps, mu)
	}
	switch {
	case !up, err != nil && ctx.Err() == nil && t.conn.state.passes(err):
		err = t.conn.state.do(ctx, func(context.Context) (err error) { // the wait for an answer may outlast an attempt
			ps, err = t.try(ctx, ps, mu)
			return err
		})
	case err != nil:
		err = kind(err)
	}
	for _, p := range ps {
		p.err = err
	}
}

// try is one attempt of send. It returns the messages whose outcome is not known,
// with an error if there are any.
func (t *stored) try(ctx context.Context, ps []*outMsg, mu *sync.Mutex) (rest []*outMsg, _ error) {
	return t.fly(ctx, ps, mu, t.isBurst(ps))
}

// fly is try, as a burst or not.
func (t *stored) fly(ctx context.Context, ps []*outMsg, mu *sync.Mutex, burst bool) (rest []*outMsg, _ error) {
	c := t.conn
	f := newFlight(len(ps), burst)
	asking, w := c.state.watchRefusals(ctx)
	if w != nil {
		t.watchSubjects(asking, ps, mu)
	}
	if err := c.launch(f, ps, mu); err != nil {
		return ps, w.end(err)
	}
	timeout := answerTimeout
	if t.config.Load().Replicas > 1 {
		timeout = min(clusterTimeout<<min(ps[0].sent-1, 3), answerTimeout)
	}
	if err := w.end(f.wait(asking, &c.acks, timeout)); err != nil {
		return ps, err
	}
	defer f.free()
	var passing error
	var singly []*outMsg
	for i, p := range ps {
		again, err := landed(f.errs[i])
		switch {
		case burst && isBurstError(err):
			singly = append(singly, p)
			if apiCode(err) == codeBurstDisabled {
				t.refuseBursts()
			}
		case again:
			passing = err
			rest = append(rest, p)
		default:
			p.err, p.seq = err, f.acks[i].Seq
			if p.repeated = f.acks[i].Duplicate && p.sent == 1; p.repeated { // otherwise it may repeat itself
				t.deduplicated.Add(1)
			}
		}
	}
	if errors.Is(passing, nats.ErrNoResponders) {
		passing = t.absent(ctx, passing)
	}
	if len(singly) > 0 {
		more, err := t.fly(ctx, singly, mu, false)
		if rest = append(rest, more...); err != nil {
			passing = err
		}
	}
	return rest, passing
}

// watchSubjects registers the subjects of the messages, whose answers are awaited
// next.
func (t *stored) watchSubjects(ctx context.Context, ps []*outMsg, mu *sync.Mutex) {
	if mu != nil {
		mu.Lock()
		defer mu.Unlock()
	}
	asked := ""
	for _, p := range ps {
		if p.msg.Subject != asked {
			asked = p.msg.Subject
			watchSubject(ctx, asked)
		}
	}
}

// launch hands the messages of a flight to the client.
func (c *Conn) launch(f *flight, ps []*outMsg, mu *sync.Mutex) error {
	if mu != nil {
		mu.Lock()
		defer mu.Unlock()
	}
	if f.burst {
		return c.launchBurst(f, ps)
	}
	for i, p := range ps {
		if p.reply == "" {
			f.tokens[i], p.msg.Reply = c.acks.expect(flightWaiter{f, i})
		} else {
			f.tokens[i], p.msg.Reply = c.acks.expectAgain(flightWaiter{f, i}, p.reply)
		}
		if err := c.nc.PublishMsg(p.msg); err != nil {
			for _, token := range f.tokens[:i+1] {
				c.acks.forget(token)
			}
			return err // the messages before it are sent again
		}
		if p.sent++; p.reply == "" {
			p.reply = p.msg.Reply
		}
	}
	return nil
}

// landed interprets the answer to a message: whether to send it again, and the
// error.
func landed(err error) (again bool, _ error) {
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, errNoAnswer):
		return true, fmt.Errorf("%w: %w", driver.ErrAgain, err)
	case errors.Is(err, nats.ErrNoResponders):
		return true, err
	case isUnavailable(err):
		return true, fmt.Errorf("%w: %w", driver.ErrAgain, err)
	}
	return false, storeError(err)
}

// absent finds out why nobody receives what is published to the topic. It recreates
// a stream in memory that has gone with its server.
func (t *stored) absent(ctx context.Context, cause error) error {
	if t.wanted.Durability == driver.DurableMemory {
		if err := t.open(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: the stream was deleted", driver.ErrAgain)
	}
	if t.partly { // the user may not ask for it
		return fmt.Errorf("%w: %w", driver.ErrAgain, cause)
	}
	if _, err := t.info(ctx); err != nil {
		return fmt.Errorf("stream %s: %w", t.stream, err)
	}
	return fmt.Errorf("%w: %w", driver.ErrAgain, cause)
}

// flight is a set of messages that await their acknowledgements. It is reused once
// nobody can report to it any more.
type flight struct {
	burst  bool          // it has one token
	tokens []uint64      // tokens of the expected answers
	done   chan struct{} // has a token once all outcomes are known
	late   *time.Timer
	end    burstEnding // guarded by the lock of acks

	mu   sync.Mutex // guards the fields below, until done
	left int
	acks []ack
	errs []error
}

var flights = sync.Pool{New: func() any {
	late := time.NewTimer(answerTimeout)
	late.Stop()
	return &flight{done: make(chan struct{}, 1), late: late}
}}

func newFlight(n int, burst bool) *flight {
	f := flights.Get().(*flight)
	f.left, f.burst = n, burst
	f.acks, f.errs = slices.Grow(f.acks[:0], n)[:n], slices.Grow(f.errs[:0], n)[:n]
	if burst {
		n = 1
	}
	f.tokens = slices.Grow(f.tokens[:0], n)[:n]
	return f
}

// waiter returns the waiter for the i-th token.
func (f *flight) waiter(i int) waiter {
	if f.burst {
		return burstWaiter{f}
	}
	return flightWaiter{f, i}
}

// free releases a flight whose outcomes are all known and that nobody uses.
func (f *flight) free() {
	clear(f.acks)
	clear(f.errs)
	flights.Put(f)
}

// flightWaiter is one message of a flight.
type flightWaiter struct {
	*flight
	i int
}

// acked implements waiter.
func (w flightWaiter) acked(_ uint64, a ack, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks[w.i], w.errs[w.i] = a, err
	if w.left--; w.left == 0 {
		w.done <- struct{}{}
	}
}

// wait returns once all outcomes are known, or the missing ones have taken too
// long. It returns an error when ctx ends.
func (f *flight) wait(ctx context.Context, a *acks, timeout time.Duration) error {
	f.late.Reset(timeout)
	defer f.late.Stop()
	select {
	case <-f.done:
		return nil
	case <-f.late.C:
	case <-ctx.Done():
		for _, token := range f.tokens {
			a.forget(token)
		}
		return fmt.Errorf("%w (some of the messages may be stored)", context.Cause(ctx))
	}
	for i, token := range f.tokens {
		if a.forget(token) {
			f.waiter(i).acked(token, ack{}, errNoAnswer)
		}
	}
	<-f.done // those not forgotten are just being told
	return nil
}
