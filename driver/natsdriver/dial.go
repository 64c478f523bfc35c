package natsdriver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	dialTimeout = 5 * time.Second
	// A connection that is silent for this long, twice in a row, counts as lost.
	pingEvery = 15 * time.Second
	// The client's pause between attempts to reconnect doubles up to this value.
	maxReconnectPause = 5 * time.Second
)

// dialer dials for the client. The client holds its lock meanwhile, so only stop
// can make it let go.
type dialer struct {
	ctx    context.Context // ends all dialling
	cancel context.CancelFunc

	dials    atomic.Uint64 // dials begun
	refusals refusals

	mu     sync.Mutex // guards the fields below
	conn   net.Conn   // the newest
	failed error      // why the last dial failed; nil if it did not
}

func newDialer() *dialer {
	ctx, cancel := context.WithCancel(context.Background())
	return &dialer{ctx: ctx, cancel: cancel}
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.dials.Add(1)
	d.refusals.forget() // the user's permissions may have grown
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	d.mu.Lock()
	d.failed = err
	if err == nil {
		d.conn = conn
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if d.ctx.Err() != nil { // stop may have missed this connection
		_ = conn.Close() // it is useless by then
	}
	return conn, nil
}

// cause returns why no server could be reached, which the client's own error does
// not say. It returns err if err is about something else.
func (d *dialer) cause(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, nats.ErrNoServers) && d.failed != nil {
		return d.failed
	}
	return err
}

// stop ends dialling and the connection.
func (d *dialer) stop() {
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close() // the client may already have closed it
	}
}

// note records an error that was reported to the client.
func (d *dialer) note(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		d.refusals.tell(err)
	}
}

// reconnectPause returns how long to wait after all servers have been tried in
// vain.
func reconnectPause(rounds int) time.Duration {
	pause := maxReconnectPause
	if rounds < 8 {
		pause = min(pause, 50*time.Millisecond<<rounds)
	}
	return pause/2 + rand.N(pause/2)
}

// clientOptions are the options with which Open connects; the user's follow them.
func clientOptions(d *dialer) []nats.Option {
	return []nats.Option{
		nats.Name("hark"),
		nats.SetCustomDialer(d),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectPause),
		nats.ReconnectBufSize(-1), // publishing waits in its own context instead
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		nats.SkipSubjectValidation(),
		nats.WriteBufferSize(128 << 10),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { d.note(err) }), // lost messages are counted elsewhere
	}
}
