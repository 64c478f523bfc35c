package hark

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
)

// inbox is the end of an engine's subscription in this process: what it
// receives goes into a log of its own, from which an ordinary member handles
// it, so that handlers, retries, workers, batches and filters are the same as
// without an engine. What is done is acknowledged.
type inbox[T any] struct {
	remote *remoteTopic
	sub    driver.Subscription
	local  *Topic[T] // the log
	member *member[T]
	shared bool // a group on a stored topic: what is done must be acknowledged
	stored bool
	window int

	received atomic.Uint64
	lastSeq  atomic.Uint64

	abandoned atomic.Bool
	lag       atomic.Pointer[driver.Lag] // the last one, once abandoned

	cancelPump context.CancelFunc
	pumped     chan struct{} // closed when the pump has returned
	acked      chan struct{} // closed when the acknowledger has; nil without one
	news       chan struct{} // something is done, or is to be flushed
	over       chan struct{} // closed by close: no more is done
	closing    sync.Once
	closed     chan struct{} // closed when close has finished
	home       inboxHome
	decode     func(m *driver.Received, v *T) error
	encoded    bool // its predicates match messages before they are decoded

	mu        sync.Mutex // guards what follows
	held      map[*arrival]struct{}
	done      []*driver.Received // not acknowledged yet
	roomy     chan struct{}      // closed when there is room again; nil if nobody waits
	turn      context.Context    // of the pump; ends when somebody asks what it holds
	interrupt context.CancelFunc // ends turn
	asked     []chan struct{}    // closed when the pump holds nothing
}

// inboxFace is an inbox of any type.
type inboxFace interface {
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
	inbox  interface{ settled(*arrival) }
	sifted bool // it has been matched as it came, encoded
}

// settled says that the message is done with: handled, filtered, dropped or
// dead-lettered.
func (a *arrival) settled() { a.inbox.settled(a) }

const (
	// ephemeralWindow is how many messages of an ephemeral topic wait between
	// the engine and a subscription before it drops the newest.
	ephemeralWindow = 65536
	// A subscription to a stored topic has so many messages in hand for each
	// worker, within limits, so that others of its group get theirs.
	windowPerWorker = 64
	maxWindow       = 1024
)

// subscribeRemote is subscribe over an engine.
func (t *Topic[T]) subscribeRemote(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], role string, at uintptr) (*member[T], error) {
	r := t.remote
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	topic, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, other := range r.snapshot() {
		if c := other.coreOf(); cfg.group != "" && c.grouped && c.name == cfg.group {
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
		dc.Window = min(max(windowPerWorker*cfg.workers, cfg.batch), maxWindow)
		dc.From, dc.Seq, dc.Time = cfg.start.forEngine()
	}
	if dc.Keyed {
		if !stored {
			return nil, r.engine.refuse("order by key across a group on an ephemeral topic")
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
	return in.begin(cfg, how, h, batch, role, at, r)
}

func newInbox[T any](b *Bus, r *remoteTopic, window int, stored, shared bool) *inbox[T] {
	return &inbox[T]{
		remote: r, stored: stored, shared: shared, window: window,
		pumped: make(chan struct{}), news: make(chan struct{}, 1), over: make(chan struct{}), closed: make(chan struct{}),
		held:   map[*arrival]struct{}{},
		decode: func(m *driver.Received, v *T) error { return decodeWith(r.codec, m.Data, v) },
	}
}

// makeInboxLog returns the log of an inbox of t.
func makeInboxLog[T any](t *Topic[T], shared bool) *Topic[T] {
	local := &Topic[T]{core: topicCore{
		bus: t.core.bus, kind: t.core.kind, name: t.core.name, typ: t.core.typ, keyOf: t.core.keyOf,
		pointers: true, bury: t.core.bury, inbox: true, lasting: shared,
	}}
	local.log.Init(local.logConfig(false))
	return local
}

// begin starts to receive for a handler.
func (in *inbox[T]) begin(cfg *subscribeConfig, how mode, h Handler[T], batch BatchHandler[T], role string, at uintptr, home inboxHome) (*member[T], error) {
	in.encoded = matchEncoded(cfg.where) && in.remote.codec.ContentType() == jsonType
	m, err := in.local.subscribeTo(cfg, how, h, batch, role, at)
	if err == nil {
		in.member = m
		m.inbox = in
		m.Subscription.impl = in
		in.home = home
		err = home.add(in)
	}
	ctx, cancel := context.WithCancel(context.Background())
	in.cancelPump = cancel
	if err != nil {
		close(in.pumped)
		in.close()
		return nil, err
	}
	if in.shared {
		in.acked = make(chan struct{})
		go in.acknowledge()
	}
	go in.pump(ctx)
	return m, nil
}

// inboxHome is where an inbox is registered.
type inboxHome interface {
	add(inboxFace) error
	remove(inboxFace)
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

// pump receives messages until the subscription ends.
func (in *inbox[T]) pump(ctx context.Context) {
	defer close(in.pumped)
	for ctx.Err() == nil {
		turn := in.nextTurn(ctx)
		room, err := in.room(turn)
		if err != nil {
			continue
		}
		ms, err := in.sub.Receive(turn, room)
		switch {
		case err != nil && turn.Err() != nil:
			continue
		case err != nil:
			if !errors.Is(err, driver.ErrEnded) {
				in.remote.engine.lost(in.local.core.bus, fmt.Errorf("subscription %s: %w", in.name(), err))
			}
			return
		}
		in.received.Add(uint64(len(ms)))
		landings := make([]landing, len(ms))
		for i, m := range ms {
			if !in.enter(ctx, m, &landings[i]) {
				in.giveBack(ms[i:])
				return
			}
		}
	}
}

// nextTurn returns the context for the pump to receive in, and answers those
// who want to know that it holds nothing.
func (in *inbox[T]) nextTurn(ctx context.Context) context.Context {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, ch := range in.asked {
		close(ch)
	}
	in.asked = nil
	if in.turn == nil || in.turn.Err() != nil {
		in.turn, in.interrupt = context.WithCancel(ctx)
	}
	return in.turn
}

// emptyHanded waits until everything that the pump had received is in the log,
// and reports false if ctx ends first.
func (in *inbox[T]) emptyHanded(ctx context.Context) bool {
	ch := make(chan struct{})
	in.mu.Lock()
	in.asked = append(in.asked, ch)
	if in.interrupt != nil {
		in.interrupt()
	}
	in.mu.Unlock()
	select {
	case <-ch:
	case <-in.pumped:
	case <-ctx.Done():
		return false
	}
	return true
}

// lost tells the hooks that a subscription has ended for good.
func (e *engine) lost(b *Bus, err error) {
	b.hooks.onConn(ConnEvent{Engine: e.info.Engine, Address: e.info.Address, Err: err})
}

// room waits until more messages may be in hand, and returns how many.
func (in *inbox[T]) room(ctx context.Context) (int, error) {
	for {
		in.mu.Lock()
		n := in.window - len(in.held)
		var wait chan struct{}
		if n <= 0 {
			if in.roomy == nil {
				in.roomy = make(chan struct{})
			}
			wait = in.roomy
		}
		in.mu.Unlock()
		if wait == nil {
			return min(n, 256), nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// landing is what an arrival needs here.
type landing struct {
	arrival arrival
	meta    meta
}

// enter puts a message into the log. It reports whether the pump goes on.
func (in *inbox[T]) enter(ctx context.Context, m *driver.Received, at *landing) bool {
	a := &at.arrival
	*a = arrival{Received: m, inbox: in}
	at.meta.fromEngine(m, a)
	e := entry[T]{meta: &at.meta}
	if in.stored {
		in.mu.Lock()
		in.held[a] = struct{}{}
		in.mu.Unlock()
	}
	if m.Seq > 0 {
		in.lastSeq.Store(m.Seq)
	}
	if in.encoded && !in.wants(a) {
		return true
	}
	if err := in.decode(m, &e.value); err != nil {
		in.undecodable(a, err)
		return true
	}
	if in.stored {
		return in.local.log.Force(e)
	}
	return in.local.appendOrWait(ctx, &in.local.log, e) == nil
}

// undecodable gives a message up that has no value: its bytes become a dead
// letter as they are.
func (in *inbox[T]) undecodable(a *arrival, err error) {
	c := in.member.consumer
	c.mu.Lock()
	c.passed++
	c.mu.Unlock()
	c.tally.failed.Add(1)
	now := time.Now()
	f := &Failure{
		Topic: a.Topic, Subscription: c.name, Reason: err.Error(), Attempts: 1, First: now, Last: now, Seq: a.Seq,
	}
	cfg := in.member.cfg
	to := cfg.deadLetter
	if to == "" && !cfg.noDeadLetter {
		to = a.Topic + deadSuffix
	}
	in.local.core.bus.hooks.onFail(FailEvent{Source: c.source(), Attempt: 1, Err: err})
	if to == "" || in.remote.buryRaw(to, a, f) != nil {
		c.giveUp(DropGivenUp)
	} else {
		c.tally.dead.Add(1)
	}
	a.settled()
}

// buryRaw publishes the bytes of a message as a dead letter.
func (r *remoteTopic) buryRaw(to string, a *arrival, f *Failure) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	topic, err := r.engine.conn.OpenTopic(ctx, driver.TopicConfig{Name: to, Stored: &driver.StoredConfig{MaxMessages: deadKept, Existing: true}})
	if err != nil {
		return err
	}
	m := a.Message
	m.Headers, m.Expires = withFailure(m.Headers, f), time.Time{}
	m.Time = f.Last
	return topic.Publish(ctx, []*driver.Message{&m})
}

// settled implements arrival.inbox.
func (in *inbox[T]) settled(a *arrival) {
	if !in.stored {
		return
	}
	in.mu.Lock()
	_, mine := in.held[a]
	delete(in.held, a)
	if mine && in.shared {
		in.done = append(in.done, a.Received)
	}
	roomy := in.roomy
	if roomy != nil && len(in.held) <= in.window/2 {
		in.roomy = nil
	} else {
		roomy = nil
	}
	in.mu.Unlock()
	if roomy != nil {
		close(roomy)
	}
	if in.shared {
		select {
		case in.news <- struct{}{}:
		default:
		}
	}
}

// acknowledge tells the engine what is done, and that the rest is still being
// worked on.
func (in *inbox[T]) acknowledge() {
	defer close(in.acked)
	every := in.remote.engine.info.Lease / 3
	if every <= 0 {
		every = time.Hour
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-in.news:
			in.ack()
		case <-tick.C:
			in.extend()
		case <-in.over:
			in.ack()
			return
		}
	}
}

func (in *inbox[T]) ack() {
	in.mu.Lock()
	done := in.done
	in.done = nil
	in.mu.Unlock()
	if len(done) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := in.sub.Ack(ctx, done); err != nil { // they will come again
		in.remote.engine.lost(in.local.core.bus, fmt.Errorf("acknowledge to %s: %w", in.name(), err))
	}
}

func (in *inbox[T]) extend() {
	in.mu.Lock()
	ms := make([]*driver.Received, 0, len(in.held))
	for a := range in.held {
		ms = append(ms, a.Received)
	}
	in.mu.Unlock()
	if len(ms) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = in.sub.Extend(ctx, ms) // if it fails they come again, which at least once allows
}

// giveBack returns messages that never entered the log.
func (in *inbox[T]) giveBack(ms []*driver.Received) {
	in.received.Add(-uint64(len(ms)))
	if !in.shared {
		in.member.consumer.misses(DropClosed, uint64(len(ms)))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = in.sub.Return(ctx, ms) // or they come again when their lease ends
}

// close ends the engine's subscription: what is done is acknowledged, what is
// in hand returned. The member has been halted before.
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
		for a := range in.held {
			rest = append(rest, a.Received)
		}
		clear(in.held)
		in.mu.Unlock()
		slices.SortFunc(rest, func(a, b *driver.Received) int { return cmp.Compare(a.Seq, b.Seq) })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if lag, err := in.sub.Lag(ctx); err == nil {
			in.lag.CompareAndSwap(nil, &driver.Lag{Lost: lag.Lost, Members: 1})
		}
		if in.shared && len(rest) > 0 {
			_ = in.sub.Return(ctx, rest) // or they come again when their lease ends
		}
		_ = in.sub.Close(ctx) // nothing more can be done about it
		if in.home != nil {
			in.home.remove(in)
		}
	})
	<-in.closed
}
