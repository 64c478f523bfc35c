package natsdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The subjects of a channel; its name follows each of them.
const (
	chanPrefix       = "$HARK.chan."       // its values
	chanEndPrefix    = "$HARK.chanend."    // the marker of a closed channel
	chanClosedPrefix = "$HARK.chanclosed." // where the server republishes the marker once it is stored
	chanWaitPrefix   = "$HARK.chanwait."   // where receivers announce that they wait, or have made room of which the server does not tell
)

const (
	chanConsumer = "receivers"
	metaChan     = "hark-chan"
	metaCapacity = "hark-capacity"

	// chanLease is how long a value may be in flight without a sign of life, at
	// most; Lease can shorten it. Then the value goes to another receiver.
	chanLease = 5 * time.Second
	// chanRepeat is how long the server recognises a message sent again, so that a
	// repeat does no harm.
	chanRepeat = 20 * time.Second
	// chanAnswer is how long the server has to answer one attempt.
	chanAnswer = time.Second
	// chanSettle is how long a call continues after its context ends, to learn its
	// outcome.
	chanSettle = time.Second
	// chanPoll is how long waiters rely on notifications before they look for
	// themselves.
	chanPoll = 100 * time.Millisecond
)

// channel is a channel: a stream each of whose values goes to one receiver.
type channel struct {
	conn   *Conn
	config driver.ChanConfig
	stream string
	values jetstream.Stream // the stream; set when the channel is opened
	spread bool             // kept by several servers; set when the channel is opened

	subs []*nats.Subscription
	over chan struct{} // what Closed returns
	quit chan struct{} // closed with the connection
	news chan struct{} // has a token when the keeper should look at the channel

	mu     sync.Mutex // guards the fields below
	lease  time.Duration
	clock  time.Duration // how far the clock here is at least ahead of the server's
	closed bool          // the channel is closed
	told   bool          // somebody has said so
	gone   bool          // the connection is closed
	epoch  chan struct{}

	intake     *intake
	withdrawal *withdrawal // what to await before asking for values; nil for nothing
	askAfter   time.Time   // when to ask for values again after nobody could deliver any
	receivers  []*chanReceiver
	asking     bool // one of them is about to ask for all
	tries      []*chanReceiver
	spare      []*chanDelivery // in flight, with no receiver yet
	left       time.Time       // when the last waiting receiver here left
	deliveries map[*chanDelivery]struct{}
	dones      *doneGroup // what receivers are about to report as done; nil for nothing

	samples []*nats.Subscription // report room
	blocked []*chanSender
	woken   time.Time // when one of them was last let try
	frees   uint64    // how often samples have told of room

	offers  map[string]*chanOffer
	decided []*chanOffer
	claims  string // claims of offers arrive at claims.ID
	offered int    // offers stored at the server
}

// OpenChan implements driver.Chans.
func (c *Conn) OpenChan(ctx context.Context, config driver.ChanConfig) (driver.Chan, error) {
	if c.state.isClosed() {
		return nil, errConnClosed
	}
	if c.js == nil || c.level < levelTTL {
		return nil, c.refuse("channels (need JetStream of NATS 2.11)")
	}
	if config.Capacity == 0 {
		config.Durability = driver.DurableMemory
	}
	d, ok := durabilities[config.Durability]
	if !ok {
		return nil, fmt.Errorf("durability %d is unknown", config.Durability)
	}
	if !c.info.Has(d.needs) {
		return nil, c.refuse(string(d.needs))
	}
	ch := &channel{
		conn: c, config: config, stream: streamName("chan", config.Name), lease: min(c.opts.lease, chanLease),
		over: make(chan struct{}), quit: make(chan struct{}), news: make(chan struct{}, 1), epoch: make(chan struct{}),
		deliveries: map[*chanDelivery]struct{}{}, offers: map[string]*chanOffer{},
	}
	if err := c.acks.start(ctx); err != nil {
		return nil, err
	}
	if err := ch.ensure(ctx); err != nil {
		return nil, err
	}
	if err := ch.listen(ctx); err != nil {
		ch.unlisten()
		return nil, err
	}
	if err := ch.look(ctx); err != nil {
		ch.unlisten()
		return nil, err
	}
	if err := c.add(chanEnd{ch}); err != nil {
		ch.unlisten()
		return nil, err
	}
	if !c.begin() {
		ch.unlisten()
		return nil, errConnClosed
	}
	c.state.mu.Lock()
	c.state.lossListeners[ch] = struct{}{}
	c.state.mu.Unlock()
	go ch.keep()
	return ch, nil
}

func (ch *channel) streamConfig() jetstream.StreamConfig {
	name := ch.config.Name
	cfg := jetstream.StreamConfig{
		Name: ch.stream, Subjects: []string{chanPrefix + name, chanEndPrefix + name}, Description: "hark channel " + name,
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1,
		Replicas: ch.conn.opts.replicas, Duplicates: chanRepeat, Storage: jetstream.FileStorage,
		RePublish: &jetstream.RePublish{Source: chanEndPrefix + name, Destination: chanClosedPrefix + name},
		Metadata: map[string]string{
			metaChan: name, metaCapacity: strconv.Itoa(ch.config.Capacity), metaDurability: durabilities[ch.config.Durability].name,
		},
	}
	if ch.config.Durability == driver.DurableMemory {
		cfg.Storage = jetstream.MemoryStorage
	}
	if ch.config.Capacity > 0 {
		cfg.MaxMsgsPerSubject, cfg.DiscardNewPerSubject = int64(ch.config.Capacity), true
	}
	return cfg
}

// ensure finds the stream and its consumer, or makes them.
func (ch *channel) ensure(ctx context.Context) error {
	c := ch.conn
	ch.mu.Lock()
	lease := ch.lease
	ch.mu.Unlock()
	return c.state.do(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, ch.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = c.api(ctx).CreateStream(ctx, ch.streamConfig())
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster, with another configuration
				stream, err = c.api(ctx).Stream(ctx, ch.stream)
			}
		}
		if err != nil {
			return chanError(ctx, err)
		}
		have, want := stream.CachedInfo().Config.Metadata, ch.streamConfig().Metadata
		for _, key := range []string{metaChan, metaCapacity, metaDurability} {
			if have[key] != want[key] {
				return fmt.Errorf("%w: %s is %q, not %q (stream %s)", driver.ErrConflict, key, have[key], want[key], ch.stream)
			}
		}
		begin := time.Now()
		consumer, err := stream.Consumer(ctx, chanConsumer)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			consumer, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
				Durable: chanConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: lease, MaxDeliver: -1,
				MaxAckPending: -1, MaxWaiting: 1 << 16, FilterSubject: chanPrefix + ch.config.Name, SampleFrequency: "100%",
			})
			if errors.Is(err, jetstream.ErrConsumerExists) {
				return fmt.Errorf("%w: %w", driver.ErrAgain, err)
			}
		}
		if err != nil {
			return chanError(ctx, err)
		}
		ch.mu.Lock()
		ch.lease = consumer.CachedInfo().Config.AckWait // set by whoever created the channel
		ch.clock = begin.Sub(consumer.CachedInfo().TimeStamp)
		ch.mu.Unlock()
		if ch.values == nil { // nobody else can use the channel yet
			ch.values, ch.spread = stream, stream.CachedInfo().Config.Replicas > 1
		}
		return nil
	})
}

// chanError translates errors of JetStream's API into those of the contract.
func chanError(ctx context.Context, err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) || isUnavailable(err) ||
		errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", driver.ErrAgain, err)
	}
	return kind(storeError(err))
}

// listen subscribes to what the server and other connections say about the channel.
func (ch *channel) listen(ctx context.Context) error {
	nc := ch.conn.nc
	sub, err := nc.Subscribe(chanClosedPrefix+ch.config.Name, func(*nats.Msg) { ch.hearClosed() })
	if err != nil {
		return kind(err)
	}
	ch.subs = append(ch.subs, sub)
	if ch.config.Capacity == 0 {
		ch.claims = nc.NewInbox()
		if sub, err = nc.Subscribe(ch.claims+".*", ch.claimed); err != nil {
			return kind(err)
		}
		ch.subs = append(ch.subs, sub)
	}
	return ch.conn.flush(ctx)
}

func (ch *channel) unlisten() {
	for _, sub := range ch.subs {
		_ = sub.Unsubscribe() // the client may be closed
	}
}

// hearClosed has the keeper look whether the channel is closed, as somebody says.
func (ch *channel) hearClosed() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.told = true
	ch.tell()
}

// look finds out whether the channel is closed.
func (ch *channel) look(ctx context.Context) error {
	return ch.conn.state.do(ctx, func(ctx context.Context) error {
		n, err := ch.count(ctx, chanEndPrefix)
		if err == nil && n > 0 {
			ch.setClosed()
		}
		return err
	})
}

// count returns how many messages are stored on a subject of the channel.
func (ch *channel) count(ctx context.Context, prefix string) (int, error) {
	subject := prefix + ch.config.Name
	info, err := ch.values.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, chanError(ctx, err)
	}
	return int(info.State.Subjects[subject]), nil
}

var errChanClosed = fmt.Errorf("channel %w", driver.ErrClosed)

// setClosed notes that the channel is closed.
func (ch *channel) setClosed() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.closed {
		return
	}
	ch.closed = true
	if !ch.gone {
		close(ch.over)
	}
	if ch.config.Capacity == 0 { // otherwise receivers check what is left
		for _, r := range ch.receivers {
			r.finish(nil, errChanClosed)
		}
		ch.receivers = nil
		ch.leaveLocked()
	}
	ch.wakeLocked(len(ch.blocked))
}

// refusesLocked returns why nothing can be sent, or nil.
func (ch *channel) refusesLocked() error {
	switch {
	case ch.gone:
		return errConnClosed
	case ch.closed:
		return errChanClosed
	}
	return nil
}

// lost implements lossListener: the server will not send the values it was asked for.
func (ch *channel) lost() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	close(ch.epoch)
	ch.epoch = make(chan struct{})
	ch.forgetLocked()
	ch.tell()
}

// Len implements driver.Chan.
func (ch *channel) Len(ctx context.Context) (n int, err error) {
	if ch.config.Capacity == 0 {
		return 0, nil
	}
	err = ch.conn.state.do(ctx, func(ctx context.Context) error {
		n, err = ch.count(ctx, chanPrefix)
		return err
	})
	return n, err
}

// Waiting implements driver.Chan.
func (ch *channel) Waiting() (senders, receivers int) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, s := range ch.blocked {
		if !s.silent {
			senders++
		}
	}
	return senders + ch.offered, len(ch.receivers)
}

// Close implements driver.Chan. It stores the marker, after which the server
// refuses values, and which can be stored only once.
func (ch *channel) Close(ctx context.Context) error {
	m := ch.message(chanEndPrefix, nil)
	var pause chanPause
	for {
		_, err, _ := ch.exchange(ctx, m)
		switch {
		case err == nil, isClosedError(err):
			ch.setClosed()
			if ch.config.Capacity != 0 {
				return nil
			}
			return ch.conn.state.do(ctx, func(ctx context.Context) error { // the values go back to their senders
				if err := ch.values.Purge(ctx, jetstream.WithPurgeSubject(chanPrefix+ch.config.Name)); err != nil {
					return chanError(ctx, err)
				}
				return nil
			})
		case !ch.passes(err):
			return kind(storeError(err))
		}
		if err := ch.recover(ctx, err, &pause); err != nil {
			return err
		}
	}
}

// Closed implements driver.Chan.
func (ch *channel) Closed() <-chan struct{} { return ch.over }

// chanEnd ends a channel when its connection is closed.
type chanEnd struct{ *channel }

// Close implements end: values in flight here go to other receivers.
func (e chanEnd) Close(context.Context) error {
	ch := e.channel
	ch.mu.Lock()
	if ch.gone {
		ch.mu.Unlock()
		return nil
	}
	ch.gone = true
	if !ch.closed {
		close(ch.over)
	}
	close(ch.quit)
	close(ch.epoch)
	ch.epoch = make(chan struct{})
	for _, r := range ch.receivers {
		r.finish(nil, errConnClosed)
	}
	for _, r := range ch.tries {
		r.finish(nil, errConnClosed)
	}
	ch.receivers, ch.tries = nil, nil
	ch.forgetLocked()
	for _, d := range slices.SortedFunc(maps.Keys(ch.deliveries), func(a, b *chanDelivery) int { return cmp.Compare(a.seq, b.seq) }) {
		d.releaseLocked() // if it fails, the lease ends
	}
	clear(ch.deliveries)
	ch.wakeLocked(len(ch.blocked))
	ch.unsampleLocked()
	ch.mu.Unlock()
	ch.unlisten()
	ch.conn.state.mu.Lock()
	delete(ch.conn.state.lossListeners, ch)
	ch.conn.state.mu.Unlock()
	ch.conn.remove(e)
	return nil
}
