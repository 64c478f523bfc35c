package natsdriver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

const (
	// groupsStream holds the rosters of groups, each on a subject of its own.
	groupsStream  = "hark-groups"
	rosterSubject = "$HARK.g."
	rosterNews    = "$HARK.gnews." // where the server republishes them
)

// keyed is a member of a group that keeps the order of keys. It receives messages
// without a key as a member of any group does, and those with a key by slots, each
// of which belongs to one member at a time.
type keyed struct {
	topic   *stored
	name    string // name of the group
	id      string // ID of the member
	subject string // subject of the roster
	window  int
	plain   *member // receives the messages without a key
	nudges  *nats.Subscription
	nudged  chan struct{} // has a token when the roster has changed, or a slot is settled

	ctx     context.Context // ends when nothing more is taken
	cancel  context.CancelFunc
	steward chan struct{}  // closed when the goroutine that keeps the roster has returned
	sources sync.WaitGroup // the goroutines that fill arrived
	arrived chan []*driver.Received
	queued  atomic.Int64       // messages that wait in arrived for Receive
	rest    []*driver.Received // taken by Receive but not yet returned
	ending  sync.Once

	agreeing sync.Mutex // held while a roster is read and replaced

	mu         sync.Mutex // guards the fields below
	slots      map[int]*slot
	heartbeats heartbeats
	renewed    time.Time     // when this member's number last changed
	renewal    chan struct{} // closed and replaced when it changes
	failed     error         // why nothing more is taken
}

// joinKeyed makes a member of a group that keeps the order of keys.
func (t *stored) joinKeyed(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	k := &keyed{
		topic: t, name: cfg.Group, id: t.conn.ids.next(), subject: rosterOf(t.topic, cfg.Group), window: cfg.Window,
		nudged: make(chan struct{}, 1), steward: make(chan struct{}), arrived: make(chan []*driver.Received),
		slots: map[int]*slot{}, heartbeats: heartbeats{}, renewal: make(chan struct{}),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	if err := k.join(ctx, cfg); err != nil {
		k.abort()
		return nil, fmt.Errorf("group %s: %w", cfg.Group, err)
	}
	return k, nil
}

// rosterOf returns the subject of the roster of a group.
func rosterOf(topic, group string) string {
	return rosterSubject + hashed(topic) + "." + hash(group)
}

// newsOf returns the subject on which the members of a group learn that its roster, on
// the given subject, has changed.
func newsOf(roster string) string { return rosterNews + strings.TrimPrefix(roster, rosterSubject) }

// rosterSubjects returns the subjects of the rosters of all groups on a topic, or on
// the topics that match a pattern. The subjects distinguish topics, so that users can
// be allowed to change those of some, but do not name them: whoever may read one
// roster may read all.
func rosterSubjects(topics string) string {
	if root, ok := strings.CutSuffix(topics, ">"); ok {
		return rosterSubject + hashed(root+"*") + ".>"
	}
	return rosterSubject + hashed(topics) + ".*"
}

// hashed returns a topic or pattern with its tokens hashed.
func hashed(topics string) string {
	tokens := strings.Split(topics, ".")
	for i, token := range tokens {
		if token != "*" {
			tokens[i] = hash(token)
		}
	}
	return strings.Join(tokens, ".")
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

func (k *keyed) join(ctx context.Context, cfg driver.SubscribeConfig) (err error) {
	c := k.topic.conn
	if k.plain, err = k.topic.newMember(ctx, cfg, []string{k.topic.plain(k.topic.topic)}); err != nil {
		return err
	}
	if err := k.ensureSlots(ctx, cfg); err != nil {
		return err
	}
	if err := c.ensureGroups(ctx); err != nil {
		return err
	}
	news := newsOf(k.subject)
	if err := c.permitted(ctx, []string{news}, func() (err error) {
		k.nudges, err = c.nc.Subscribe(news, func(*nats.Msg) { k.nudge() })
		return kind(err)
	}, func() {
		if k.nudges != nil {
			_ = k.nudges.Unsubscribe() // the connection may be closed
		}
	}); err != nil {
		return err
	}
	if err := c.add(k); err != nil {
		return err
	}
	if err := k.agree(ctx, true); err != nil {
		c.remove(k)
		return err
	}
	k.sources.Add(1)
	go k.pumpPlain()
	go k.keepRoster()
	return nil
}

// abort undoes what joinKeyed has begun.
func (k *keyed) abort() {
	k.cancel()
	close(k.steward) // it was never started
	for _, s := range k.slots {
		s.stop(context.Background())
	}
	if k.nudges != nil {
		_ = k.nudges.Unsubscribe() // the connection may be closed
	}
	if k.plain != nil {
		k.plain.puller.discard()
	}
}

// ensureSlots makes the consumers of all slots.
func (k *keyed) ensureSlots(ctx context.Context, cfg driver.SubscribeConfig) error {
	var wg sync.WaitGroup
	errs := make([]error, partitions)
	for n := range partitions {
		wg.Go(func() { errs[n] = k.ensureSlot(ctx, n, cfg) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (k *keyed) ensureSlot(ctx context.Context, n int, cfg driver.SubscribeConfig) error {
	return k.topic.ensureConsumer(ctx, cfg, k.slotConsumer(n), []string{k.topic.partition(k.topic.topic, n)}, slotLease)
}

func (k *keyed) nudge() {
	select {
	case k.nudged <- struct{}{}:
	default:
	}
}

func (k *keyed) lease() time.Duration { return k.topic.conn.opts.lease }

// fail ends the subscription; Receive returns err.
func (k *keyed) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	if k.failed == nil {
		k.failed = err
	}
	k.mu.Unlock()
	k.cancel()
	go k.end()
}

// pumpPlain receives the messages without a key.
func (k *keyed) pumpPlain() {
	defer k.sources.Done()
	for {
		rs, err := k.plain.Receive(k.ctx, k.window)
		if err != nil {
			if k.ctx.Err() == nil && !errors.Is(err, driver.ErrEnded) {
				k.fail(k.ctx, err)
			}
			return
		}
		if !k.deliver(k.ctx, rs) {
			return
		}
	}
}

// deliver passes messages to Receive. It reports false if ctx ended first; the
// messages have then been returned.
func (k *keyed) deliver(ctx context.Context, rs []*driver.Received) bool {
	k.queued.Add(int64(len(rs)))
	select {
	case k.arrived <- rs:
		return true
	case <-ctx.Done():
		k.queued.Add(-int64(len(rs)))
		_ = k.Return(context.Background(), rs) // if it fails, their leases end
		return false
	}
}

// Receive implements driver.Subscription.
func (k *keyed) Receive(ctx context.Context, most int) ([]*driver.Received, error) {
	if len(k.rest) == 0 {
		select {
		case rs, ok := <-k.arrived:
			if !ok {
				k.mu.Lock()
				defer k.mu.Unlock()
				if k.failed != nil {
					return nil, k.failed
				}
				return nil, driver.ErrEnded
			}
			k.rest = rs
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	n := min(most, len(k.rest))
	rs := k.rest[:n:n]
	k.rest = k.rest[n:]
	k.queued.Add(-int64(n))
	return rs, nil
}

// split separates messages without a key from those of slots.
func (k *keyed) split(ms []*driver.Received) (plain []*driver.Received, deliveries []*slotDelivery) {
	for _, m := range ms {
		if d, ok := m.Token.(*slotDelivery); ok {
			deliveries = append(deliveries, d)
		} else {
			plain = append(plain, m)
		}
	}
	return plain, deliveries
}

// Ack implements driver.Subscription.
func (k *keyed) Ack(ctx context.Context, ms []*driver.Received) error {
	plain, deliveries := k.split(ms)
	nc := k.topic.conn.nc
	for _, d := range deliveries {
		// If it is lost with the connection, the message comes again and is
		// recognised.
		if subject := d.subject(); subject != "" {
			if err := nc.Publish(subject, sayDone); err != nil && k.topic.conn.state.isClosed() {
				return kind(err)
			}
		}
		if d.finish(true) {
			k.nudge()
		}
	}
	return k.plain.Ack(ctx, plain)
}

// Extend implements driver.Subscription. Messages of slots need not be extended.
func (k *keyed) Extend(ctx context.Context) error { return k.plain.Extend(ctx) }

// Return implements driver.Subscription. A slot with a returned message goes to any
// member that is free.
func (k *keyed) Return(ctx context.Context, ms []*driver.Received) error {
	plain, deliveries := k.split(ms)
	k.mu.Lock()
	for _, d := range deliveries {
		if d.finish(false) {
			k.nudge()
		}
		if s := d.slot; k.slots[s.number] == s && !s.isLeaving() && k.ctx.Err() == nil {
			k.leave(s)
		}
	}
	k.mu.Unlock()
	return k.plain.Return(ctx, plain)
}

// Drain implements driver.Subscription.
func (k *keyed) Drain(ctx context.Context) error {
	err := k.plain.Drain(ctx)
	k.cancel()
	go k.end()
	return err
}

// end closes arrived when nothing more comes.
func (k *keyed) end() {
	k.ending.Do(func() {
		<-k.steward
		k.mu.Lock()
		own := make([]*slot, 0, len(k.slots))
		for _, s := range k.slots {
			own = append(own, s)
		}
		k.mu.Unlock()
		for _, s := range own {
			s.cancel()
		}
		k.sources.Wait()
		close(k.arrived)
	})
}

// Lag implements driver.Subscription.
func (k *keyed) Lag(ctx context.Context) (driver.Lag, error) {
	lag := driver.Lag{Members: 1}
	infos, err := k.consumers(ctx)
	if err != nil {
		return lag, err
	}
	for _, info := range infos {
		lag.Waiting += info.NumPending
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	lag.Waiting += uint64(max(k.queued.Load(), 0)) + uint64(k.plain.puller.buffered())
	for _, s := range k.slots {
		lag.Waiting += uint64(s.puller.buffered())
	}
	lag.Members = max(len(k.heartbeats), 1)
	return lag, nil
}

// CaughtUp implements driver.Subscription.
func (k *keyed) CaughtUp(ctx context.Context, seq uint64) (bool, error) {
	infos, err := k.consumers(ctx)
	if err != nil {
		return false, err
	}
	var waits sync.WaitGroup
	var behind atomic.Bool
	errs := make([]error, len(infos))
	for i, info := range infos {
		waits.Go(func() {
			given, err := k.topic.hasGiven(ctx, info, seq)
			if errs[i] = err; !given {
				behind.Store(true)
			}
		})
	}
	waits.Wait()
	if err := errors.Join(errs...); err != nil || behind.Load() {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.ctx, cancel)()
	for _, p := range k.pullers() {
		waits.Go(func() {
			if !p.settled(ctx) {
				behind.Store(true)
			}
		})
	}
	waits.Wait()
	return !behind.Load() && k.queued.Load() == 0, nil
}

// consumers returns the consumers that the group has.
func (k *keyed) consumers(ctx context.Context) (ours []*jetstream.ConsumerInfo, err error) {
	t := k.topic
	names := map[string]bool{k.plain.consumer: true}
	for n := range partitions {
		names[k.slotConsumer(n)] = true
	}
	err = t.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := t.conn.api(ctx).Stream(ctx, t.stream)
		if err != nil {
			return t.consumerError(ctx, err)
		}
		ours = nil
		all := stream.ListConsumers(ctx)
		for info := range all.Info() {
			if names[info.Name] {
				ours = append(ours, info)
			}
		}
		return all.Err()
	})
	return ours, err
}

// pullers returns the pullers of the member.
func (k *keyed) pullers() []*puller {
	k.mu.Lock()
	defer k.mu.Unlock()
	ps := []*puller{k.plain.puller}
	for _, s := range k.slots {
		ps = append(ps, s.puller)
	}
	return ps
}

// Close implements driver.Subscription.
func (k *keyed) Close(ctx context.Context) error {
	c := k.topic.conn
	k.cancel()
	go func() {
		for range k.arrived { // messages that nobody receives any more stay in flight
		}
	}()
	k.end()
	_ = k.nudges.Unsubscribe() // the connection may be closed
	err := k.plain.Close(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range k.slots {
		wg.Go(func() { s.stop(ctx); s.confirm(ctx) })
	}
	wg.Wait()
	c.remove(k)
	if !c.state.connected() {
		return err // the other members will notice
	}
	return errors.Join(err, k.replaceRoster(ctx, k.resign, func(*roster, time.Time) { clear(k.slots) }))
}
