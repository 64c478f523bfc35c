package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

func init() {
	for _, scheme := range []string{"nats", "tls", "hark"} {
		driver.Register(scheme, func(ctx context.Context, url string) (driver.Conn, error) { return Open(ctx, url) })
	}
}

// Conn is a connection to NATS. It implements driver.Conn, driver.Requester,
// driver.Chans, driver.Values and driver.Signals.
type Conn struct {
	nc    *nats.Conn
	js    jetstream.JetStream // nil without JetStream
	level int                 // of JetStream's API: 0 before 2.11, then growing
	info  driver.Info
	opts  options
	state *state
	limit subscriptionLimit
	local *localDelivery // nil without the option Listened
	owned *dialer        // nil if the client belongs to the caller

	bounds bounds // of queues

	acks    acks
	answers answers
	ids     ids
	due     dueTopics
	// configuring has a token while the configuration of a stream is changed.
	configuring chan struct{}
	lists       storeLists
	noted       sync.Map // dead-letter topics, by name, that need no further note
	// locatesItself says not to ask a broker where topics are kept: this connection is a
	// broker's, or the client may not ask. noBroker says that no broker has answered,
	// but the server has.
	locatesItself, noBroker atomic.Bool

	signals atomic.Pointer[signals] // nil until the connection listens

	mu      sync.Mutex // guards the fields below
	ends    map[end]struct{}
	closing chan struct{}  // closed when Close has finished; nil before the first call
	tasks   sync.WaitGroup // goroutines that end with the connection; see begin
}

// end is something that ends with its connection.
type end interface {
	Close(ctx context.Context) error
}

// Open connects to the servers in the URL, see the package comment, and returns
// once it is connected. It does not wait for servers that are down. A connection
// that is lost later is restored, with no limit on attempts.
func Open(ctx context.Context, url string, opts ...Option) (*Conn, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	o, err := makeOptions(append(t.options, opts...))
	if err != nil {
		return nil, err
	}
	d := newDialer()
	stop := context.AfterFunc(ctx, d.stop)
	nc, err := nats.Connect(strings.Join(t.servers, ","), append(clientOptions(d), o.nats...)...)
	if !stop() && err == nil {
		nc.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		d.stop()
		err = d.cause(err)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s: %w%s", addresses(t.servers), err, t.advice(err))
	}
	c, err := newConn(ctx, nc, d, o)
	if err != nil {
		nc.Close()
		d.stop()
		return nil, err
	}
	return c, nil
}

// New returns a Conn over a connected client, and asks its server what it supports.
// The client still belongs to the caller: Close does not close it, its handlers are
// left alone, and its options apply. Among them is its reconnect buffer, which may
// take a message at the moment when the connection is lost. If the client's user may
// not ask the server, New returns ErrNotAllowed.
func New(ctx context.Context, nc *nats.Conn, opts ...Option) (*Conn, error) {
	o, err := makeOptions(opts)
	if err != nil {
		return nil, err
	}
	if len(o.nats) > 0 {
		return nil, errors.New("option NATS: the client is connected already")
	}
	return newConn(ctx, nc, nil, o)
}

func newConn(ctx context.Context, nc *nats.Conn, d *dialer, o options) (*Conn, error) {
	if !nc.HeadersSupported() {
		return nil, fmt.Errorf("%w: engine %s: the server %s does not support headers (needs NATS 2.2)", driver.ErrUnsupported, o.engine, nc.ConnectedServerVersion())
	}
	c := &Conn{nc: nc, opts: o, owned: d, ends: map[end]struct{}{}, configuring: make(chan struct{}, 1)}
	if err := c.detect(ctx); err != nil {
		return nil, err
	}
	if err := c.beAlone(ctx); err != nil {
		return nil, err
	}
	c.state = newState(nc, c.info.Engine+" "+c.info.Address)
	c.state.owned, c.state.guarded = d, c.hears()
	c.bounds.each, c.bounds.all = o.waitingEach, o.waitingAll
	if o.listened != nil {
		c.local = newLocalDelivery(c)
	}
	c.ids.init()
	c.acks.init(c)
	return c, nil
}

const (
	// detectTimeout is how long the server has to say what it supports. The
	// servers of a cluster cannot while they elect a leader, which takes up to ten
	// seconds.
	detectTimeout = 20 * time.Second
	// detectAttempt is how long to wait before asking again.
	detectAttempt = 2 * time.Second
)

// account asks what JetStream supports.
func account(ctx context.Context, js jetstream.JetStream) (*jetstream.AccountInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, detectAttempt)
		info, err := js.AccountInfo(attempt)
		cancel()
		if err == nil {
			return info, nil
		}
		if err = leaderless(err); ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !isUnavailable(err) {
			return nil, because(err, last)
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(serverRetry.firstPause):
		}
	}
}

// hears reports whether the server knows users, and tells this connection what it does
// not permit.
func (c *Conn) hears() bool { return c.owned != nil && c.nc.AuthRequired() }

// detect finds out what the server supports.
func (c *Conn) detect(ctx context.Context) error {
	address := c.opts.address
	if address == "" {
		address = c.nc.ConnectedUrlRedacted()
		if u, err := url.Parse(address); err == nil {
			address = u.Host
		}
	}
	c.info = driver.Info{
		Engine: c.opts.engine, Server: c.nc.ConnectedServerVersion(), Address: address,
		MaxPayload: int(c.nc.MaxPayload()), Lease: c.opts.lease,
	}
	js, err := c.jetStream()
	if err != nil {
		return err
	}
	asked, asking := js, ctx
	var w *refusalWatch
	if c.hears() {
		asking, w = c.owned.refusals.watch(ctx)
		asked = c.api(asking)
	}
	var supported *jetstream.AccountInfo
	if err = c.mayAsk(ctx, c.apiPrefix()+"INFO"); err == nil {
		supported, err = account(asking, asked)
		err = w.end(err)
	}
	switch {
	case err == nil:
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return nil
	default:
		return fmt.Errorf("ask %s about JetStream: %w", address, err)
	}
	c.js, c.level = js, supported.API.Level
	c.info.Can = []driver.Capability{driver.Stored, driver.MaxBytes, driver.Dedup, driver.KeyOrder, driver.Relaxed, driver.Memory, driver.Latches}
	if c.opts.syncAlways || c.opts.sync != nil {
		c.info.Can = append(c.info.Can, driver.Strict)
	}
	if c.level >= levelTTL {
		c.info.Can = append(c.info.Can, driver.StoredPatterns)
	}
	if c.level >= levelSchedule {
		c.info.Can = append(c.info.Can, driver.Delay)
	}
	return nil
}

// beAlone makes groups forget their members, if this is the only connection.
func (c *Conn) beAlone(ctx context.Context) error {
	if !c.opts.alone || c.js == nil {
		return nil
	}
	stream, err := c.js.Stream(ctx, groupsStream)
	if err == nil {
		err = stream.Purge(ctx)
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// The levels of JetStream's API that introduced features.
const (
	levelTTL   = 1 // 2.11: TTL of messages
	levelBatch = 2 // 2.12: atomic batches
	// 2.12 has schedules, but only 2.14 removes messages from a work queue once
	// another stream has sourced them.
	levelSchedule = 4
	levelReset    = 4 // 2.14: consumers that can be reset
	levelBurst    = 4 // 2.14: batches that are stored as they arrive
)

// refuse returns the error for something that the server does not support.
func (c *Conn) refuse(what string) error {
	server := "server " + c.info.Server
	if c.js == nil {
		server += " without JetStream"
	}
	return fmt.Errorf("%w: engine %s, %s: %s", driver.ErrUnsupported, c.info.Engine, server, what)
}

// addresses returns URLs of servers without their credentials.
func addresses(servers []string) string {
	shown := make([]string, len(servers))
	for i, s := range servers {
		shown[i] = "server " + strconv.Itoa(i+1)
		if u, err := url.Parse(s); err == nil {
			shown[i] = u.Host
		}
	}
	return strings.Join(shown, ", ")
}

// Info implements driver.Conn.
func (c *Conn) Info() driver.Info { return c.info }

// Client returns the NATS client, for what hark does not offer. If a server is
// upgraded during the connection, the connection still supports only what Info
// says.
func (c *Conn) Client() *nats.Conn { return c.nc }

// Watch implements driver.Conn.
func (c *Conn) Watch(f func(up bool, reason error)) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	c.state.watcher = f
}

// Flush implements driver.Conn.
func (c *Conn) Flush(ctx context.Context) error {
	if err := c.flush(ctx); err != nil {
		return err
	}
	if c.local != nil {
		if err := c.local.settle(ctx); err != nil {
			return err
		}
	}
	return c.settleQueues(ctx)
}

// flush returns when the server has what this connection has sent, and what it sent
// before has arrived.
func (c *Conn) flush(ctx context.Context) error {
	// A ping is lost with its connection, so it is sent again.
	return c.state.do(ctx, func(ctx context.Context) error { return c.nc.FlushWithContext(ctx) })
}

// orEnded returns err, on which a subscription's wait has ended, or driver.ErrEnded
// if the cause is a call of Close.
func (c *Conn) orEnded(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil && errors.Is(err, driver.ErrClosed) {
		return driver.ErrEnded
	}
	return err
}

// add registers something that ends with the connection.
func (c *Conn) add(e end) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil || c.state.isClosed() {
		return errConnClosed
	}
	c.ends[e] = struct{}{}
	return nil
}

// begin registers a goroutine that must call tasks.Done. It returns false if the
// connection is closed; the goroutine must not be started then.
func (c *Conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil || c.state.isClosed() {
		return false
	}
	c.tasks.Add(1)
	return true
}

func (c *Conn) remove(e end) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, e)
}

// Close implements driver.Conn. It does not wait for a connection that is down;
// what was still to be written is lost.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	if done := c.closing; done != nil {
		c.mu.Unlock()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.closing = make(chan struct{})
	defer close(c.closing)
	ends := make([]end, 0, len(c.ends))
	for e := range c.ends {
		ends = append(ends, e)
	}
	c.mu.Unlock()
	var err error
	if c.state.connected() {
		up, cancel := c.state.whileUp(ctx) // the connection may be lost at any moment
		for _, e := range ends {
			err = errors.Join(err, e.Close(up))
		}
		err = errors.Join(err, c.Flush(up))
		cancel()
	}
	c.state.stop()
	for _, e := range ends { // those that could not say goodbye
		_ = e.Close(ctx) // reported above, or there was no connection
	}
	c.acks.close()
	if c.owned == nil {
		c.answers.close()
	}
	c.tasks.Wait()
	if c.owned != nil {
		c.owned.stop()
		c.nc.Close()
	}
	return err
}
