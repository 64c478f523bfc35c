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

// slotLease is how long the server waits for a message of a slot to be done. It is
// long because a slot has one owner, and the next owner makes the server start
// again.
const slotLease = 24 * time.Hour

// slotDepth is how many messages of a slot are on their way to its owner. Nobody
// else may have them, so the window need not limit them.
const slotDepth = 256

// slot is a part of a group that this member owns: the messages of a partition, in
// order, from a consumer of their own.
type slot struct {
	group    *keyed
	number   int
	consumer string
	puller   *puller
	cancel   context.CancelFunc // ends run
	done     chan struct{}      // closed when run has returned

	mu         sync.Mutex // guards the fields below
	made       time.Time  // when the stream of the sequences below was made
	epoch      uint64     // epoch of the connection over which that was found
	next       uint64     // the consumer's count for the next message
	stray      int        // messages that may come before it: on their way at the reset
	deliveries map[uint64]*slotDelivery
	last       uint64              // the last message that was in flight, here or before
	at         time.Time           // when it was stored; zero if not known
	left       map[uint64]struct{} // sequences up to last that are not done
	leaving    bool                // no more messages should be taken
	stopped    bool                // no more messages are taken
	acked      string              // the last message acknowledged, by its reply subject
	returned   int                 // how many of deliveries
}

// slotDelivery is a message of a slot that is in flight.
type slotDelivery struct {
	slot     *slot
	seq      uint64
	reply    string
	returned bool
}

// slotConsumer returns the name of the consumer of a slot, given that of the
// group's consumer for messages without a key.
func slotConsumer(consumer string, n int) string { return fmt.Sprintf("%s~k%d", consumer, n) }

func (k *keyed) slotConsumer(n int) string {
	return slotConsumer(k.topic.backing.consumer(k.topic.topic, k.name), n)
}

// takeSlot starts to receive the messages of a slot that the member has come to
// own.
func (k *keyed) takeSlot(n int, was slotState) *slot {
	ctx, cancel := context.WithCancel(context.Background())
	s := &slot{
		group: k, number: n, consumer: k.slotConsumer(n), cancel: cancel, done: make(chan struct{}),
		deliveries: map[uint64]*slotDelivery{}, made: was.Made, last: was.Last, at: was.At, left: map[uint64]struct{}{},
	}
	for _, seq := range was.Left {
		s.left[seq] = struct{}{}
	}
	s.puller = newPuller(k.topic.conn, k.topic.stream, s.consumer, slotDepth)
	k.sources.Add(1)
	go s.run(ctx)
	return s
}

// run receives messages until ctx ends.
func (s *slot) run(ctx context.Context) {
	k := s.group
	defer k.sources.Done()
	defer close(s.done)
	if err := s.puller.open(ctx); err != nil {
		k.fail(ctx, err)
		return
	}
	// Once it is leaving, what it knows may no longer apply: the group may have been moved.
	for reset := true; ctx.Err() == nil && !s.isLeaving(); {
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
		ms, err := s.puller.nextMessages(ctx, k.window, slotDepth)
		var rs []*driver.Received
		if err == nil {
			rs, err = s.read(ms)
		}
		if len(rs) > 0 && !k.deliver(ctx, rs) {
			return
		}
		switch {
		case errors.Is(err, errCut), errors.Is(err, errWoken), errors.Is(err, errNoConsumer):
			s.puller.forgetRequests()
			// Messages that were on their way must come again, if the slot is still
			// ours.
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

// reset makes the server redeliver the messages that are not done.
func (s *slot) reset(ctx context.Context) error {
	k := s.group
	t := k.topic
	return t.conn.state.do(ctx, func(ctx context.Context) error {
		epoch := t.conn.state.epoch()
		s.puller.empty() // they come again, or belong to a stream that is gone
		stream, consumer, err := s.find(ctx)
		gone := errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		if gone && t.wanted.Durability == driver.DurableMemory { // the server was restarted and remembers nothing
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
		if err := s.found(ctx, stream.CachedInfo(), epoch); err != nil {
			return err
		}
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

// found records which stream is there. If it has been replaced, its sequences start
// anew, and what is known about those of the former stream does not apply to them,
// whoever recreated the stream and the consumer.
func (s *slot) found(ctx context.Context, info *jetstream.StreamInfo, epoch uint64) error {
	s.mu.Lock()
	made, last, at := s.made, s.last, s.at // nobody else changes them
	s.mu.Unlock()
	another, err := s.group.topic.isReplaced(ctx, info, made, last, at)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if another {
		s.last, s.at, s.acked, s.returned = 0, time.Time{}, "", 0
		clear(s.left)
		clear(s.deliveries)
	}
	s.made, s.epoch = info.Created, epoch
	return nil
}

// expect sets the consumer's count for the next message, and how many others may
// come before it.
func (s *slot) expect(next uint64, stray int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.stray = next, stray
}

// replace stands in for reset on servers that cannot reset: it recreates the
// consumer, with the same name, after the messages that are done.
func (s *slot) replace(ctx context.Context, info *jetstream.ConsumerInfo) error {
	t := s.group.topic
	if err := t.conn.api(ctx).DeleteConsumer(ctx, t.stream, s.consumer); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return t.consumerError(ctx, err)
	}
	return s.group.ensureSlot(ctx, s.number, driver.SubscribeConfig{Group: s.group.name, From: driver.FromSeq, Seq: info.AckFloor.Stream + 1})
}

// read takes messages in flight. Messages that are done or already in flight have come
// again after a reset. It returns errCut, possibly with messages, if what follows
// may differ from what reset found.
func (s *slot) read(ms []*nats.Msg) ([]*driver.Received, error) {
	epoch := s.group.topic.conn.state.epoch()
	rs, room := make([]*driver.Received, 0, len(ms)), make([]driver.Received, len(ms))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch { // the loss of the connection may not have been reported yet
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
		default: // a message is missing, or it is another consumer
			return rs, errCut
		}
		if d := s.deliveries[p.seq]; d != nil {
			d.reply = m.Reply
			continue
		}
		if _, left := s.left[p.seq]; !left && p.seq <= s.last {
			_ = s.group.topic.conn.nc.Publish(m.Reply, sayDone) // if it is lost, the message comes once more
			continue
		}
		delete(s.left, p.seq)
		if p.seq > s.last {
			s.last, s.at = p.seq, p.at
		}
		d := &slotDelivery{slot: s, seq: p.seq, reply: m.Reply}
		s.deliveries[p.seq], r.Token = d, d
		rs = append(rs, r)
	}
	return rs, nil
}

// confirm waits until the server has processed what it was told about the slot.
func (s *slot) confirm(ctx context.Context) {
	c := s.group.topic.conn
	if !c.state.connected() {
		return
	}
	epoch := c.state.epoch()
	s.mu.Lock()
	acked := s.acked
	if s.epoch != epoch {
		acked = "" // it may be another stream
	}
	s.mu.Unlock()
	if acked == "" {
		return
	}
	wait, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_, _ = c.nc.RequestWithContext(wait, acked, sayDone) // messages it has not recorded come again, and are recognised
}

// stop stops taking messages. Those sent but not taken will be delivered again.
func (s *slot) stop(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	s.cancel()
	<-s.done
	_ = s.puller.stop(ctx) // messages it has not taken by then come again
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
}

// settled reports whether a slot that takes no more messages has none in flight that
// might still be done.
func (s *slot) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settledLocked()
}

func (s *slot) settledLocked() bool { return s.stopped && s.returned == len(s.deliveries) }

func (s *slot) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// beginLeaving notes that stop will be called.
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

// state returns what the next owner needs to know about a slot.
func (s *slot) state() slotState {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.Collect(maps.Keys(s.left))
	left = slices.AppendSeq(left, maps.Keys(s.deliveries))
	slices.Sort(left)
	return slotState{Made: s.made, Last: s.last, At: s.at, Left: left}
}

// finish notes that a message is done, or returned, and reports whether that
// settles the slot.
func (d *slotDelivery) finish(done bool) (settled bool) {
	s := d.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deliveries[d.seq] != d {
		return false
	}
	if done {
		if d.returned {
			s.returned--
		}
		delete(s.deliveries, d.seq)
		s.acked = d.reply
	} else if !d.returned {
		d.returned = true
		s.returned++
	}
	return s.settledLocked()
}

// subject returns where to acknowledge the message, or "" if the connection was
// lost since the slot was reset. In that case its sequence may belong to another
// message; the message itself, if it still exists, comes again and is recognised.
func (d *slotDelivery) subject() string {
	epoch := d.slot.group.topic.conn.state.epoch()
	d.slot.mu.Lock()
	defer d.slot.mu.Unlock()
	if d.slot.epoch != epoch || d.slot.deliveries[d.seq] != d {
		return ""
	}
	return d.reply
}
