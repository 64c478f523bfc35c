package natsdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// This file is how the members of a group that keeps the order of keys agree on who
// has which slot.

// PrepareGroups creates what groups that keep the order of keys need, on behalf of
// users who may not create it.
func (c *Conn) PrepareGroups(ctx context.Context) error {
	if c.js == nil {
		return nil
	}
	return c.ensureGroups(ctx)
}

// ensureGroups makes the stream of rosters. The server republishes a roster once it
// is stored: a member that read the roster on seeing the original message might
// read the one before.
func (c *Conn) ensureGroups(ctx context.Context) error {
	return c.state.do(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, groupsStream)
		repeat := &jetstream.RePublish{Source: rosterSubject + ">", Destination: rosterNews + ">"}
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			_, err = c.api(ctx).CreateStream(ctx, jetstream.StreamConfig{
				Name: groupsStream, Description: "members of groups of hark that keep the order of keys",
				Subjects: []string{rosterSubject + ">"}, MaxMsgsPerSubject: 1, Replicas: c.opts.replicas,
				Storage: jetstream.FileStorage, MaxMsgs: -1, MaxBytes: -1, Discard: jetstream.DiscardOld,
				RePublish: repeat,
			})
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				err = nil
			}
		case err == nil && stream.CachedInfo().Config.RePublish == nil: // made by an older hark
			cfg := stream.CachedInfo().Config
			cfg.RePublish = repeat
			_, err = c.api(ctx).UpdateStream(ctx, cfg)
		}
		return passing(err)
	})
}

// keepRoster checks the roster when it changes, and now and then announces that
// this member lives.
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

// fresh waits until the other members have heard from this one recently enough for
// its slots to be its own. It reports false if ctx ends.
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

// agree updates the roster as this member thinks it should be, and then the slots
// of this member as the roster says. With renew it also announces that this member
// lives.
func (k *keyed) agree(ctx context.Context, renew bool) error {
	k.agreeing.Lock()
	defer k.agreeing.Unlock()
	return k.replaceRoster(ctx, func(r *roster) (changed bool) {
		return k.propose(r, renew)
	}, k.apply)
}

// replaceRoster reads the roster, applies change and stores the result, starting
// over if another member was faster. Then it calls use.
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
	stream, err := k.topic.conn.api(ctx).Stream(ctx, groupsStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, 0, errors.Join(driver.ErrAgain, k.topic.conn.ensureGroups(ctx))
	}
	if err != nil {
		return nil, 0, passing(err)
	}
	m, err := stream.GetLastMsgForSubject(ctx, k.subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return newRoster(), 0, nil
	case errors.Is(err, jetstream.ErrStreamNotFound): // the server that is to lead it has not made it yet
		return nil, 0, fmt.Errorf("%w: %w", driver.ErrAgain, err)
	case err != nil:
		return nil, 0, passing(err)
	}
	return readRoster(m.Data), m.Sequence, nil
}

// readRoster reads a roster. Of a group whose roster somebody else has overwritten
// with something else, nothing is known.
func readRoster(data []byte) *roster {
	r := newRoster()
	if err := json.Unmarshal(data, r); err != nil || r.Members == nil {
		return newRoster()
	}
	return r
}

func (k *keyed) storeRoster(ctx context.Context, r *roster, seq uint64) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	m := nats.NewMsg(k.subject)
	m.Data = data
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	watchSubject(ctx, m.Subject)
	_, err = k.topic.conn.api(ctx).PublishMsg(ctx, m)
	switch apiCode(err) {
	case codeWrongSequence, codeBeingWritten:
		return errChanged
	}
	return passing(err)
}

// propose changes a roster into what it should be, and reports whether it changed
// anything.
func (k *keyed) propose(r *roster, renew bool) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, member := range k.heartbeats.silent(r, time.Now(), k.lease()) {
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
		r.Members[k.id] = beat + 1 // a member that writes is alive
	}
	return changed
}

// apply makes the slots of this member match the roster. stored is when this member
// replaced the roster, if it did.
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
		case !mine && s != nil && !s.isLeaving(): // the slot was taken away
			k.leave(s)
		}
	}
}

// leave stops receiving from a slot, and then checks the roster.
func (k *keyed) leave(s *slot) {
	s.beginLeaving()
	k.sources.Go(func() {
		s.stop(k.ctx)
		k.nudge()
	})
}

// resign removes this member from a roster.
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
