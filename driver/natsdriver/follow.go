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
	// followDepth is how many messages are on their way to a subscription without a
	// group at most. The server is faster the more it is asked for at a time.
	followDepth = 2048
	// firstDepth is how many messages are asked for before their size is known.
	// When they are large fewer are asked for, such that they total followBytes.
	firstDepth  = 512
	leastDepth  = 64
	followBytes = 4 << 20
	// A server forgets the consumer of a subscription that has not asked for this
	// long. The subscription then makes another.
	followIdle = 2 * time.Minute
)

// follow receives the stored messages from some place on, in order, even when
// connections break. It uses a consumer that nobody else knows, and when a message
// is missing, makes a new one at the place of the last.
type follow struct {
	topic *stored
	depth int // how many messages are on their way; owned by the caller of Receive

	mu     sync.Mutex // guards the fields below
	made   time.Time  // when the stream was made
	puller *puller
	name   string // name of the consumer
	next   uint64 // the consumer's count for the next message
	last   uint64 // the last message received, or the one before the first
	behind uint64 // how many messages were behind the last one when it was sent
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
	f := &follow{topic: t, made: info.Created, depth: firstDepth}
	if err := f.begin(ctx, start); err != nil {
		return nil, err
	}
	if err := t.conn.add(f); err != nil {
		f.puller.discard()
		return nil, err
	}
	return f, nil
}

// start returns the part of a consumer's configuration that says where it begins.
func (t *stored) start(ctx context.Context, cfg driver.SubscribeConfig) (c jetstream.ConsumerConfig, err error) {
	switch cfg.From {
	case driver.FromStart:
		c.DeliverPolicy = jetstream.DeliverAllPolicy
	case driver.FromNow:
		c.DeliverPolicy = jetstream.DeliverNewPolicy
	case driver.FromSeq:
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, max(cfg.Seq, 1)
	case driver.FromTime:
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &cfg.Time
	case driver.FromLast:
		if cfg.Seq == 0 {
			c.DeliverPolicy = jetstream.DeliverNewPolicy
			return c, nil
		}
		c.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
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
func (f *follow) begin(ctx context.Context, start jetstream.ConsumerConfig) error {
	t := f.topic
	start.Name = "hark-" + t.conn.ids.next()
	start.AckPolicy, start.MemoryStorage, start.InactiveThreshold = jetstream.AckNonePolicy, true, followIdle
	start.Replicas, start.FilterSubject = 1, t.all(t.topic)
	p := newPuller(t.conn, t.stream, start.Name)
	if err := p.open(ctx, followDepth/2); err != nil { // messages already on their way are not asked for again
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
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puller, f.name, f.next, f.last = p, start.Name, 1, info.Delivered.Stream
	if f.ended { // closed meanwhile
		p.discard()
	}
	return nil
}

// Receive implements driver.Subscription.
func (f *follow) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	for {
		f.mu.Lock()
		p, last, drains, ended := f.puller, f.last, f.drains, f.ended || f.drains && f.last >= f.until
		f.mu.Unlock()
		if ended {
			return nil, driver.ErrEnded
		}
		var ms []*nats.Msg
		var err error
		if drains {
			ms, err = f.remaining(ctx, p, most)
		} else {
			ms, err = p.nextMessages(ctx, most, f.depth)
		}
		switch {
		case errors.Is(err, errCut), errors.Is(err, errNoConsumer):
			if err := f.resume(ctx, last); err != nil {
				return nil, f.topic.conn.orEnded(err)
			}
			continue
		case errors.Is(err, errWoken), errors.Is(err, driver.ErrEnded): // look again
			continue
		case err != nil:
			return nil, err
		}
		f.depth = depthFor(ms)
		rs, err := f.read(ctx, p, ms)
		if err != nil || len(rs) > 0 {
			return rs, err
		}
	}
}

// depthFor returns how many messages like these may be on their way.
func depthFor(ms []*nats.Msg) int {
	size := 0
	for _, m := range ms {
		size += m.Size()
	}
	return min(max(followBytes/max(size/len(ms), 1), leastDepth), followDepth)
}

// read decodes the messages of a consumer for Receive, up to the first one missing.
func (f *follow) read(ctx context.Context, p *puller, ms []*nats.Msg) ([]*driver.Received, error) {
	f.mu.Lock()
	next, last, behind, until := f.next, f.last, f.behind, f.until
	if !f.drains {
		until = math.MaxUint64
	}
	f.mu.Unlock()
	rs := make([]*driver.Received, 0, len(ms))
	room := make([]driver.Received, len(ms))
	var lost uint64
	for i, m := range ms {
		r := &room[i]
		at, err := f.topic.receive(r, m)
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
		if at.seq > last+1 && (!f.topic.shared() || behind > 0 || p.ranDry(next-1)) {
			lost += f.topic.lostBetween(ctx, last, at.seq)
		}
		next, last, behind = next+1, at.seq, at.pending
		if at.seq <= until {
			rs = append(rs, r)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.last, f.behind, f.lost = next, last, behind, f.lost+lost
	return rs, nil
}

// drainPoll is how often a draining subscription asks whether more messages are to
// come: the last ones may have been deleted.
const drainPoll = 100 * time.Millisecond

// remaining is nextMessages for a draining subscription.
func (f *follow) remaining(ctx context.Context, p *puller, most int) ([]*nats.Msg, error) {
	poll, cancel := context.WithTimeout(ctx, drainPoll)
	defer cancel()
	ms, err := p.nextMessages(poll, most, f.depth)
	if err == nil || poll.Err() == nil || ctx.Err() != nil {
		return ms, err
	}
	f.mu.Lock()
	until := f.until
	f.mu.Unlock()
	done, err := f.CaughtUp(ctx, until)
	if err != nil {
		return nil, errNoConsumer
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = f.ended || done
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
func (f *follow) resume(ctx context.Context, last uint64) error {
	f.mu.Lock()
	f.puller.discard()
	name, made := f.name, f.made
	f.mu.Unlock()
	var info *jetstream.StreamInfo
	err := f.topic.conn.state.do(ctx, func(ctx context.Context) (err error) {
		if info, err = f.topic.info(ctx); errors.Is(err, jetstream.ErrStreamNotFound) {
			return f.topic.absent(ctx, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	if info.State.LastSeq < last || !info.Created.Equal(made) {
		last = 0 // another stream with the same name
	}
	start := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1}
	if err := f.begin(ctx, start); err != nil {
		return err
	}
	f.mu.Lock()
	f.last, f.made = last, info.Created
	f.mu.Unlock()
	f.topic.forget(name)
	return nil
}

// forget removes a consumer: now, or once it has been idle for long.
func (t *stored) forget(consumer string) { t.conn.forgetConsumer(t.stream, consumer) }

func (c *Conn) forgetConsumer(stream, consumer string) {
	// Nobody waits for the answer, or needs it.
	_ = c.nc.Publish(c.apiPrefix()+"CONSUMER.DELETE."+stream+"."+consumer, nil)
}

// Ack implements driver.Subscription.
func (f *follow) Ack(context.Context, []*driver.Received) error { return nil }

// Extend implements driver.Subscription.
func (f *follow) Extend(context.Context, []*driver.Received) error { return nil }

// Return implements driver.Subscription.
func (f *follow) Return(context.Context, []*driver.Received) error { return nil }

// Drain implements driver.Subscription.
func (f *follow) Drain(ctx context.Context) error {
	info, err := f.topic.info(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.drains {
		f.drains, f.until = true, info.State.LastSeq
		f.puller.rouse()
	}
	return nil
}

// Lag implements driver.Subscription.
func (f *follow) Lag(ctx context.Context) (driver.Lag, error) {
	if f.topic.shared() {
		return f.shareLag(ctx)
	}
	info, err := f.topic.info(ctx)
	if err != nil {
		return driver.Lag{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := info.State
	lag := driver.Lag{Lost: f.lost, Members: 1}
	if s.LastSeq > f.last {
		lag.Waiting = min(s.LastSeq-f.last, s.Msgs)
	}
	return lag, nil
}

// shareLag is Lag for a topic of a store; there the consumer knows how many
// messages are behind.
func (f *follow) shareLag(ctx context.Context) (driver.Lag, error) {
	f.mu.Lock()
	name, next, lag := f.name, f.next, driver.Lag{Lost: f.lost, Members: 1}
	f.mu.Unlock()
	info, err := f.topic.consumerInfo(ctx, name)
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
func (f *follow) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	f.mu.Lock()
	name, last, made := f.name, f.last, f.made
	f.mu.Unlock()
	if last >= seq {
		if !f.topic.inMemory() {
			return true, nil
		}
		now, err := f.topic.made(ctx) // last may belong to a stream that is gone
		return err == nil && now.Equal(made), err
	}
	info, err := f.topic.consumerInfo(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound): // Receive makes another one
		return false, nil
	case err != nil:
		return false, err
	}
	if given, err := f.topic.hasGiven(ctx, info, seq); err != nil || !given {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.name == name && info.Delivered.Consumer < f.next, nil
}

// Close implements driver.Subscription.
func (f *follow) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.puller.discard()
	f.topic.forget(f.name)
	f.topic.conn.remove(f)
	return nil
}
