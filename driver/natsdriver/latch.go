package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The newest state of each latch is a message in a stream that all listeners
// follow. A server that supports it forgets cleared latches, after a time long
// enough for all followers to have seen that.
const (
	latchStream = "hark-latches"
	latchPrefix = "$HARK.latch." // followed by the name
	latchSet    = "set"
	latchClear  = "clear"
	latchFades  = "1h"
	// latchDepth is how many messages are on their way to a follower.
	latchDepth = 256
	// latchPoll is how often a new follower asks whether more messages are to come:
	// the last one may be gone.
	latchPoll = 250 * time.Millisecond
	// latchPause is how long to wait when the stream is unavailable, and
	// removedPause when the consumer is gone: a consumer made while a server
	// removes the stream survives without it and stays silent.
	latchPause   = 2 * time.Second
	removedPause = 250 * time.Millisecond
)

// latches follows the latches.
type latches struct {
	signals *signals

	mu     sync.Mutex      // guards the fields below
	seen   map[string]bool // the latches that are set, as f was told
	fades  bool            // the stream forgets cleared latches
	seq    uint64          // the last message that f was told of
	begun  int             // how often all latches were asked for
	passed int             // the number of the last such pass that f was told completely
	moved  chan struct{}   // closed and replaced when seq or passed changes
	err    error           // why following fails; nil while it works
}

func (l *latches) init(s *signals) {
	l.signals, l.seen, l.moved = s, map[string]bool{}, make(chan struct{})
}

// Latch implements driver.Signals.
func (c *Conn) Latch(ctx context.Context, name string, set bool) error {
	if c.js == nil {
		return c.refuse(string(driver.Latches))
	}
	s := c.signals.Load()
	if s == nil {
		return errNotListening
	}
	return s.latches.store(ctx, name, set)
}

// store stores the state of a latch and waits until f has been told of it.
func (l *latches) store(ctx context.Context, name string, set bool) error {
	l.mu.Lock()
	fades := l.fades
	l.mu.Unlock()
	seq, err := l.signals.conn.storeLatch(ctx, name, set, fades)
	if err != nil {
		return err
	}
	l.mu.Lock()
	begun := l.begun
	l.mu.Unlock()
	if err := l.until(ctx, func() bool { return l.seq >= seq || l.passed > begun }); err != nil {
		return fmt.Errorf("%w (the latch is stored)", err)
	}
	return nil
}

// storeLatch stores the state of a latch, and returns its sequence. The stream must
// exist.
func (c *Conn) storeLatch(ctx context.Context, name string, set, fades bool) (seq uint64, err error) {
	m := &nats.Msg{Subject: latchPrefix + name, Data: []byte(latchSet), Header: nats.Header{}}
	if !set {
		m.Data = []byte(latchClear)
		if fades {
			setNATSHeader(m, natsTTL, latchFades)
		}
	}
	setNATSHeader(m, natsMsgID, c.ids.next()) // so that a repeat does not undo what others did
	err = c.state.do(ctx, func(ctx context.Context) error {
		watchSubject(ctx, m.Subject)
		ack, err := c.api(ctx).PublishMsg(ctx, m)
		if err != nil {
			return c.openError(ctx, m.Subject, err)
		}
		seq = ack.Sequence
		return nil
	})
	if err == nil && c.opts.sync != nil {
		err = c.opts.sync(ctx, latchStream)
	}
	return seq, err
}

// until waits until ok returns true. It calls ok with mu locked.
func (l *latches) until(ctx context.Context, ok func() bool) error {
	for {
		l.mu.Lock()
		done, moved := ok(), l.moved
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.signals.ctx.Done():
			return errConnClosed
		}
	}
}

// await waits until f has been told of all latches.
func (l *latches) await(ctx context.Context) error {
	var failed error
	err := l.until(ctx, func() bool {
		failed = l.err
		return l.passed > 0 || failed != nil
	})
	return errors.Join(err, failed)
}

// follow tells f of latches until the connection is closed.
func (l *latches) follow() {
	ctx := l.signals.ctx
	for {
		err := l.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		var pause time.Duration
		switch {
		case err == nil:
			continue
		case errors.Is(err, errNoConsumer):
			pause = removedPause
		default:
			pause = latchPause
			l.mu.Lock()
			l.err = err
			l.moveLocked()
			l.mu.Unlock()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (l *latches) moveLocked() {
	close(l.moved)
	l.moved = make(chan struct{})
}

// pass tells f of all latches that have changed since it was last told, and then of
// further changes, until a message may be missing. It returns errNoConsumer,
// possibly wrapped, when the consumer is gone.
func (l *latches) pass(ctx context.Context) error {
	c := l.signals.conn
	name := "hark-" + c.ids.next()
	p := newPuller(c, latchStream, name, latchDepth)
	if err := p.open(ctx); err != nil {
		return err
	}
	defer p.discard()
	l.mu.Lock()
	l.begun++
	l.seq = 0 // it may be another stream
	begun := l.begun
	l.mu.Unlock()
	info, err := l.consumer(ctx, name)
	if err != nil {
		return fmt.Errorf("latches: %w", err)
	}
	defer c.forgetConsumer(latchStream, name)
	present := map[string]bool{} // the latches that are set, in this pass
	all := info.NumPending == 0
	if all {
		l.complete(begun, present)
	}
	for next := uint64(1); ; {
		ms, err := l.next(ctx, p, name, next, !all)
		switch {
		case errors.Is(err, errCut):
			return nil
		case errors.Is(err, errWoken):
			continue
		case errors.Is(err, errAllSeen):
			l.complete(begun, present)
			all = true
			continue
		case err != nil:
			return err
		}
		for _, m := range ms {
			at, err := placeOf(m.Reply)
			if err != nil {
				return err
			}
			if at.nth != next {
				return nil // a message is missing
			}
			next++
			latch, set := strings.TrimPrefix(m.Subject, latchPrefix), string(m.Data) == latchSet
			if delete(present, latch); set {
				present[latch] = true
			}
			l.told(latch, set, at.seq)
			if at.pending == 0 && !all {
				l.complete(begun, present)
				all = true
			}
		}
	}
}

// errAllSeen says that all messages present at the beginning have come.
var errAllSeen = errors.New("all seen")

// next returns the next messages, from the consumer's nth on. While unsure whether
// it has seen all, it asks now and then.
func (l *latches) next(ctx context.Context, p *puller, name string, nth uint64, unsure bool) ([]*nats.Msg, error) {
	if !unsure {
		return p.nextMessages(ctx, latchDepth, latchDepth)
	}
	poll, cancel := context.WithTimeout(ctx, latchPoll)
	defer cancel()
	ms, err := p.nextMessages(poll, latchDepth, latchDepth)
	if err == nil || poll.Err() == nil || ctx.Err() != nil {
		return ms, err
	}
	consumer, err := l.signals.conn.api(ctx).Consumer(ctx, latchStream, name)
	if err != nil {
		return nil, errNoConsumer
	}
	if info := consumer.CachedInfo(); info.NumPending == 0 && info.Delivered.Consumer < nth {
		return nil, errAllSeen
	}
	return nil, errWoken
}

// told tells f the state of a latch, which has sequence seq on the stream.
func (l *latches) told(name string, set bool, seq uint64) {
	l.mu.Lock()
	changed := l.seen[name] != set
	if delete(l.seen, name); set {
		l.seen[name] = true
	}
	l.mu.Unlock()
	if changed {
		l.signals.tell(driver.Signal{Target: name, Latch: true, Set: set})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq = seq
	l.moveLocked()
}

// complete notes that f has been told of all latches in present, and clears the
// others.
func (l *latches) complete(begun int, present map[string]bool) {
	l.mu.Lock()
	var cleared []string
	for name := range l.seen {
		if !present[name] {
			cleared = append(cleared, name)
			delete(l.seen, name)
		}
	}
	l.mu.Unlock()
	for _, name := range cleared {
		l.signals.tell(driver.Signal{Target: name, Latch: true})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed, l.err = begun, nil
	l.moveLocked()
}

// consumer makes a consumer of all latches, and the stream if needed.
func (l *latches) consumer(ctx context.Context, name string) (*jetstream.ConsumerInfo, error) {
	c := l.signals.conn
	var info *jetstream.ConsumerInfo
	err := c.state.do(ctx, func(ctx context.Context) error {
		stream, err := c.ensureLatches(ctx)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.fades = stream.CachedInfo().Config.AllowMsgTTL
		l.mu.Unlock()
		consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Name: name, DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy,
			MemoryStorage: true, Replicas: 1, InactiveThreshold: consumerIdle,
		})
		if err != nil {
			return c.openError(ctx, latchPrefix+">", err)
		}
		info = consumer.CachedInfo()
		return nil
	})
	return info, err
}

// ensureLatches returns the stream of latches, creating it if needed.
func (c *Conn) ensureLatches(ctx context.Context) (jetstream.Stream, error) {
	stream, err := c.api(ctx).Stream(ctx, latchStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = c.api(ctx).CreateStream(ctx, c.latchConfig())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster, on another server
			stream, err = c.api(ctx).Stream(ctx, latchStream)
		}
	}
	if err != nil {
		err = c.openError(ctx, latchPrefix+">", err)
	}
	return stream, err
}

func (c *Conn) latchConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: latchStream, Description: "latches of hark", Subjects: []string{latchPrefix + ">"},
		MaxMsgsPerSubject: 1, Storage: jetstream.FileStorage, Replicas: c.opts.replicas,
		AllowMsgTTL: c.level >= levelTTL,
	}
}
