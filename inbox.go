package hark

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/exec"
)

// inbox is the end of an engine's subscription in this process. It puts what it
// receives into a log of its own, from which an ordinary member handles it, so
// handlers, retries, workers, batches and filters are the same as without an
// engine. It acknowledges what is done.
type inbox[T any] struct {
	remote *remoteTopic
	sub    driver.Subscription
	local  *Topic[T] // the log
	member *member[T]
	shared bool // a group on a stored topic, where done messages must be acknowledged
	stored bool
	window int
	// bounded says how large the messages in the log may be together; nil for any size.
	bounded driver.Bounded
	unswept int // size of the messages put into the log since it was swept; the pump's

	received atomic.Uint64

	rejected int // number of messages that the log did not accept; the pump's, until it has returned

	abandoned atomic.Bool
	lag       atomic.Pointer[driver.Lag] // the final lag, once abandoned

	feeder     exec.Feeder // runs the pump
	feeds      bool        // the pump may run the worker
	cancelPump context.CancelFunc
	pumped     chan struct{} // closed when the pump has returned
	ended      error         // what ended the subscription, nil if that was not the engine; the pump's, until it has returned
	acked      chan struct{} // closed when the acknowledger has returned; nil if there is none
	news       chan struct{} // something is done, or must be flushed
	over       chan struct{} // closed by close: nothing more will be done
	closing    sync.Once
	closed     chan struct{} // closed when close has finished
	home       inboxOwner
	decode     func(m *driver.Received, v *T) error
	encoded    bool // its predicates match messages before these are decoded

	mu        sync.Mutex         // guards the fields below
	held      arrival            // head of a ring of the messages in flight
	holds     int                // their number
	size      int                // of the messages in the log, if it is bounded
	done      []*driver.Received // done but not yet acknowledged
	serving   bool               // the pump runs the worker, and acknowledges afterwards
	hasRoom   chan struct{}      // closed when there is room again; nil if no one waits
	turn      context.Context    // of the pump; ends when someone asks what the pump holds
	interrupt context.CancelFunc // ends turn
	asked     []chan struct{}    // closed when the pump holds nothing
}

// anyInbox is an inbox for any type.
type anyInbox interface {
	seal()
	catchUp(ctx context.Context)
	work() (received uint64, idle bool)
	stop(ctx context.Context, cause error) Left
	cancel(cause error)
	stats() SubscriptionStats
	places() []End
	coreOf() *core
}

// arrival is a message on its way from an engine to a handler.
type arrival struct {
	*driver.Received
	inbox      interface{ settled(*arrival) }
	sifted     bool     // it was matched while still encoded
	size       int      // counted in the size of its inbox
	prev, next *arrival // in the ring of its inbox; nil if not in flight
}

// settled records that the message is done: handled, filtered, dropped or
// dead-lettered.
func (a *arrival) settled() { a.inbox.settled(a) }

const (
	// ephemeralWindow is how many messages of an ephemeral topic wait between
	// the engine and a subscription before the subscription drops the newest.
	ephemeralWindow = 65536
	// A subscription to a stored topic has this many messages in flight. In a
	// group it has, within limits, this many for each worker, so that other
	// members get theirs.
	soleWindow      = 256
	windowPerWorker = 64
	maxWindow       = 1024
)

// subscribeRemote is subscribe over an engine.
func (t *Topic[T]) subscribeRemote(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], as role, at uintptr) (*member[T], error) {
	r := t.remote
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	topic, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, other := range r.snapshot() {
		if c := other.coreOf(); cfg.group != "" && c.grouped && c.subscription() == cfg.group {
			if err := c.agrees(cfg); err != nil {
				return nil, err
			}
		}
	}
	stored := r.config.Stored != nil
	if !stored && cfg.holdsUp {
		if err := r.engine.needs(driver.Backpressure); err != nil {
			return nil, err
		}
	}
	dc := driver.SubscribeConfig{Group: cfg.group, Keyed: r.core.keyOf != nil && cfg.group != "", Window: ephemeralWindow}
	if stored {
		cfg.readStored(&dc)
	}
	if dc.Keyed {
		if !stored {
			return nil, r.engine.refuse("order by key across a group on an ephemeral topic (use the option Stored)")
		}
		if err := r.engine.needs(driver.KeyOrder); err != nil {
			return nil, err
		}
	}
	in := newInbox[T](t.core.bus, r, dc.Window, stored, stored && cfg.group != "")
	in.local = makeInboxLog(t, in.shared)
	if in.sub, err = topic.Subscribe(ctx, dc); err != nil {
		return nil, engineError(err)
	}
	return in.begin(cfg, how, h, batch, as, at, r)
}

// readStored sets how a subscription reads a stored topic.
func (c *subscribeConfig) readStored(dc *driver.SubscribeConfig) {
	least := windowPerWorker * c.workers
	if c.group == "" {
		least = max(least, soleWindow)
	}
	dc.Window = min(max(least, c.batch), maxWindow)
	dc.From, dc.Seq, dc.Time = c.start.forEngine()
}

func newInbox[T any](b *Bus, r *remoteTopic, window int, stored, shared bool) *inbox[T] {
	in := &inbox[T]{
		remote: r, stored: stored, shared: shared, window: window,
		pumped: make(chan struct{}), news: make(chan struct{}, 1), over: make(chan struct{}), closed: make(chan struct{}),
		decode: func(m *driver.Received, v *T) error { return decodeWith(r.codec, m.Data, v) },
	}
	if _, raw := r.codec.(rawCodec); raw {
		in.decode = func(m *driver.Received, v *T) error { return rawCodec{}.Decode(m.Data, v) }
	}
	in.held.prev, in.held.next = &in.held, &in.held
	return in
}

// makeInboxLog returns the log for an inbox of t.
func makeInboxLog[T any](t *Topic[T], shared bool) *Topic[T] {
	local := &Topic[T]{core: topicCore{
		scope: t.core.scope, typ: t.core.typ, keyOf: t.core.keyOf,
		pointers: true, bury: t.core.bury, inbox: true, lasting: shared,
	}}
	local.log.Init(local.logConfig(true)) // only the pump appends
	return local
}

// begin starts receiving for a handler.
func (in *inbox[T]) begin(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], as role, at uintptr, home inboxOwner) (*member[T], error) {
	if b, ok := in.sub.(driver.Bounded); ok && b.MaxHeld() > 0 && !in.stored && batch == nil && cfg.queue.policy == Block { // a batch has to be filled, and what other policies drop is not settled
		in.bounded = b
	}
	in.encoded = matchEncoded(cfg.where) && in.remote.codec.ContentType() == jsonType
	ctx, cancel := context.WithCancel(context.Background())
	in.cancelPump = func() {
		cancel()
		in.feeder.Relieve() // the handler in which it was called, if the pump runs that
	}
	m, err := in.local.subscribeTo(cfg, how, h, batch, as, at)
	if err == nil {
		in.member = m
		m.Subscription.impl = in
		in.home = home
		err = home.add(in)
	}
	if err != nil {
		close(in.pumped)
		in.close()
		return nil, err
	}
	if in.shared {
		in.acked = make(chan struct{})
		go in.acknowledge()
	}
	in.feeds = in.shared && how == pushed && cfg.workers == 1
	in.feeder.Start(&m.worker.Task, func() { in.pump(ctx) })
	return m, nil
}

// inboxOwner is the component on which an inbox is registered.
type inboxOwner interface {
	add(anyInbox) error
	remove(anyInbox)
}

func (s start) forEngine() (driver.From, uint64, time.Time) {
	switch s.from {
	case fromStart:
		return driver.FromStart, 0, time.Time{}
	case fromSeq:
		return driver.FromSeq, s.seq, time.Time{}
	case fromTime:
		return driver.FromTime, 0, s.time
	case fromLast:
		return driver.FromLast, s.seq, time.Time{}
	}
	return driver.FromNow, 0, time.Time{}
}

// undecodable gives up a message that cannot be decoded: its bytes become a
// dead letter unchanged. It returns false if ctx ended before that was
// possible; the message is then still in flight.
func (in *inbox[T]) undecodable(ctx context.Context, a *arrival, earlier *Failure, err error) bool {
	c, cfg, hooks := in.member.consumer, in.member.cfg, &in.local.core.bus.hooks
	e := FailEvent{Source: c.source(), Message: encodedEnvelope{a.Received}, Attempt: 1, Err: err}
	in.release()
	c.need().tally.failed.Add(1)
	hooks.onFail(e)
	f := newFailure(a.Topic, a.Seq, c.subscription(), e, time.Now(), earlier)
	to := cfg.deadTopicFor(f)
	if to != "" {
		err = in.remote.buryRaw(ctx, to, a, f)
		for err != nil && in.shared && !neverBuried(err) {
			select {
			case <-time.After(cfg.backoff.Max):
			case <-ctx.Done():
				return false
			}
			err = in.remote.buryRaw(ctx, to, a, f)
		}
	}
	c.mu.Lock()
	c.passed++
	c.mu.Unlock()
	if to == "" || err != nil {
		c.giveUp(DropGivenUp)
	} else {
		c.need().tally.dead.Add(1)
		hooks.onDeadLetter(e)
	}
	a.settled()
	return true
}

// buryRaw publishes the bytes of a message as a dead letter.
func (r *remoteTopic) buryRaw(ctx context.Context, to string, a *arrival, f *Failure) error {
	if err := checkName(to); err != nil {
		return err
	}
	if local, ok := r.core.bus.topicNamed(to); ok && !local.stored() {
		return errNobodyListens // or perhaps someone does, but that cannot be known
	}
	durability, err := r.engine.durability(0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	topic, err := r.engine.conn.OpenTopic(ctx, driver.TopicConfig{
		Name: to, Stored: &driver.StoredConfig{MaxMessages: deadKept, Durability: durability, Existing: true, DeadLetters: true},
	})
	if err != nil {
		return engineError(err)
	}
	m := a.Message
	m.Expires, m.Time = time.Time{}, f.Last
	r.engine.dirty.Store(true) // the dead letter may come back to a pattern
	return f.fitted(func(f *Failure) error {
		m.Headers = withFailure(a.Headers, f)
		return engineError(topic.Publish(ctx, []*driver.Message{&m}))
	})
}

// giveBack returns messages that never entered the log.
func (in *inbox[T]) giveBack(ms []*driver.Received) {
	in.release()
	in.received.Add(-uint64(len(ms)))
	if !in.shared {
		in.rejected += len(ms)
		in.member.consumer.misses(DropClosed, uint64(len(ms)))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	in.handBack(ctx, ms)
}

// handBack returns messages to their group when the member leaves.
func (in *inbox[T]) handBack(ctx context.Context, ms []*driver.Received) {
	_ = in.sub.Drain(ctx)      // otherwise they may come here again
	_ = in.sub.Return(ctx, ms) // otherwise they come again when their lease ends
}

// close ends the engine's subscription. It acknowledges what is done and
// returns what is in flight. The member has been halted before.
func (in *inbox[T]) close() {
	in.closing.Do(func() {
		defer close(in.closed)
		in.cancelPump()
		<-in.pumped
		close(in.over)
		if in.acked != nil {
			<-in.acked
		}
		in.mu.Lock()
		var rest []*driver.Received
		for a := in.held.next; a != &in.held; a = in.held.next {
			rest = append(rest, a.Received)
			in.letGoLocked(a)
		}
		in.mu.Unlock()
		slices.SortFunc(rest, func(a, b *driver.Received) int { return cmp.Compare(a.Seq, b.Seq) })
		ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
		defer cancel()
		if lag, err := in.sub.Lag(ctx); err == nil {
			in.lag.CompareAndSwap(nil, &driver.Lag{Lost: lag.Lost, Members: 1})
		}
		if in.shared && len(rest) > 0 {
			in.handBack(ctx, rest)
		}
		_ = in.sub.Close(ctx) // nothing more can be done about it
		if in.home != nil {
			in.home.remove(in)
		}
	})
	<-in.closed
}
