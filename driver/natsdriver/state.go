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

// state tracks whether the connection is up.
type state struct {
	nc      *nats.Conn
	where   string // the engine and its address
	retry   retryPolicy
	owned   *dialer // nil if the client belongs to the caller
	guarded bool    // the server has users, and tells this connection what it does not permit
	events  chan nats.Status
	quit    chan struct{} // closed by stop
	over    chan struct{} // closed when follow has returned
	done    chan struct{} // closed by close

	closed atomic.Bool // set with mu locked

	mu            sync.Mutex // guards the fields below
	up            bool
	reason        error           // why it is down
	live          context.Context // ends when the connection goes down
	die           context.CancelFunc
	changed       chan struct{} // closed and replaced at each change
	watcher       func(up bool, reason error)
	lossListeners map[lossListener]struct{}
}

// lossListener is told when the connection is lost, and with it everything under way.
type lossListener interface{ lost() }

func newState(nc *nats.Conn, where string) *state {
	s := &state{
		nc: nc, where: where, retry: serverRetry, events: nc.StatusChanged(nats.CONNECTED, nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED),
		quit: make(chan struct{}), over: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		up: nc.IsConnected(), lossListeners: map[lossListener]struct{}{},
	}
	if nc.ConnectedClusterName() != "" {
		s.retry = clusterRetry
	}
	s.live, s.die = context.WithCancel(context.Background())
	go s.follow()
	return s
}

// follow returns when the connection or the state ends.
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
	var lossListeners []lossListener
	if !up {
		lossListeners = slices.Collect(maps.Keys(s.lossListeners))
	}
	s.mu.Unlock()
	for _, l := range lossListeners {
		l.lost()
	}
	var reason error
	if !up {
		// The client holds its lock while it dials, so this call may take as long.
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

// close makes every wait fail with ErrClosed.
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

// epoch returns a number that grows before each connection to a server. It is
// exact, whereas lossListeners learn a little later that the connection was lost. Over a
// client that belongs to the caller, it waits while that client dials.
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

// present returns a context that ends when the current connection is lost; it has
// already ended if the connection is down.
func (s *state) present() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// whileUp returns a context that ends with ctx or with the current connection.
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
	if up { // otherwise the client may hold its lock for a long time
		s.nc.RemoveStatusListener(s.events)
	}
	close(s.quit)
	<-s.over
}

// await returns once the connection is up.
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

// interrupted returns why ctx ended, and why the connection is down.
func (s *state) interrupted(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != nil {
		return fmt.Errorf("not connected (%w): %w", s.reason, context.Cause(ctx))
	}
	return context.Cause(ctx)
}

var errConnClosed = fmt.Errorf("connection %w", driver.ErrClosed)

// retryPolicy is the timing of retries. The limits of attempts and the pauses between
// them double each time.
type retryPolicy struct {
	firstAttempt, longAttempt time.Duration
	firstPause, longPause     time.Duration
}

var (
	serverRetry = retryPolicy{attemptTimeout, attemptTimeout, 20 * time.Millisecond, 2 * time.Second}
	// In a cluster a server may die after it has been sent a request while the
	// connection, which is to another server, stays up. The request is then never
	// answered, and only asking again shows that others have taken over.
	clusterRetry = retryPolicy{time.Second, attemptTimeout, 20 * time.Millisecond, 250 * time.Millisecond}
)

// attemptTimeout is how long an attempt may take before it is repeated, if there
// is only one server.
const attemptTimeout = 5 * time.Second

// do calls f until it succeeds, fails for good, or ctx ends. The context of f also
// ends when the connection is lost, or when the attempt takes too long. Three kinds
// of errors are retried: those caused by that timeout, those caused by the loss of
// the connection, once it is back, and those that wrap driver.ErrAgain.
func (s *state) do(ctx context.Context, f func(ctx context.Context) error) error {
	var last error
	timeout, pause := s.retry.firstAttempt, s.retry.firstPause
	failed := 0
	for ; ; timeout, pause = min(2*timeout, s.retry.longAttempt), min(2*pause, s.retry.longPause) {
		if err := s.await(ctx); err != nil {
			return because(err, last)
		}
		err, cut := s.attempt(ctx, timeout, f)
		if err == nil {
			return nil
		}
		if last = err; !cut && !s.passes(err) {
			return kind(err)
		}
		// A stream that has just been deleted cannot be recreated at once.
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

// storeAttempts is how often creating something is retried when the server could
// not create files; two seconds in all.
const storeAttempts = 7

// full returns the error for a server that could not create files.
func (s *state) full(err error) error {
	return fmt.Errorf("%w: engine %s cannot create the files for it; if its disk is full, free some space: %w", driver.ErrFull, s.where, err)
}

// attempt calls f, and reports whether the context of f ended before that of do.
func (s *state) attempt(ctx context.Context, timeout time.Duration, f func(ctx context.Context) error) (err error, cut bool) {
	live := s.present()
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(live, cancel)()
	asking, w := s.watchRefusals(attempt)
	err = w.end(f(asking))
	return err, attempt.Err() != nil && ctx.Err() == nil && errors.Is(err, attempt.Err())
}

func because(err, last error) error {
	if last == nil || errors.Is(err, last) {
		return err
	}
	return fmt.Errorf("%w (the last attempt: %w)", err, last)
}

// passes reports whether an error comes from a connection that breaks or is being
// restored.
func (s *state) passes(err error) bool {
	if errors.Is(err, nats.ErrConnectionClosed) && !s.isClosed() {
		return true // the client reports it to waiters when it loses the connection
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

// kind translates errors of the client into those of the contract.
func kind(err error) error {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrBadSubscription):
		return fmt.Errorf("%w: %w", errConnClosed, err)
	}
	return err
}
