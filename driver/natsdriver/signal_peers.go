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

// What connections tell each other about signals, as text: a word and its
// arguments.
const (
	notifyWord = "notify" // sender, number, target
	helloWord  = "hello"  // sender
	readyWord  = "ready"  // sender, number
	byeWord    = "bye"    // sender

	answerWord = "answer" // number, how many listeners were reached
	hereWord   = "here"   // in answer to hello
	probeWord  = "probe"  // number of a signal
	pastWord   = "past"   // in answer to probe, with its number
	rollWord   = "roll"   // IDs
)

const (
	// A request to rollSubject is answered with the list of one of the connections
	// that have one.
	rollSubject = "$HARK.roll"
	rollToken   = "roll" // stands for a sender
	rollGroup   = "hark"
	// rollTimeout is how long one of them has to answer, and rollCalls how many
	// are asked.
	rollTimeout = 500 * time.Millisecond
	rollCalls   = 3

	// maxPeers is how many other connections are tracked, and maxPeerID how long the ID
	// of one can be, such that the list of all of them fits into a message.
	maxPeers  = 16384
	maxPeerID = 32
	// repeatedSignals is how far behind the newest signal of a connection one that comes
	// again can be.
	repeatedSignals = 1 << 16
)

// peerList tracks which other connections listen, so that Notify knows whose
// answers to wait for. A server puts all messages in one order, the same for every
// receiver: when a signal has come back to its sender, the sender knows everyone
// who said hello before it. A newcomer subscribes, says hello, and then asks
// somebody for everyone who said hello earlier. With several servers the list is
// complete a moment later; a connection missing from it is still signalled.
type peerList struct {
	id string // our own; one token

	saying sync.Mutex // guards last; held until the message with that number has been sent
	last   uint64     // number of the last ask

	mu    sync.Mutex // guards the fields below
	peers map[string]*peer
	asks  map[uint64]*ask
	calls chan struct{} // has a token when the answer to a roll call has come
	roll  *nats.Subscription
}

// peer is another connection that listens.
type peer struct {
	last uint64 // number of its newest signal
	late bool   // it has not answered in time, and has said nothing since
}

func (o *peerList) init() {
	o.id, o.peers, o.asks, o.calls = rand.Text()[:16], map[string]*peer{}, map[uint64]*ask{}, make(chan struct{}, 1)
}

// isPeerID reports whether a connection can have this ID. To any other, nothing can be
// sent that it would answer.
func isPeerID(id string) bool {
	return id != rollToken && len(id) <= maxPeerID && isToken(id)
}

// words encodes what this connection says.
func (o *peerList) words(word string, more ...string) []byte {
	return []byte(strings.Join(append([]string{word, o.id}, more...), " "))
}

// inbox is the subject on which another connection talks to this one.
func (o *peerList) inbox(from string) string { return signalPrefix + o.id + "." + from }

// outbox is the subject on which this connection talks to another.
func (o *peerList) outbox(to string) string { return signalPrefix + to + "." + o.id }

// hear notes that a connection exists.
func (o *peerList) hear(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hearLocked(id).late = false
}

// hearLocked returns what is known of a connection. One that finds the list full is not
// tracked: it gets signals, and Notify does not wait for its answers.
func (o *peerList) hearLocked(id string) *peer {
	p := o.peers[id]
	if p == nil {
		if p = (&peer{}); len(o.peers) < maxPeers {
			o.peers[id] = p
		}
	}
	return p
}

// isNew reports whether a signal from another connection has not come before. If its
// number is far below that of the newest one, the latter was somebody else's.
func (o *peerList) isNew(id string, seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.hearLocked(id)
	p.late = false
	if seq <= p.last && p.last-seq < repeatedSignals {
		return false
	}
	p.last = seq
	return true
}

// drop notes that a connection is gone.
func (o *peerList) drop(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.peers, id)
	for _, a := range o.asks {
		a.lessLocked(id)
	}
}

// everybody returns all IDs, including our own.
func (o *peerList) everybody() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(append(slices.Collect(maps.Keys(o.peers)), o.id), " ")
}

// called takes the answer to a roll call.
func (o *peerList) called(ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		if id != o.id && isPeerID(id) {
			o.hearLocked(id)
		}
	}
	select {
	case o.calls <- struct{}{}:
	default:
	}
}

// say sends something that comes back to us, with the next number. Numbers are sent
// in order.
func (s *signals) say(a *ask, word, rest string) error {
	s.saying.Lock()
	defer s.saying.Unlock()
	s.mu.Lock()
	delete(s.asks, a.seq) // from the previous attempt
	s.last++
	a.seq = s.last
	s.asks[a.seq] = a
	s.mu.Unlock()
	return s.conn.nc.Publish(signalSubject, s.words(word, strconv.FormatUint(a.seq, 10), rest))
}

func (o *peerList) forget(a *ask) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.asks, a.seq)
}

// came notes that an ask has come back to us.
func (o *peerList) came(number string) {
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

// answered takes the answer to an ask: its number, and how many listeners were
// reached.
func (o *peerList) answered(id, rest string) {
	number, count, _ := strings.Cut(rest, " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	reached, err2 := strconv.ParseUint(count, 10, 31)
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.asks[seq]
	if err != nil || err2 != nil || a == nil {
		return
	}
	a.reached += int(reached)
	if a.missing != nil {
		a.lessLocked(id)
		return
	}
	if a.early == nil {
		a.early = map[string]bool{}
	}
	a.early[id] = true
}

// past notes that a connection has handled everything said to it up to and
// including the ask with a given number. If it has not answered that ask, it did
// not receive it.
func (o *peerList) past(id, number string) {
	seq, err := strconv.ParseUint(number, 10, 64)
	o.mu.Lock()
	defer o.mu.Unlock()
	if a := o.asks[seq]; err == nil && a != nil {
		a.lessLocked(id)
	}
}

// lessLocked stops waiting for a connection.
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

func (o *peerList) reached(a *ask) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return a.reached
}

// absent returns the connections that have not answered.
func (o *peerList) absent(a *ask) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(a.missing))
}

// giveUp notes that those who have not answered need not be waited for until they
// say something again.
func (o *peerList) giveUp(a *ask) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range a.missing {
		if p := o.peers[id]; p != nil {
			p.late = true
		}
	}
}

// probe asks those who have not answered whether they still will. For a connection
// that is gone the server answers; one that missed the signal while it was
// disconnected says that it is past it.
func (s *signals) probe(a *ask) {
	probe := []byte(probeWord + " " + strconv.FormatUint(a.seq, 10))
	for _, id := range s.absent(a) {
		_ = s.conn.nc.PublishRequest(s.outbox(id), s.inbox(id), probe) // it will be asked again
	}
}

// join makes this connection and the others known to each other.
func (s *signals) join(ctx context.Context) error {
	return s.conn.state.do(ctx, func(ctx context.Context) error {
		nc := s.conn.nc
		if err := nc.Publish(signalSubject, s.words(helloWord)); err != nil {
			return err
		}
		for range rollCalls {
			// First ask those who have a list, which may include us when we join
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
		// When this comes back, everything said to us before it has been answered.
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

// toldRoll waits until the answer to a roll call has come.
func (s *signals) toldRoll(ctx context.Context) (bool, error) {
	late := time.NewTimer(rollTimeout)
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

// enroll makes this connection answer roll calls.
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
		_ = s.roll.Unsubscribe() // nothing to do if the connection is closed
	}
}
