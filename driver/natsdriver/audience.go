package natsdriver

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// What is said about signals, as text: a word and what follows.
const (
	notifyWord = "notify" // sender, number, target
	helloWord  = "hello"  // sender
	readyWord  = "ready"  // sender, number
	byeWord    = "bye"    // sender

	answerWord = "answer" // number, how many were reached
	hereWord   = "here"   // in answer to hello
	probeWord  = "probe"  // number of a signal
	pastWord   = "past"   // in answer to probe, with its number
	rollWord   = "roll"   // IDs
)

const (
	// Who asks at rollSubject gets the list of one of those that have one.
	rollSubject = "$HARK.roll"
	rollToken   = "roll" // in place of a sender
	rollGroup   = "hark"
	// rollPatience is how long one of them gets, and rollCalls how many are
	// asked.
	rollPatience = 500 * time.Millisecond
	rollCalls    = 3
)

// audience knows which other connections listen, so that Notify knows for whose
// answers to wait. A server puts what is published in one order, in which all
// see it: who said hello before a signal is known when the signal has come back
// to its sender. A newcomer subscribes, says hello, and then asks somebody for
// all that said hello before. Where several servers carry the messages that
// holds a moment later; whoever is missing is still signalled.
type audience struct {
	id string // ours: one token

	saying sync.Mutex // guards last, held until what has that number is on its way
	last   uint64     // number of an ask

	mu    sync.Mutex // guards what follows
	peers map[string]*peer
	asks  map[uint64]*ask
	calls chan struct{} // has a token when a roll has been called
	roll  *nats.Subscription
}

// peer is another connection that listens.
type peer struct {
	last uint64 // number of the newest signal
	late bool   // it has not answered in time, and has said nothing since
}

func (o *audience) init() {
	o.id, o.peers, o.asks, o.calls = rand.Text()[:16], map[string]*peer{}, map[uint64]*ask{}, make(chan struct{}, 1)
}

// words returns what is said by us.
func (o *audience) words(word string, more ...string) []byte {
	return []byte(strings.Join(append([]string{word, o.id}, more...), " "))
}

// inbox is the subject of what another connection says to this one.
func (o *audience) inbox(from string) string { return signalPrefix + o.id + "." + from }

// outbox is the subject of what this connection says to another.
func (o *audience) outbox(to string) string { return signalPrefix + to + "." + o.id }

// hear notes that a connection is there.
func (o *audience) hear(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hearLocked(id).late = false
}

func (o *audience) hearLocked(id string) *peer {
	p := o.peers[id]
	if p == nil {
		p = &peer{}
		o.peers[id] = p
	}
	return p
}

// isNew reports whether a signal of another connection comes for the first time.
func (o *audience) isNew(id string, seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.hearLocked(id)
	p.late = false
	if seq <= p.last {
		return false
	}
	p.last = seq
	return true
}

// drop notes that a connection is not there any more.
func (o *audience) drop(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.peers, id)
	for _, a := range o.asks {
		a.lessLocked(id)
	}
}

// everybody returns all IDs, ours too.
func (o *audience) everybody() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(append(slices.Collect(maps.Keys(o.peers)), o.id), " ")
}

// called takes the answer to a call of the roll.
func (o *audience) called(ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		if id != o.id {
			o.hearLocked(id)
		}
	}
	select {
	case o.calls <- struct{}{}:
	default:
	}
}

// say says something that comes back, with the next number. Numbers go out in
// their order.
func (s *signals) say(a *ask, word, rest string) error {
	s.saying.Lock()
	defer s.saying.Unlock()
	s.mu.Lock()
	delete(s.asks, a.seq) // of the attempt before
	s.last++
	a.seq = s.last
	s.asks[a.seq] = a
	s.mu.Unlock()
	return s.conn.nc.Publish(signalSubject, s.words(word, strconv.FormatUint(a.seq, 10), rest))
}

func (o *audience) forget(a *ask) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.asks, a.seq)
}

// came notes that an ask has come back to us.
func (o *audience) came(number string) {
	seq, err := strconv.ParseUint(number, 10, 64)
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.asks[seq]
	if err != nil || a == nil || a.missing != nil {
		return
	}
	close(a.back)
	a.missing = map[string]bool{}
	for id, p := range o.peers {
		if !p.late && !a.early[id] {
			a.missing[id] = true
		}
	}
	a.settleLocked()
}

// answered takes the answer to an ask: its number and how many were reached.
func (o *audience) answered(id, rest string) {
	number, count, _ := strings.Cut(rest, " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	reached, err2 := strconv.Atoi(count)
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.asks[seq]
	if err != nil || err2 != nil || a == nil {
		return
	}
	a.reached += reached
	if a.missing != nil {
		a.lessLocked(id)
		return
	}
	if a.early == nil {
		a.early = map[string]bool{}
	}
	a.early[id] = true
}

// past notes that a connection has looked at all that was said to it up to an
// ask, whose number is given, and beyond: if it has not answered it did not get
// it.
func (o *audience) past(id, number string) {
	seq, err := strconv.ParseUint(number, 10, 64)
	o.mu.Lock()
	defer o.mu.Unlock()
	if a := o.asks[seq]; err == nil && a != nil {
		a.lessLocked(id)
	}
}

// lessLocked waits for that connection no more.
func (a *ask) lessLocked(id string) {
	if a.missing[id] {
		delete(a.missing, id)
		a.settleLocked()
	}
}

func (a *ask) settleLocked() {
	if len(a.missing) == 0 {
		close(a.done)
	}
}

func (o *audience) reached(a *ask) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return a.reached
}

// absent returns who has not answered.
func (o *audience) absent(a *ask) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(a.missing))
}

// giveUp notes that those who have not answered need not be waited for until
// they say something.
func (o *audience) giveUp(a *ask) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range a.missing {
		if p := o.peers[id]; p != nil {
			p.late = true
		}
	}
}

// probe asks those who have not answered whether they still will: for one that
// is gone the server answers, and one that missed the signal while it had no
// connection says that it is past it.
func (s *signals) probe(a *ask) {
	question := []byte(probeWord + " " + strconv.FormatUint(a.seq, 10))
	for _, id := range s.absent(a) {
		_ = s.conn.nc.PublishRequest(s.outbox(id), s.inbox(id), question) // it is asked again
	}
}

// join makes this connection known to the others and them to it.
func (s *signals) join(ctx context.Context) error {
	return s.conn.state.do(ctx, func(ctx context.Context) error {
		nc := s.conn.nc
		if err := nc.Publish(signalSubject, s.words(helloWord)); err != nil {
			return err
		}
		for range rollCalls {
			// Those who have a list are asked, which we are among when we join
			// again; then the others answer our hello.
			if err := nc.PublishRequest(rollSubject, s.inbox(rollToken), nil); err != nil {
				return err
			}
			if told, err := s.toldRoll(ctx); err != nil {
				return err
			} else if told {
				break
			}
		}
		if err := s.enroll(); err != nil {
			return err
		}
		// What has been said to us so far is answered when this is back.
		a := newAsk()
		defer s.forget(a)
		if err := s.say(a, readyWord, ""); err != nil {
			return err
		}
		select {
		case <-a.back:
			return nc.FlushWithContext(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// toldRoll waits until somebody has called the roll.
func (s *signals) toldRoll(ctx context.Context) (bool, error) {
	late := time.NewTimer(rollPatience)
	defer late.Stop()
	select {
	case <-s.calls:
		return true, nil
	case <-late.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// enroll makes this connection one that can call the roll.
func (s *signals) enroll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roll != nil {
		return nil
	}
	sub, err := s.conn.nc.ChanQueueSubscribe(rollSubject, rollGroup, s.msgs)
	s.roll = sub
	return err
}

func (s *signals) unroll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roll != nil {
		_ = s.roll.Unsubscribe() // with a connection that is closed there is nothing to do
	}
}
