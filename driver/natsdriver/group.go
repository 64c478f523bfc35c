package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// member is a member of a group on a stored topic. The members of a group share a
// durable consumer.
type member struct {
	topic    *stored
	group    string
	consumer string
	subjects []string // subjects of the messages it gets; nil for all
	window   int
	puller   *puller

	mu         sync.Mutex // guards the fields below
	made       time.Time  // when the stream was made; for topics in memory
	epoch      uint64     // epoch of the connection over which that was found
	deliveries delivery   // head of the ring of messages in flight
	acked      string     // the last message acknowledged, by its reply subject
	closed     bool
}

// delivery is a message that was received but neither acknowledged nor returned.
type delivery struct {
	member     *member
	reply      string
	made       time.Time // when its stream was made; for topics in memory
	prev, next *delivery // in the ring of the member; nil when not in flight
}

// addLocked adds d to the ring.
func (m *member) addLocked(d *delivery) {
	last := m.deliveries.prev
	d.prev, d.next = last, &m.deliveries
	last.next, m.deliveries.prev = d, d
}

// leave removes d from the ring, if it is there. The member must be locked.
func (d *delivery) leave() {
	if d.next != nil {
		d.prev.next, d.next.prev = d.next, d.prev
		d.prev, d.next = nil, nil
	}
}

// What members tell the server about messages.
var (
	sayDone   = []byte("+ACK")
	sayBack   = []byte("-NAK")
	sayAtWork = []byte("+WPI")
)

// join makes a member of a group.
func (t *stored) join(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	if cfg.Keyed {
		return t.joinKeyed(ctx, cfg)
	}
	m, err := t.newMember(ctx, cfg, t.filters(t.topic))
	if err != nil {
		return nil, err
	}
	if err := t.conn.add(m); err != nil {
		m.puller.discard()
		return nil, err
	}
	return m, nil
}

// newMember makes a member that gets the messages on some subjects of the stream,
// or on all.
func (t *stored) newMember(ctx context.Context, cfg driver.SubscribeConfig, subjects []string) (*member, error) {
	m := &member{topic: t, group: cfg.Group, consumer: t.backing.consumer(t.topic, cfg.Group), subjects: subjects, window: cfg.Window}
	m.deliveries.prev, m.deliveries.next = &m.deliveries, &m.deliveries
	if err := m.ensure(ctx, cfg); err != nil {
		return nil, fmt.Errorf("group %s: %w", cfg.Group, err)
	}
	if err := m.look(ctx); err != nil {
		return nil, err
	}
	m.puller = newPuller(t.conn, t.stream, m.consumer, max(cfg.Window, maxAhead/2))
	m.puller.pace = &pace{}
	if err := m.puller.open(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// ensure makes the consumer of the group, or uses the existing one as it is.
func (m *member) ensure(ctx context.Context, cfg driver.SubscribeConfig) error {
	return m.topic.ensureConsumer(ctx, cfg, m.consumer, m.subjects, m.topic.conn.opts.lease)
}

// ensureConsumer makes a consumer of a group, or uses the existing one as it is,
// because it holds the group's place. The server's own limit bounds the messages in
// flight to all members together; how much each member asks for bounds its own.
func (t *stored) ensureConsumer(ctx context.Context, cfg driver.SubscribeConfig, name string, subjects []string, lease time.Duration) error {
	return t.conn.state.do(ctx, func(ctx context.Context) error {
		consumer, err := t.conn.api(ctx).Consumer(ctx, t.stream, name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			var c jetstream.ConsumerConfig
			if c, err = t.start(ctx, cfg); err != nil {
				return err
			}
			c.Durable, c.Name = name, name
			c.Description = groupDescription + cfg.Group
			c.AckPolicy, c.AckWait, c.MaxDeliver = jetstream.AckExplicitPolicy, lease, -1
			c.MaxAckPending = -1
			if len(subjects) > 0 {
				c.FilterSubject = subjects[0] // the only form that servers before 2.10 know
			}
			consumer, err = t.conn.api(ctx).CreateConsumer(ctx, t.stream, c)
			if errors.Is(err, jetstream.ErrConsumerExists) { // somebody else was faster
				return fmt.Errorf("%w: %w", driver.ErrAgain, err)
			}
		}
		if err != nil {
			return t.consumerError(ctx, err)
		}
		have := consumer.CachedInfo().Config
		switch {
		case have.AckPolicy != jetstream.AckExplicitPolicy:
			return fmt.Errorf("%w: consumer %s of stream %s was not created by hark: its acknowledgement policy is %v", driver.ErrConflict, name, t.stream, have.AckPolicy)
		case have.AckWait != lease:
			return fmt.Errorf("%w: the group has Lease %v, not %v", driver.ErrConflict, have.AckWait, lease)
		case !slices.Equal(filters(&have), subjects):
			return fmt.Errorf("%w: the members of the group do not agree on whether messages have keys (KeyBy)", driver.ErrConflict)
		}
		return nil
	})
}

// Receive implements driver.Subscription.
func (m *member) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	for {
		ms, err := m.puller.nextMessages(ctx, min(most, m.window), 0)
		switch {
		case errors.Is(err, errCut), errors.Is(err, errWoken):
			m.puller.forgetRequests() // messages on their way come again
			err := m.topic.conn.state.await(ctx)
			if err == nil {
				err = m.look(ctx)
			}
			if err != nil {
				return nil, m.orEnded(err)
			}
			continue
		case errors.Is(err, errNoConsumer):
			err := m.revive(ctx)
			if err == nil {
				err = m.look(ctx)
			}
			if err != nil {
				return nil, m.orEnded(err)
			}
			continue
		case err != nil:
			return nil, err
		}
		return m.read(ms)
	}
}

func (m *member) orEnded(err error) error {
	if m.puller.over() {
		return driver.ErrEnded
	}
	return m.topic.conn.orEnded(err)
}

// revive waits until the consumer exists again.
func (m *member) revive(ctx context.Context) error {
	t := m.topic
	m.puller.forgetRequests()
	return t.conn.state.do(ctx, func(ctx context.Context) error {
		if m.puller.over() {
			return driver.ErrEnded
		}
		_, err := t.conn.api(ctx).Consumer(ctx, t.stream, m.consumer)
		switch {
		case err == nil:
			return nil
		case t.wanted.Durability == driver.DurableMemory && (errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)):
			// The server was restarted and remembers nothing.
			if err := t.open(ctx); err != nil {
				return err
			}
			return m.ensure(ctx, driver.SubscribeConfig{Group: m.group, From: driver.FromStart})
		}
		return t.consumerError(ctx, err)
	})
}

// look records when the stream of a topic in memory was made; messages that arrive
// from then on belong to it.
func (m *member) look(ctx context.Context) error {
	if !m.topic.inMemory() {
		return nil
	}
	epoch := m.topic.conn.state.epoch()
	made, err := m.topic.made(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.made.Equal(made) {
		m.acked = ""
	}
	m.made, m.epoch = made, epoch
	return nil
}

// present returns when the current stream of a topic in memory was made. A
// restarted server reuses sequences: an acknowledgement of a message of the former
// stream would count for a message of the new one, which may be in flight to another
// member.
func (m *member) present(ctx context.Context) (made time.Time, err error) {
	if made, sure := m.known(); sure {
		return made, nil
	}
	return m.topic.made(ctx)
}

// known is present as far as this member knows; sure is false if the stream may
// have been replaced.
func (m *member) known() (made time.Time, sure bool) {
	if !m.topic.inMemory() {
		return made, true
	}
	now := m.topic.conn.state.epoch()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made, m.epoch == now
}

func (m *member) read(ms []*nats.Msg) ([]*driver.Received, error) {
	room := make([]struct {
		received driver.Received
		delivery delivery
	}, len(ms))
	rs := make([]*driver.Received, len(ms))
	for i, msg := range ms {
		r, d := &room[i].received, &room[i].delivery
		if _, err := m.topic.receive(r, msg); err != nil {
			return nil, err
		}
		d.member, d.reply = m, msg.Reply
		r.Token = d
		rs[i] = r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.giveBack(ms)
		return nil, driver.ErrEnded
	}
	for i := range room {
		room[i].delivery.made = m.made
		m.addLocked(&room[i].delivery)
	}
	return rs, nil
}

// giveBack returns messages that nobody has seen.
func (m *member) giveBack(ms []*nats.Msg) {
	for _, msg := range ms {
		_ = m.topic.conn.nc.Publish(msg.Reply, sayBack) // if it is lost, their leases end
	}
}

// finish tells the server something about messages, and removes them from the ring. If the
// server does not hear of it, their leases end, because nobody extends them any more.
func (m *member) finish(ctx context.Context, ms []*driver.Received, what []byte) error {
	ds := make([]*delivery, len(ms))
	for i, r := range ms {
		d, ok := r.Token.(*delivery)
		if !ok || d.member != m {
			return fmt.Errorf("message %d of %s was not received here", r.Seq, r.Topic)
		}
		ds[i] = d
	}
	err := m.say(ctx, ds, what)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range ds {
		d.leave()
	}
	return err
}

// say tells the server something about messages.
func (m *member) say(ctx context.Context, ds []*delivery, what []byte) error {
	if len(ds) == 0 {
		return nil
	}
	made, err := m.present(ctx)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if !d.made.Equal(made) {
			continue // its stream is gone
		}
		if err := m.topic.conn.nc.Publish(d.reply, what); err != nil {
			if err := m.sayLater(ctx, d, what); err != nil {
				return err
			}
		}
	}
	return nil
}

// sayLater tells the server something about a message once the connection is back.
func (m *member) sayLater(ctx context.Context, d *delivery, what []byte) error {
	return m.topic.conn.state.do(ctx, func(ctx context.Context) error {
		made, err := m.present(ctx)
		if err != nil || !d.made.Equal(made) {
			return err
		}
		return m.topic.conn.nc.Publish(d.reply, what)
	})
}

// Ack implements driver.Subscription.
func (m *member) Ack(ctx context.Context, ms []*driver.Received) error {
	if err := m.finish(ctx, ms, sayDone); err != nil || len(ms) == 0 {
		return err
	}
	m.puller.pace.handled.Add(int64(len(ms)))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked = ms[len(ms)-1].Token.(*delivery).reply
	return nil
}

// Extend implements driver.Subscription.
func (m *member) Extend(ctx context.Context) error {
	var ds []*delivery
	m.mu.Lock()
	for d := m.deliveries.next; d != &m.deliveries; d = d.next {
		ds = append(ds, d)
	}
	made := m.made
	m.mu.Unlock()
	for _, msg := range m.puller.waiting() {
		ds = append(ds, &delivery{member: m, reply: msg.Reply, made: made})
	}
	return m.say(ctx, ds, sayAtWork)
}

// Return implements driver.Subscription.
func (m *member) Return(ctx context.Context, ms []*driver.Received) error {
	return m.finish(ctx, ms, sayBack)
}

// Drain implements driver.Subscription.
func (m *member) Drain(ctx context.Context) error { return m.stop(ctx) }

// stop stops taking messages, so that returned ones go to other members.
func (m *member) stop(ctx context.Context) error {
	err := m.puller.stop(ctx)
	if c := m.topic.conn; c.level < levelTTL && c.state.connected() {
		// Older servers (2.9) give a returned message to the request that was taken
		// back, and so to nobody. Counting the waiting requests makes them remove
		// it.
		_, infoErr := c.api(ctx).Consumer(ctx, m.topic.stream, m.consumer)
		err = errors.Join(err, infoErr)
	}
	return err
}

// Lag implements driver.Subscription.
func (m *member) Lag(ctx context.Context) (driver.Lag, error) {
	info, err := m.topic.consumerInfo(ctx, m.consumer)
	if err != nil {
		return driver.Lag{}, err
	}
	return driver.Lag{Waiting: info.NumPending + uint64(m.puller.buffered()), Members: 1}, nil
}

// CaughtUp implements driver.Subscription.
func (m *member) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	info, err := m.topic.consumerInfo(ctx, m.consumer)
	if err != nil {
		return false, err
	}
	if given, err := m.topic.hasGiven(ctx, info, seq); err != nil || !given {
		return false, err
	}
	return m.puller.settled(ctx), nil
}

// closeTimeout is how long Close waits for the server to confirm the last
// acknowledgement.
const closeTimeout = 2 * time.Second

// Close implements driver.Subscription.
func (m *member) Close(ctx context.Context) error {
	c := m.topic.conn
	err := m.stop(ctx)
	c.remove(m)
	made, sure := m.known()
	if waiting := m.puller.rest(); sure {
		m.giveBack(waiting)
	}
	m.mu.Lock()
	acked := m.acked
	m.closed = true
	for d := m.deliveries.next; d != &m.deliveries; d = m.deliveries.next {
		if sure && d.made.Equal(made) {
			_ = c.nc.Publish(d.reply, sayBack) // if it is lost, its lease ends
		}
		d.leave()
	}
	if !sure {
		acked = ""
	}
	m.acked = ""
	m.mu.Unlock()
	if acked == "" || !c.state.connected() {
		return err
	}
	// The server handles what it is told about a consumer in order: its answer to
	// this one means that it has recorded all of them.
	wait, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_, ackErr := c.nc.RequestWithContext(wait, acked, sayDone)
	return errors.Join(err, ackErr)
}
