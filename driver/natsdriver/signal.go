package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

const (
	// Every listening connection subscribes to signalSubject. A message for one of
	// them goes to signalPrefix, its ID and the ID of the sender.
	signalSubject = "$HARK.signal"
	signalPrefix  = signalSubject + "."
	// signalWindow is how many messages may wait to be handled.
	signalWindow = 16384
	// After firstProbe, and then every nextProbe, Notify asks the server whether
	// the connections that have not answered still exist.
	firstProbe = 5 * time.Millisecond
	nextProbe  = 100 * time.Millisecond
	// signalTimeout is how long Notify waits for an answer. It is counted in
	// probes, so that a process that was suspended meanwhile does not blame the
	// others.
	signalTimeout = 2 * time.Second
)

var (
	errNotListening = errors.New("the connection does not listen")
	errSignalUnsure = fmt.Errorf("%w: the connection was lost while the signal was sent", driver.ErrUnsure)
)

// signals is the listening side of a connection: what it hears and says.
type signals struct {
	inlet
	peerList
	f       func(driver.Signal) int
	telling sync.Mutex // held while f runs

	latches latches
	ctx     context.Context // of the goroutines
	cancel  context.CancelFunc
}

// Listen implements driver.Signals.
func (c *Conn) Listen(ctx context.Context, f func(driver.Signal) int) error {
	if c.nc.Opts.NoEcho {
		return errors.New("the client has the option NoEcho; signals need their own messages back, so connect without it")
	}
	s := &signals{inlet: newInlet(c, signalWindow), f: f}
	s.peerList.init()
	s.latches.init(s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if !c.signals.CompareAndSwap(nil, s) {
		return errors.New("the connection listens already")
	}
	if err := s.listen(ctx); err != nil {
		s.end()
		c.signals.Store(nil)
		return err
	}
	return nil
}

func (s *signals) listen(ctx context.Context) error {
	c := s.conn
	if err := s.begin(ctx, []string{signalSubject, s.inbox("*")}, ""); err != nil {
		return err
	}
	if err := c.add(s); err != nil {
		return err
	}
	if !c.spawn(s.serve) {
		return errConnClosed
	}
	if err := s.join(ctx); err != nil {
		return err
	}
	if !c.spawn(s.stay) {
		return errConnClosed
	}
	if c.js == nil {
		return nil
	}
	if !c.spawn(s.latches.follow) {
		return errConnClosed
	}
	return s.latches.await(ctx)
}

// spawn runs f in a goroutine that ends with the connection. It returns false if
// the connection is closed.
func (c *Conn) spawn(f func()) bool {
	if !c.begin() {
		return false
	}
	go func() {
		defer c.tasks.Done()
		f()
	}()
	return true
}

// tell calls f.
func (s *signals) tell(sig driver.Signal) int {
	s.telling.Lock()
	defer s.telling.Unlock()
	return s.f(sig)
}

// end stops taking signals and makes the goroutines end.
func (s *signals) end() {
	s.cancel()
	s.inlet.end()
	s.unroll()
	s.conn.remove(s)
}

// Close says bye to the others.
func (s *signals) Close(context.Context) error {
	if s.conn.state.connected() && s.ctx.Err() == nil {
		_ = s.conn.nc.Publish(signalSubject, s.words(byeWord)) // it only saves others a wait
	}
	s.end()
	return nil
}

// serve handles messages until the end.
func (s *signals) serve() {
	for {
		ms, err := s.next(s.ctx, 256)
		if err != nil {
			return
		}
		for _, m := range ms {
			s.take(m)
		}
	}
}

// stay joins again each time the connection has been lost.
func (s *signals) stay() {
	state := s.conn.state
	live := state.present()
	for {
		select {
		case <-live.Done():
		case <-s.ctx.Done():
			return
		}
		if state.await(s.ctx) != nil {
			return
		}
		live = state.present()
		if s.join(s.ctx) != nil {
			return
		}
	}
}

// ask is a message of ours that is to be answered.
type ask struct {
	seq  uint64        // its number in the latest attempt
	back chan struct{} // closed when it has come back to us
	done chan struct{} // closed when no answers are missing
	// Guarded by peerList.mu.
	reached int
	early   map[string]bool // who answered before it came back
	missing map[string]bool // who has yet to answer; nil until it has come back
}

func newAsk() *ask { return &ask{back: make(chan struct{}), done: make(chan struct{})} }

// Notify implements driver.Signals. The signal comes back to this connection too.
// By then everything that others published before it has come, so it is known who
// has joined.
func (c *Conn) Notify(ctx context.Context, target string) (int, error) {
	s := c.signals.Load()
	if s == nil {
		return 0, errNotListening
	}
	a := newAsk()
	defer s.forget(a)
	var live context.Context
	err := c.state.do(ctx, func(context.Context) error {
		live = c.state.present()
		return s.say(a, notifyWord, target)
	})
	if err != nil {
		return 0, err
	}
	probe := time.NewTimer(firstProbe)
	defer probe.Stop()
	for probes := 0; ; {
		select {
		case <-a.done:
			return s.reached(a), nil
		case <-probe.C:
			if probes++; probes > int(signalTimeout/nextProbe) {
				s.giveUp(a)
				return s.reached(a), nil
			}
			s.probe(a)
			probe.Reset(nextProbe)
		case <-ctx.Done():
			return s.reached(a), nil
		case <-live.Done():
			select {
			case <-a.back:
				return s.reached(a), nil
			default:
				return s.reached(a), errSignalUnsure
			}
		}
	}
}

// notified handles a signal of another connection and answers it.
func (s *signals) notified(from, rest string) {
	number, target, _ := strings.Cut(rest, " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !s.isNew(from, seq) {
		return
	}
	reached := s.tell(driver.Signal{Target: target})
	// Without a connection the answer is of no use.
	_ = s.conn.nc.Publish(s.outbox(from), []byte(answerWord+" "+number+" "+strconv.Itoa(reached)))
}

// take handles a message.
func (s *signals) take(m *nats.Msg) {
	if m.Subject == rollSubject {
		_ = m.Respond([]byte(rollWord + " " + s.everybody())) // if it is lost, the newcomer asks again
		return
	}
	if m.Subject != signalSubject {
		s.takeOwn(m)
		return
	}
	word, rest, _ := strings.Cut(string(m.Data), " ")
	from, rest, _ := strings.Cut(rest, " ")
	if !isPeerID(from) {
		return
	}
	if from == s.id {
		if seq, _, _ := strings.Cut(rest, " "); seq != "" {
			s.came(seq)
		}
		return
	}
	switch word {
	case notifyWord:
		s.notified(from, rest)
	case helloWord:
		s.hear(from)
		_ = s.conn.nc.Publish(s.outbox(from), []byte(hereWord)) // otherwise the next signal makes us known
	case byeWord:
		s.drop(from)
	}
}

// takeOwn handles a message for this connection alone.
func (s *signals) takeOwn(m *nats.Msg) {
	from := lastToken(m.Subject)
	if m.Header.Get("Status") == noResponders {
		if from == rollToken {
			s.called(nil)
		} else {
			s.drop(from)
		}
		return
	}
	word, rest, _ := strings.Cut(string(m.Data), " ")
	if word == rollWord && from == rollToken {
		s.called(strings.Fields(rest))
		return
	}
	if !isPeerID(from) {
		return
	}
	s.hear(from)
	switch word {
	case answerWord:
		s.answered(from, rest)
	case probeWord:
		_ = s.conn.nc.Publish(s.outbox(from), []byte(pastWord+" "+rest)) // it will be asked again
	case pastWord:
		s.past(from, rest)
	}
}
