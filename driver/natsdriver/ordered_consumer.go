package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

const (
	// maxReadAhead is how many messages are on their way to a subscription without a
	// group at most. The server is faster the more it is asked for at a time.
	maxReadAhead = 2048
	// firstReadAhead is how many messages are asked for before their size is known.
	// When they are large fewer are asked for, such that they total pullBytes: more are
	// then asked for before the server stops.
	firstReadAhead = 512
	minReadAhead   = 64
	// A server forgets the consumer of a subscription that has not asked for this
	// long. The subscription then makes another.
	consumerIdle = 2 * time.Minute
)

// orderedConsumer receives the stored messages from some place on, in order, even when
// connections break. It uses a consumer that nobody else knows, and when a message
// is missing, makes a new one at the place of the last.
type orderedConsumer struct {
	topic *stored
	depth int // how many messages are on their way; owned by the caller of Receive

	mu     sync.Mutex // guards the fields below
	made   time.Time  // when the stream was made
	puller *puller
	name   string    // name of the consumer
	next   uint64    // the consumer's count for the next message
	last   uint64    // the last message received, or the one before the first
	at     time.Time // when it was stored; zero if it was not received
	behind uint64    // how many messages were behind the last one when it was sent
	lost   uint64
	until  uint64 // the last message to receive, once drains is set
	drains bool
	ended  bool
}

// Subscribe implements driver.Topic.
func (t *stored) Subscribe(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	if err := t.whole(); err != nil {
		return nil, err
	}
	if cfg.Group != "" {
		return t.join(ctx, cfg)
	}
	info, err := t.info(ctx)
	if err != nil {
		return nil, err
	}
	start, err := t.start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	o := &orderedConsumer{topic: t, made: info.Created, depth: firstReadAhead}
	if err := o.begin(ctx, start); err != nil {
		return nil, err
	}
	if err := t.conn.add(o); err != nil {
		o.puller.discard()
		return nil, err
	}
	return o, nil
}

// start returns the part of a consumer's configuration that says where it begins. With
// replicas, a server that is behind may have the consumer: what is not there yet is new
// to it, and later than any time. So the sequence comes from the leader, except for
// topics in memory: if all servers restart they have the same consumers again, and
// sequences that begin with 1.
func (t *stored) start(ctx context.Context, cfg driver.SubscribeConfig) (c jetstream.ConsumerConfig, err error) {
	alone := t.config.Load().Replicas <= 1 || t.inMemory()
	c.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
	switch {
	case cfg.From == driver.FromStart:
		c.DeliverPolicy = jetstream.DeliverAllPolicy
	case cfg.From == driver.FromNow, cfg.From == driver.FromLast && cfg.Seq == 0:
		if alone {
			c.DeliverPolicy = jetstream.DeliverNewPolicy
			break
		}
		var info *jetstream.StreamInfo
		if info, err = t.info(ctx); err == nil {
			c.OptStartSeq = info.State.LastSeq + 1
		}
	case cfg.From == driver.FromSeq:
		c.OptStartSeq = max(cfg.Seq, 1)
	case cfg.From == driver.FromTime:
		if alone || t.conn.level < levelReset {
			c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &cfg.Time
			break
		}
		c.OptStartSeq, err = t.conn.seqAt(ctx, t.backing, t.topic, cfg.Time)
	case cfg.From == driver.FromLast:
		c.OptStartSeq, err = t.newest(ctx, cfg.Seq)
	default:
		err = fmt.Errorf("the start position has the unknown kind %d", cfg.From)
	}
	return c, err
}

// newest returns the sequence of the first of the n newest messages.
func (t *stored) newest(ctx context.Context, n uint64) (uint64, error) {
	if t.shared() {
		return t.newestShared(ctx, n)
	}
	info, err := t.info(ctx)
	if err != nil {
		return 0, err
	}
	if info.State.NumDeleted > 0 {
		if info, err = t.info(ctx, jetstream.WithDeletedDetails(true)); err != nil {
			return 0, err
		}
	}
	s := info.State
	gone := make(map[uint64]bool, len(s.Deleted))
	for _, seq := range s.Deleted {
		gone[seq] = true
	}
	seq := s.LastSeq + 1
	for n > 0 && seq > max(s.FirstSeq, 1) {
		if seq--; !gone[seq] {
			n--
		}
	}
	return max(seq, 1), nil
}

// begin makes a consumer that begins at start.
func (o *orderedConsumer) begin(ctx context.Context, start jetstream.ConsumerConfig) error {
	t := o.topic
	start.Name = "hark-" + t.conn.ids.next()
	start.AckPolicy, start.MemoryStorage, start.InactiveThreshold = jetstream.AckNonePolicy, true, consumerIdle
	start.Replicas, start.FilterSubject = 1, t.all(t.topic)
	p := newPuller(t.conn, t.stream, start.Name, maxReadAhead/2) // messages already on their way are not asked for again
	if err := p.open(ctx); err != nil {
		return err
	}
	var info *jetstream.ConsumerInfo
	err := t.conn.state.do(ctx, func(ctx context.Context) error {
		consumer, err := t.conn.api(ctx).CreateOrUpdateConsumer(ctx, t.stream, start)
		if err != nil {
			return t.consumerError(ctx, err)
		}
		info = consumer.CachedInfo()
		return nil
	})
	if err != nil {
		p.discard()
		return fmt.Errorf("consumer: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.puller, o.name, o.next, o.last = p, start.Name, 1, info.Delivered.Stream
	if o.ended { // closed meanwhile
		p.discard()
	}
	return nil
}

// Receive implements driver.Subscription.
func (o *orderedConsumer) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	for {
		o.mu.Lock()
		p, last, drains, ended := o.puller, o.last, o.drains, o.ended || o.drains && o.last >= o.until
		o.mu.Unlock()
		if ended {
			return nil, driver.ErrEnded
		}
		var ms []*nats.Msg
		var err error
		if drains {
			ms, err = o.remaining(ctx, p, most)
		} else {
			ms, err = p.nextMessages(ctx, min(most, o.depth), o.depth)
		}
		switch {
		case errors.Is(err, errWoken), errors.Is(err, driver.ErrEnded) && o.closed(): // look again
			continue
		case errors.Is(err, errCut), errors.Is(err, errNoConsumer), errors.Is(err, driver.ErrEnded): // or to resume has failed before
			if err := o.resume(ctx, last); err != nil {
				return nil, o.topic.conn.orEnded(err)
			}
			continue
		case err != nil:
			return nil, err
		}
		o.depth = depthFor(ms)
		rs, err := o.read(ctx, p, ms)
		if err != nil || len(rs) > 0 {
			return rs, err
		}
	}
}

func (o *orderedConsumer) closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// depthFor returns how many messages like these may be on their way.
func depthFor(ms []*nats.Msg) int {
	size := 0
	for _, m := range ms {
		size += m.Size()
	}
	return min(max(pullBytes/max(size/len(ms), 1), minReadAhead), maxReadAhead)
}

// read decodes the messages of a consumer for Receive, up to the first one missing.
func (o *orderedConsumer) read(ctx context.Context, p *puller, ms []*nats.Msg) ([]*driver.Received, error) {
	o.mu.Lock()
	next, last, stored, behind, until := o.next, o.last, o.at, o.behind, o.until
	if !o.drains {
		until = math.MaxUint64
	}
	o.mu.Unlock()
	rs := make([]*driver.Received, 0, len(ms))
	room := make([]driver.Received, len(ms))
	var lost uint64
	for i, m := range ms {
		r := &room[i]
		at, err := o.topic.receive(r, m)
		if err != nil {
			return nil, err
		}
		if at.nth != next { // the client's buffer was full, or the connection was lost
			p.cut.Store(true)
			p.empty()
			break
		}
		// In a store, messages of other topics lie in between. A message of this
		// topic can be missing only if some were pending after the last one, or if
		// one came while nothing was asked for.
		if at.seq > last+1 && (!o.topic.shared() || behind > 0 || p.ranDry(next-1)) {
			lost += o.topic.lostBetween(ctx, last, at.seq)
		}
		next, last, behind, stored = next+1, at.seq, at.pending, at.at
		if at.seq <= until {
			rs = append(rs, r)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next, o.last, o.at, o.behind, o.lost = next, last, stored, behind, o.lost+lost
	return rs, nil
}

// drainPoll is how often a draining subscription asks whether more messages are to
// come: the last ones may have been deleted.
const drainPoll = 100 * time.Millisecond

// remaining is nextMessages for a draining subscription.
func (o *orderedConsumer) remaining(ctx context.Context, p *puller, most int) ([]*nats.Msg, error) {
	poll, cancel := context.WithTimeout(ctx, drainPoll)
	defer cancel()
	ms, err := p.nextMessages(poll, min(most, o.depth), o.depth)
	if err == nil || poll.Err() == nil || ctx.Err() != nil {
		return ms, err
	}
	o.mu.Lock()
	until := o.until
	o.mu.Unlock()
	done, err := o.CaughtUp(ctx, until)
	if err != nil {
		return nil, errNoConsumer
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = o.ended || done
	return nil, errWoken
}

// lostBetween returns how many messages between two sequences were removed by
// retention, as far as that can be found out; the others were deleted or have
// expired.
func (t *stored) lostBetween(ctx context.Context, last, seq uint64) uint64 {
	info, err := t.info(ctx)
	if err != nil {
		return 0
	}
	first := min(info.State.FirstSeq, seq)
	return max(first, last+1) - last - 1
}

// resume makes a new consumer for the messages after last.
func (o *orderedConsumer) resume(ctx context.Context, last uint64) error {
	o.mu.Lock()
	o.puller.discard()
	name, made, at := o.name, o.made, o.at
	o.mu.Unlock()
	var info *jetstream.StreamInfo
	err := o.topic.conn.state.do(ctx, func(ctx context.Context) (err error) {
		if info, err = o.topic.info(ctx); errors.Is(err, jetstream.ErrStreamNotFound) {
			return o.topic.absent(ctx, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	another, err := o.topic.isReplaced(ctx, info, made, last, at)
	if err != nil {
		return err
	}
	if info.State.LastSeq < last || another {
		last, at = 0, time.Time{} // another stream with the same name
	}
	start := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1}
	if err := o.begin(ctx, start); err != nil {
		return err
	}
	o.mu.Lock()
	o.last, o.at, o.made = last, at, info.Created
	o.mu.Unlock()
	o.topic.forget(name)
	return nil
}

// forget removes a consumer: now, or once it has been idle for long.
func (t *stored) forget(consumer string) { t.conn.forgetConsumer(t.stream, consumer) }

func (c *Conn) forgetConsumer(stream, consumer string) {
	// Nobody waits for the answer, or needs it.
	_ = c.nc.Publish(c.apiPrefix()+"CONSUMER.DELETE."+stream+"."+consumer, nil)
}

// Ack implements driver.Subscription.
func (o *orderedConsumer) Ack(context.Context, []*driver.Received) error { return nil }

// Extend implements driver.Subscription.
func (o *orderedConsumer) Extend(context.Context) error { return nil }

// Return implements driver.Subscription.
func (o *orderedConsumer) Return(context.Context, []*driver.Received) error { return nil }

// Drain implements driver.Subscription.
func (o *orderedConsumer) Drain(ctx context.Context) error {
	info, err := o.topic.info(ctx)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.drains {
		o.drains, o.until = true, info.State.LastSeq
		o.puller.rouse()
	}
	return nil
}

// Lag implements driver.Subscription.
func (o *orderedConsumer) Lag(ctx context.Context) (driver.Lag, error) {
	if o.topic.shared() {
		return o.shareLag(ctx)
	}
	info, err := o.topic.info(ctx)
	if err != nil {
		return driver.Lag{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := info.State
	lag := driver.Lag{Lost: o.lost, Members: 1}
	if s.LastSeq > o.last {
		lag.Waiting = min(s.LastSeq-o.last, s.Msgs)
	}
	return lag, nil
}

// shareLag is Lag for a topic of a store; there the consumer knows how many
// messages are behind.
func (o *orderedConsumer) shareLag(ctx context.Context) (driver.Lag, error) {
	o.mu.Lock()
	name, next, lag := o.name, o.next, driver.Lag{Lost: o.lost, Members: 1}
	o.mu.Unlock()
	info, err := o.topic.consumerInfo(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound): // another one is being made
		return lag, nil
	case err != nil:
		return lag, err
	}
	lag.Waiting = info.NumPending
	if sent := info.Delivered.Consumer + 1; sent > next {
		lag.Waiting += sent - next
	}
	return lag, nil
}

// CaughtUp implements driver.Subscription.
func (o *orderedConsumer) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	o.mu.Lock()
	name, last, made := o.name, o.last, o.made
	o.mu.Unlock()
	if last >= seq {
		if !o.topic.inMemory() {
			return true, nil
		}
		now, err := o.topic.made(ctx) // last may belong to a stream that is gone
		return err == nil && now.Equal(made), err
	}
	info, err := o.topic.consumerInfo(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound): // Receive makes another one
		return false, nil
	case err != nil:
		return false, err
	}
	if given, err := o.topic.hasGiven(ctx, info, seq); err != nil || !given {
		return false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.name == name && info.Delivered.Consumer < o.next, nil
}

// Close implements driver.Subscription.
func (o *orderedConsumer) Close(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.puller.discard()
	o.topic.forget(o.name)
	o.topic.conn.remove(o)
	return nil
}
