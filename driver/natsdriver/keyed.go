package natsdriver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

const (
	// groupsStream has the rosters of groups, each on a subject of its own.
	groupsStream  = "hark-groups"
	rosterSubject = "$HARK.g."
)

// keyed is a member of a group that keeps the order of keys. Messages without a
// key come to it as to a member of any group, those with one by slots, of which
// each belongs to one member at a time.
type keyed struct {
	topic   *stored
	name    string // of the group
	id      string // of the member
	subject string // of the roster
	window  int
	plain   *member // gets the messages without a key
	nudges  *nats.Subscription
	nudged  chan struct{} // the roster has changed, or a slot is settled

	ctx     context.Context // until nothing more is taken
	cancel  context.CancelFunc
	steward chan struct{}  // closed when the goroutine that keeps the roster has ended
	sources sync.WaitGroup // those who fill arrived
	arrived chan []*driver.Received
	queued  atomic.Int64       // messages in hands that Receive has not returned
	rest    []*driver.Received // what Receive has taken and not returned
	ending  sync.Once

	agreeing sync.Mutex // held while a roster is read and replaced

	mu      sync.Mutex // guards what follows
	slots   map[int]*slot
	pulses  pulses
	renewed time.Time     // when the number of this member was last changed
	renewal chan struct{} // closed and replaced when it is
	failed  error         // why nothing more is taken
}

// joinKeyed makes a member of a group that keeps the order of keys.
func (t *stored) joinKeyed(ctx context.Context, cfg driver.SubscribeConfig) (driver.Subscription, error) {
	sum := sha256.Sum256([]byte(t.topic + " " + cfg.Group))
	k := &keyed{
		topic: t, name: cfg.Group, id: t.conn.ids.next(), subject: rosterSubject + hex.EncodeToString(sum[:16]), window: cfg.Window,
		nudged: make(chan struct{}, 1), steward: make(chan struct{}), arrived: make(chan []*driver.Received),
		slots: map[int]*slot{}, pulses: pulses{}, renewal: make(chan struct{}),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	if err := k.join(ctx, cfg); err != nil {
		k.abort()
		return nil, fmt.Errorf("group %s: %w", cfg.Group, err)
	}
	return k, nil
}

func (k *keyed) join(ctx context.Context, cfg driver.SubscribeConfig) (err error) {
	c := k.topic.conn
	if k.plain, err = k.topic.newMember(ctx, cfg, []string{k.topic.topic}); err != nil {
		return err
	}
	if err := k.ensureSlots(ctx, cfg); err != nil {
		return err
	}
	if err := c.ensureGroups(ctx); err != nil {
		return err
	}
	if k.nudges, err = c.nc.Subscribe(k.subject, func(*nats.Msg) { k.nudge() }); err != nil {
		return kind(err)
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

// abort ends what join has begun.
func (k *keyed) abort() {
	k.cancel()
	close(k.steward) // it was not begun
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
	return k.topic.ensureConsumer(ctx, cfg, slotConsumer(k.name, n), []string{partitionSubject(k.topic.topic, n)}, slotLease)
}

// ensureGroups makes the stream of rosters.
func (c *Conn) ensureGroups(ctx context.Context) error {
	return c.state.do(ctx, func(ctx context.Context) error {
		_, err := c.js.Stream(ctx, groupsStream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = c.js.CreateStream(ctx, jetstream.StreamConfig{
				Name: groupsStream, Description: "members of groups of hark that keep the order of keys",
				Subjects: []string{rosterSubject + ">"}, MaxMsgsPerSubject: 1, Replicas: c.opts.replicas,
				Storage: jetstream.FileStorage, MaxMsgs: -1, MaxBytes: -1, Discard: jetstream.DiscardOld,
			})
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				err = nil
			}
		}
		return passing(err)
	})
}

// passing marks errors of JetStream's API that are those of a moment.
func passing(err error) error {
	if errors.Is(err, jetstream.ErrNoStreamResponse) || isUnavailable(err) {
		return fmt.Errorf("%w: %w", driver.ErrAgain, err)
	}
	return err
}

func (k *keyed) nudge() {
	select {
	case k.nudged <- struct{}{}:
	default:
	}
}

func (k *keyed) lease() time.Duration { return k.topic.conn.opts.lease }

// keepRoster looks at the roster when it changes, and now and then says that this
// member lives.
func (k *keyed) keepRoster() {
	defer close(k.steward)
	tick := time.NewTicker(k.lease() / 3)
	defer tick.Stop()
	for {
		renew := false
		select {
		case <-tick.C:
			renew = true
		case <-k.nudged:
		case <-k.ctx.Done():
			return
		}
		if err := k.agree(k.ctx, renew); err != nil {
			k.fail(k.ctx, err)
			return
		}
	}
}

// fresh waits until the other members have heard of this one so recently that its
// slots are its own. It reports false if ctx ends.
func (k *keyed) fresh(ctx context.Context) bool {
	for {
		k.mu.Lock()
		fresh, renewal := time.Since(k.renewed) < k.lease()*2/3, k.renewal
		k.mu.Unlock()
		if fresh {
			return ctx.Err() == nil
		}
		select {
		case <-renewal:
		case <-ctx.Done():
			return false
		}
	}
}

// errChanged says that somebody else has replaced the roster.
var errChanged = errors.New("the roster has changed")

// agree makes the roster what it should be as this member sees it, and then the
// slots of this member what the roster says. With renew it says that this member
// lives.
func (k *keyed) agree(ctx context.Context, renew bool) error {
	k.agreeing.Lock()
	defer k.agreeing.Unlock()
	return k.replaceRoster(ctx, func(r *roster) (changed bool) {
		return k.propose(r, renew)
	}, k.apply)
}

// replaceRoster reads the roster, lets change it and stores what has changed,
// again if somebody else was faster. Then it calls use.
func (k *keyed) replaceRoster(ctx context.Context, change func(*roster) bool, use func(*roster, time.Time)) error {
	return k.topic.conn.state.do(ctx, func(ctx context.Context) error {
		for {
			began := time.Now()
			r, seq, err := k.loadRoster(ctx)
			if err != nil {
				return err
			}
			if change(r) {
				switch err := k.storeRoster(ctx, r, seq); {
				case errors.Is(err, errChanged):
					continue
				case err != nil:
					return err
				}
			} else {
				began = time.Time{}
			}
			use(r, began)
			return nil
		}
	})
}

func (k *keyed) loadRoster(ctx context.Context) (*roster, uint64, error) {
	r := newRoster()
	stream, err := k.topic.conn.js.Stream(ctx, groupsStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, 0, errors.Join(driver.ErrAgain, k.topic.conn.ensureGroups(ctx))
	}
	if err != nil {
		return nil, 0, passing(err)
	}
	m, err := stream.GetLastMsgForSubject(ctx, k.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return r, 0, nil
	}
	if err != nil {
		return nil, 0, passing(err)
	}
	if err := json.Unmarshal(m.Data, r); err != nil {
		return nil, 0, fmt.Errorf("the roster in stream %s, subject %s: %w", groupsStream, k.subject, err)
	}
	return r, m.Sequence, nil
}

func (k *keyed) storeRoster(ctx context.Context, r *roster, seq uint64) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	m := nats.NewMsg(k.subject)
	m.Data = data
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	_, err = k.topic.conn.js.PublishMsg(ctx, m)
	switch apiCode(err) {
	case 10071, 10164: // another sequence, or one that is just being written
		return errChanged
	}
	return passing(err)
}

// propose changes a roster into what it should be, and reports whether it did.
func (k *keyed) propose(r *roster, renew bool) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, member := range k.pulses.silent(r, time.Now(), k.lease()) {
		if member != k.id {
			delete(r.Members, member)
			changed = true
		}
	}
	beat, known := r.Members[k.id]
	r.Members[k.id] = beat
	changed = changed || renew || !known
	changed = r.orphans() || changed
	held := 0
	for n := range r.Slots {
		if r.Slots[n].Owner != k.id {
			continue
		}
		switch s := k.slots[n]; {
		case s == nil || !s.isLeaving():
			held++
		case s.settled():
			r.Slots[n] = s.state()
			changed = true
		}
	}
	free := func(n int) bool { return k.slots[n] == nil }
	changed = r.claim(k.id, r.quota(k.id)-held, free) || changed
	if changed {
		r.Members[k.id] = beat + 1 // whoever writes lives
	}
	return changed
}

// apply makes the slots of this member what the roster says. stored is when it
// was replaced by this member, if it was.
func (k *keyed) apply(r *roster, stored time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ctx.Err() != nil {
		return
	}
	if !stored.IsZero() {
		k.renewed = stored
		close(k.renewal)
		k.renewal = make(chan struct{})
	}
	excess := -r.quota(k.id)
	for n := range r.Slots {
		s, mine := k.slots[n], r.Slots[n].Owner == k.id
		switch {
		case mine && s == nil:
			k.slots[n] = k.takeSlot(n, r.Slots[n])
			excess++
		case mine && !s.isLeaving():
			if excess++; excess > 0 {
				k.leave(s)
			}
		case !mine && s != nil && s.isStopped():
			delete(k.slots, n)
		case !mine && s != nil && !s.isLeaving(): // it was taken away
			k.leave(s)
		}
	}
}

// leave stops taking messages of a slot, and looks at the roster when it has.
func (k *keyed) leave(s *slot) {
	s.beginLeaving()
	k.sources.Go(func() {
		s.stop(k.ctx)
		k.nudge()
	})
}

// depth is how many messages of a slot may be on their way.
func (k *keyed) depth() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(k.window/max(len(k.slots), 1), 1)
}

// fail ends the subscription: Receive returns err.
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

// pumpPlain takes the messages without a key.
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
		if !k.hand(k.ctx, rs) {
			return
		}
	}
}

// hand gives messages to Receive. It reports false if ctx ended: then they have
// been returned.
func (k *keyed) hand(ctx context.Context, rs []*driver.Received) bool {
	k.queued.Add(int64(len(rs)))
	extend := time.NewTicker(k.lease() / 3)
	defer extend.Stop()
	for {
		select {
		case k.arrived <- rs:
			return true
		case <-extend.C:
			_ = k.Extend(ctx, rs) // or they come again, perhaps to another member
		case <-ctx.Done():
			k.queued.Add(-int64(len(rs)))
			_ = k.Return(context.Background(), rs) // or their lease ends
			return false
		}
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

// split divides messages into those without a key and those of slots.
func (k *keyed) split(ms []*driver.Received) (plain []*driver.Received, hands []*slotHand) {
	for _, m := range ms {
		if h, ok := m.Token.(*slotHand); ok {
			hands = append(hands, h)
		} else {
			plain = append(plain, m)
		}
	}
	return plain, hands
}

// Ack implements driver.Subscription.
func (k *keyed) Ack(ctx context.Context, ms []*driver.Received) error {
	plain, hands := k.split(ms)
	nc := k.topic.conn.nc
	for _, h := range hands {
		// If the connection is lost with it the message comes again, and is known.
		if err := nc.Publish(h.subject(), sayDone); err != nil && k.topic.conn.state.isClosed() {
			return kind(err)
		}
		if h.finish(true) {
			k.nudge()
		}
	}
	return k.plain.Ack(ctx, plain)
}

// Extend implements driver.Subscription. Messages of slots need not be extended.
func (k *keyed) Extend(ctx context.Context, ms []*driver.Received) error {
	plain, _ := k.split(ms)
	return k.plain.Extend(ctx, plain)
}

// Return implements driver.Subscription. Slots of which something is returned go
// to whoever is free.
func (k *keyed) Return(ctx context.Context, ms []*driver.Received) error {
	plain, hands := k.split(ms)
	k.mu.Lock()
	for _, h := range hands {
		if h.finish(false) {
			k.nudge()
		}
		if s := h.slot; k.slots[s.number] == s && !s.isLeaving() && k.ctx.Err() == nil {
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
	t := k.topic
	lag := driver.Lag{Members: 1}
	err := t.conn.state.do(ctx, func(ctx context.Context) error {
		stream, err := t.conn.js.Stream(ctx, t.stream)
		if err != nil {
			return t.consumerError(ctx, err)
		}
		names := map[string]bool{k.plain.consumer: true}
		for n := range partitions {
			names[slotConsumer(k.name, n)] = true
		}
		waiting := uint64(0)
		infos := stream.ListConsumers(ctx)
		for info := range infos.Info() {
			if names[info.Name] {
				waiting += info.NumPending
			}
		}
		lag.Waiting = waiting
		return infos.Err()
	})
	if err != nil {
		return lag, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	lag.Waiting += uint64(max(k.queued.Load(), 0)) + uint64(len(k.plain.puller.msgs))
	for _, s := range k.slots {
		lag.Waiting += uint64(len(s.puller.msgs))
	}
	lag.Members = max(len(k.pulses), 1)
	return lag, nil
}

// Close implements driver.Subscription.
func (k *keyed) Close(ctx context.Context) error {
	c := k.topic.conn
	k.cancel()
	go func() {
		for range k.arrived { // what nobody receives any more stays in hand
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
		return err // the others notice
	}
	return errors.Join(err, k.replaceRoster(ctx, k.resign, func(*roster, time.Time) { clear(k.slots) }))
}

// resign takes this member out of a roster.
func (k *keyed) resign(r *roster) (changed bool) {
	_, changed = r.Members[k.id]
	delete(r.Members, k.id)
	for n := range r.Slots {
		if s := k.slots[n]; r.Slots[n].Owner == k.id && s != nil {
			r.Slots[n] = s.state()
		}
	}
	return r.orphans() || changed
}
