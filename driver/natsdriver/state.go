package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// state follows whether the connection is up.
type state struct {
	nc      *nats.Conn
	where   string // the engine and its address
	tempo   tempo
	owned   *dialer // nil if the client belongs to the caller
	guarded bool    // the server knows users, and tells this connection what it does not permit
	events  chan nats.Status
	quit    chan struct{} // closed by stop
	over    chan struct{} // closed when follow has returned
	done    chan struct{} // closed by close

	closed atomic.Bool // set with mu locked

	mu      sync.Mutex // guards what follows
	up      bool
	reason  error           // why it is not up
	live    context.Context // ends when it is not up any more
	die     context.CancelFunc
	changed chan struct{} // closed and replaced at each change
	watcher func(up bool, reason error)
	losers  map[loser]struct{}
}

// loser is told when the connection is lost, and with it what was under way.
type loser interface{ lost() }

func newState(nc *nats.Conn, where string) *state {
	s := &state{
		nc: nc, where: where, tempo: serverTempo, events: nc.StatusChanged(nats.CONNECTED, nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED),
		quit: make(chan struct{}), over: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		up: nc.IsConnected(), losers: map[loser]struct{}{},
	}
	if nc.ConnectedClusterName() != "" {
		s.tempo = clusterTempo
	}
	s.live, s.die = context.WithCancel(context.Background())
	go s.follow()
	return s
}

// follow ends with the connection or the state.
func (s *state) follow() {
	defer close(s.over)
	for {
		select {
		case status, ok := <-s.events:
			if !ok || status == nats.CLOSED {
				s.close()
				return
			}
			s.set(status == nats.CONNECTED)
		case <-s.quit:
			return
		}
	}
}

func (s *state) set(up bool) {
	s.mu.Lock()
	if s.closed.Load() || s.up == up {
		s.mu.Unlock()
		return
	}
	s.up, s.reason = up, nil
	s.die()
	if up {
		s.live, s.die = context.WithCancel(context.Background())
	}
	s.changeLocked()
	watcher := s.watcher
	var losers []loser
	if !up {
		losers = slices.Collect(maps.Keys(s.losers))
	}
	s.mu.Unlock()
	for _, l := range losers {
		l.lost()
	}
	var reason error
	if !up {
		// The client holds its lock while it dials, so this may take as long.
		if reason = s.nc.LastError(); reason == nil {
			reason = errLost
		}
		s.mu.Lock()
		s.reason = reason
		s.mu.Unlock()
	}
	if watcher != nil {
		watcher(up, reason)
	}
}

func (s *state) changeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// close makes every wait end with ErrClosed.
func (s *state) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.Load() {
		s.closed.Store(true)
		close(s.done)
		s.die()
		s.up = false
		s.changeLocked()
	}
}

// epoch returns a number that grows before each connection to a server. It is exact
// where others learn a little later that the connection was lost. Over a client of
// the caller's it waits while that dials.
func (s *state) epoch() uint64 {
	if s.owned != nil {
		return s.owned.dials.Load()
	}
	return s.nc.Stats().Reconnects
}

func (s *state) isClosed() bool { return s.closed.Load() }

func (s *state) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// present returns a context that ends when the connection that is up now is
// lost; if none is up it has ended.
func (s *state) present() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// whileUp returns a context that ends with ctx or with the connection as it is
// now.
func (s *state) whileUp(ctx context.Context) (context.Context, context.CancelFunc) {
	up, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.present(), func() { cancel(errLost) })
	return up, func() {
		stop()
		cancel(nil)
	}
}

var errLost = errors.New("the connection was lost")

// stop ends follow.
func (s *state) stop() {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	s.close()
	if up { // otherwise the client may hold its lock for long
		s.nc.RemoveStatusListener(s.events)
	}
	close(s.quit)
	<-s.over
}

// await returns when the connection is up.
func (s *state) await(ctx context.Context) error {
	for {
		s.mu.Lock()
		up, closed, changed := s.up, s.closed.Load(), s.changed
		s.mu.Unlock()
		switch {
		case closed:
			return errConnClosed
		case up:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.interrupted(ctx)
		}
	}
}

// interrupted says why ctx ended, and why the connection is down.
func (s *state) interrupted(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != nil {
		return fmt.Errorf("not connected (%w): %w", s.reason, context.Cause(ctx))
	}
	return context.Cause(ctx)
}

var errConnClosed = fmt.Errorf("connection %w", driver.ErrClosed)

// tempo is how often something is tried again. Attempts get twice as long each
// time, and so do the pauses between them.
type tempo struct {
	firstAttempt, longAttempt time.Duration
	firstPause, longPause     time.Duration
}

var (
	serverTempo = tempo{attemptPatience, attemptPatience, 20 * time.Millisecond, 2 * time.Second}
	// In a cluster a server that has been asked something may die while the
	// connection, which is to another one, stays. What it was asked is never
	// answered then, and when others have taken over only who asks learns it.
	clusterTempo = tempo{time.Second, attemptPatience, 20 * time.Millisecond, 250 * time.Millisecond}
)

// attemptPatience is how long one attempt may take before it is made again, if
// the server is the only one.
const attemptPatience = 5 * time.Second

// do calls f until it succeeds, fails for good, or ctx ends. The context of f
// ends also when the connection is lost, or when it takes long. An error that
// passes is one for which that is the reason, the loss of the connection, which
// is waited out, or one that wraps driver.ErrAgain.
func (s *state) do(ctx context.Context, f func(ctx context.Context) error) error {
	var last error
	patience, pause := s.tempo.firstAttempt, s.tempo.firstPause
	failed := 0
	for ; ; patience, pause = min(2*patience, s.tempo.longAttempt), min(2*pause, s.tempo.longPause) {
		if err := s.await(ctx); err != nil {
			return because(err, last)
		}
		err, cut := s.attempt(ctx, patience, f)
		if err == nil {
			return nil
		}
		if last = err; !cut && !s.passes(err) {
			return kind(err)
		}
		// One that has just been deleted cannot be made again at once.
		if api, ok := noStore(err); ok {
			if failed++; failed > storeAttempts {
				return s.full(api)
			}
		}
		select {
		case <-ctx.Done():
			return because(context.Cause(ctx), last)
		case <-time.After(pause):
		case <-s.done:
		}
	}
}

// storeAttempts is how often it is tried again to make something for which the
// server could not make files, two seconds in all.
const storeAttempts = 7

// full is an error of a server that could not make files.
func (s *state) full(err error) error {
	return fmt.Errorf("%w: engine %s cannot make the files for it; if its disk is full, free some room there: %w", driver.ErrFull, s.where, err)
}

// attempt calls f, and reports whether its context ended before that of do.
func (s *state) attempt(ctx context.Context, patience time.Duration, f func(ctx context.Context) error) (err error, cut bool) {
	live := s.present()
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(live, cancel)()
	asking, q := s.question(attempt)
	err = q.end(f(asking))
	return err, attempt.Err() != nil && ctx.Err() == nil && errors.Is(err, attempt.Err())
}

func because(err, last error) error {
	if last == nil || errors.Is(err, last) {
		return err
	}
	return fmt.Errorf("%w (the last attempt: %w)", err, last)
}

// passes reports whether an error is one of a connection that breaks or comes
// back.
func (s *state) passes(err error) bool {
	if errors.Is(err, nats.ErrConnectionClosed) && !s.isClosed() {
		return true // so the client says it to those that wait when it is lost
	}
	for _, e := range []error{
		nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
		nats.ErrStaleConnection, nats.ErrNoServers, driver.ErrAgain,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// kind makes errors of the client those of the contract.
func kind(err error) error {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrBadSubscription):
		return fmt.Errorf("%w: %w", errConnClosed, err)
	}
	return err
}
