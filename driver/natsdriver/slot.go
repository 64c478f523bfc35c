package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// slotLease is how long the server waits for a message of a slot to be done: a
// slot has one owner, and who takes it over makes the server begin again.
const slotLease = 24 * time.Hour

// slotDepth is how many messages of a slot are on their way to its owner: nobody
// else may have them, so it is not for the window to limit them.
const slotDepth = 64

// slot is a part of a group that this member has: the messages of a partition, in
// order, by a consumer of its own.
type slot struct {
	group    *keyed
	number   int
	consumer string
	puller   *puller
	cancel   context.CancelFunc // ends run
	done     chan struct{}      // closed when run has returned

	mu       sync.Mutex // guards what follows
	made     time.Time  // when the stream was whose sequences follow
	epoch    uint64     // of the connection by which it was found
	next     uint64     // the next message of the consumer, by its count
	stray    int        // messages that may come before it: on their way when it was reset
	hands    map[uint64]*slotHand
	last     uint64              // the last message that was in hand, here or before
	left     map[uint64]struct{} // of those up to last, the ones that are not done
	leaving  bool                // nothing more is to be taken
	stopped  bool                // nothing more is taken
	acked    string              // the last message acknowledged, by its reply subject
	returned int                 // of hands
}

// slotHand is a message of a slot that is in hand.
type slotHand struct {
	slot     *slot
	seq      uint64
	reply    string
	returned bool
}

// slotConsumer is the name of the consumer of a slot of a group whose consumer for
// messages without a key has a name.
func slotConsumer(consumer string, n int) string { return fmt.Sprintf("%s~k%d", consumer, n) }

func (k *keyed) slotConsumer(n int) string {
	return slotConsumer(k.topic.home.consumer(k.topic.topic, k.name), n)
}

// takeSlot begins to receive the messages of a slot, of which the member is the
// owner now.
func (k *keyed) takeSlot(n int, was slotState) *slot {
	ctx, cancel := context.WithCancel(context.Background())
	s := &slot{
		group: k, number: n, consumer: k.slotConsumer(n), cancel: cancel, done: make(chan struct{}),
		hands: map[uint64]*slotHand{}, made: was.Made, last: was.Last, left: map[uint64]struct{}{},
	}
	for _, seq := range was.Left {
		s.left[seq] = struct{}{}
	}
	s.puller = newPuller(k.topic.conn, k.topic.stream, s.consumer)
	k.sources.Add(1)
	go s.run(ctx)
	return s
}

// run receives until ctx ends.
func (s *slot) run(ctx context.Context) {
	k := s.group
	defer k.sources.Done()
	defer close(s.done)
	if err := s.puller.open(ctx, slotDepth); err != nil {
		k.fail(ctx, err)
		return
	}
	for reset := true; ctx.Err() == nil; {
		if reset {
			if err := s.reset(ctx); err != nil {
				k.fail(ctx, err)
				return
			}
			reset = false
		}
		if !k.fresh(ctx) {
			return
		}
		ms, err := s.puller.nextMessages(ctx, k.share(), slotDepth)
		var rs []*driver.Received
		if err == nil {
			rs, err = s.read(ms)
		}
		if len(rs) > 0 && !k.hand(ctx, rs) {
			return
		}
		switch {
		case errors.Is(err, errCut), errors.Is(err, errWoken), errors.Is(err, errNoConsumer):
			s.puller.forgetRequests()
			// What was on its way has to come again, if the slot is still here.
			if err := k.agree(ctx, true); err != nil {
				k.fail(ctx, err)
				return
			}
			reset = true
			continue
		case err != nil:
			if ctx.Err() == nil && !errors.Is(err, driver.ErrEnded) {
				k.fail(ctx, err)
			}
			return
		}
	}
}

// reset makes the server give out again what is not done.
func (s *slot) reset(ctx context.Context) error {
	k := s.group
	t := k.topic
	return t.conn.state.do(ctx, func(ctx context.Context) error {
		epoch := t.conn.state.epoch()
		s.puller.empty() // it comes again, or is of a stream that is gone
		stream, consumer, err := s.find(ctx)
		gone := errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		if gone && t.wanted.Durability == driver.DurableMemory { // the server was started again and remembers nothing
			if err := t.open(ctx); err != nil {
				return err
			}
			if err := k.ensureSlot(ctx, s.number, driver.SubscribeConfig{Group: k.name, From: driver.FromStart}); err != nil {
				return err
			}
			stream, consumer, err = s.find(ctx)
		}
		if err != nil {
			return t.consumerError(ctx, err)
		}
		info := consumer.CachedInfo()
		s.found(stream.CachedInfo(), epoch)
		if info.NumAckPending == 0 {
			s.expect(info.Delivered.Consumer+1, 0)
			return nil
		}
		s.expect(1, 4*slotDepth)
		if t.conn.level < levelReset {
			return s.replace(ctx, info)
		}
		if _, err = stream.ResetConsumer(ctx, s.consumer); err != nil {
			return t.consumerError(ctx, err)
		}
		return nil
	})
}

// find returns the stream and the consumer of the slot.
func (s *slot) find(ctx context.Context) (stream jetstream.Stream, consumer jetstream.Consumer, err error) {
	t := s.group.topic
	if stream, err = t.conn.api(ctx).Stream(ctx, t.stream); err == nil {
		consumer, err = stream.Consumer(ctx, s.consumer)
	}
	return stream, consumer, err
}

// found notes which stream is there now. If it is another one than before, its sequences
// begin anew: what is known of those of the former one says nothing about them, whoever
// has made the stream and the consumer again.
func (s *slot) found(info *jetstream.StreamInfo, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	another := !s.made.IsZero() && !s.made.Equal(info.Created)
	// A cluster makes one in memory again as if it were the same.
	if another || s.group.topic.inMemory() && info.State.LastSeq < s.last {
		s.last, s.acked, s.returned = 0, "", 0
		clear(s.left)
		clear(s.hands)
	}
	s.made, s.epoch = info.Created, epoch
}

// expect sets which message of the consumer is the next one, and how many others may
// come before it.
func (s *slot) expect(next uint64, stray int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.stray = next, stray
}

// replace is reset for servers that cannot: another consumer of that name begins
// behind what is done.
func (s *slot) replace(ctx context.Context, info *jetstream.ConsumerInfo) error {
	t := s.group.topic
	if err := t.conn.api(ctx).DeleteConsumer(ctx, t.stream, s.consumer); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return t.consumerError(ctx, err)
	}
	return s.group.ensureSlot(ctx, s.number, driver.SubscribeConfig{Group: s.group.name, From: driver.FromSeq, Seq: info.AckFloor.Stream + 1})
}

// read takes messages into its hands. What is done already, or in hand, has come
// again after a reset. It returns errCut, and perhaps messages, where what follows may
// not be what reset has found.
func (s *slot) read(ms []*nats.Msg) ([]*driver.Received, error) {
	epoch := s.group.topic.conn.state.epoch()
	rs, room := make([]*driver.Received, 0, len(ms)), make([]driver.Received, len(ms))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch { // perhaps nobody has been told yet that the connection was lost
		return nil, errCut
	}
	for i, m := range ms {
		r := &room[i]
		p, err := s.group.topic.receive(r, m)
		if err != nil {
			return nil, err
		}
		switch {
		case p.nth == s.next:
			s.next, s.stray = s.next+1, 0
		case s.stray > 0:
			s.stray--
			continue // it comes again
		default: // something is missing, or it is another consumer
			return rs, errCut
		}
		if h := s.hands[p.seq]; h != nil {
			h.reply = m.Reply
			continue
		}
		if _, left := s.left[p.seq]; !left && p.seq <= s.last {
			_ = s.group.topic.conn.nc.Publish(m.Reply, sayDone) // or it comes once more
			continue
		}
		delete(s.left, p.seq)
		s.last = max(s.last, p.seq)
		h := &slotHand{slot: s, seq: p.seq, reply: m.Reply}
		s.hands[p.seq], r.Token = h, h
		rs = append(rs, r)
	}
	return rs, nil
}

// confirm waits until the server has worked off what it was told of the slot.
func (s *slot) confirm(ctx context.Context) {
	c := s.group.topic.conn
	if !c.state.connected() {
		return
	}
	epoch := c.state.epoch()
	s.mu.Lock()
	acked := s.acked
	if s.epoch != epoch {
		acked = "" // perhaps the stream is another one
	}
	s.mu.Unlock()
	if acked == "" {
		return
	}
	wait, cancel := context.WithTimeout(ctx, closePatience)
	defer cancel()
	_, _ = c.nc.RequestWithContext(wait, acked, sayDone) // what it has not noted comes again, and is known
}

// stop takes no more messages. What has been given out and not taken will be
// given out again.
func (s *slot) stop(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	s.cancel()
	<-s.done
	_ = s.puller.stop(ctx) // what it has not taken by then comes again
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
}

// settled reports whether nobody has anything to do any more with a slot that
// takes no more messages.
func (s *slot) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settledLocked()
}

func (s *slot) settledLocked() bool { return s.stopped && s.returned == len(s.hands) }

func (s *slot) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// beginLeaving notes that stop is to be called.
func (s *slot) beginLeaving() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
}

func (s *slot) isLeaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// state is what a slot looks like to the next owner.
func (s *slot) state() slotState {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.Collect(maps.Keys(s.left))
	left = slices.AppendSeq(left, maps.Keys(s.hands))
	slices.Sort(left)
	return slotState{Made: s.made, Last: s.last, Left: left}
}

// finish notes that a message is done, or returned, and reports whether the slot
// is settled by that.
func (h *slotHand) finish(done bool) (settled bool) {
	s := h.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hands[h.seq] != h {
		return false
	}
	if done {
		if h.returned {
			s.returned--
		}
		delete(s.hands, h.seq)
		s.acked = h.reply
	} else if !h.returned {
		h.returned = true
		s.returned++
	}
	return s.settledLocked()
}

// subject is where to say that the message is done; empty where the connection was
// lost since the slot was reset. Then perhaps another message has the sequence, and
// the message, if it is there, comes again and is known.
func (h *slotHand) subject() string {
	epoch := h.slot.group.topic.conn.state.epoch()
	h.slot.mu.Lock()
	defer h.slot.mu.Unlock()
	if h.slot.epoch != epoch || h.slot.hands[h.seq] != h {
		return ""
	}
	return h.reply
}
