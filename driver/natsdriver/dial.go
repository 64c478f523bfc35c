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
	// A connection over which nothing comes for so long, twice, is lost.
	pingEvery = 15 * time.Second
	// The client's pause between attempts to reconnect doubles up to this.
	maxReconnectPause = 5 * time.Second
)

// dialer dials for the client, which keeps its lock meanwhile: so stop is what
// makes it let go.
type dialer struct {
	ctx    context.Context // of all dialling
	cancel context.CancelFunc

	dials    atomic.Uint64 // begun
	refusals refusals

	mu     sync.Mutex // guards what follows
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
	d.refusals.forget() // the user may be permitted more by now
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
	if d.ctx.Err() != nil { // stop may have missed it
		_ = conn.Close() // it is of no use any more
	}
	return conn, nil
}

// cause returns why no server could be reached, of which the client says no more than
// that; err if that is not the reason.
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
		_ = d.conn.Close() // the client may have done so
	}
}

// note takes notice of what the client is told.
func (d *dialer) note(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		d.refusals.tell(err)
	}
}

// reconnectPause is how long to wait after all servers were tried in vain.
func reconnectPause(rounds int) time.Duration {
	pause := maxReconnectPause
	if rounds < 8 {
		pause = min(pause, 50*time.Millisecond<<rounds)
	}
	return pause/2 + rand.N(pause/2)
}

// clientOptions are those with which Open connects, before those of the user.
func clientOptions(d *dialer) []nats.Option {
	return []nats.Option{
		nats.Name("hark"),
		nats.SetCustomDialer(d),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectPause),
		nats.ReconnectBufSize(-1), // publishing waits in its context instead
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		nats.SkipSubjectValidation(),
		nats.WriteBufferSize(128 << 10),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { d.note(err) }), // what is lost is counted
	}
}
