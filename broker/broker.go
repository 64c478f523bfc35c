package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/store"
)

// Broker is a message broker in this process.
type Broker struct {
	log    *slog.Logger
	config atomic.Pointer[Config] // as it is now; Reload replaces it

	reloading sync.Mutex // held by Start, Stop and Reload
	state     state
	started   time.Time
	took      time.Duration                           // of starting
	source    atomic.Pointer[func() (*Config, error)] // see ReloadFrom

	auth     *authenticator // nil without users
	proxy    *proxy         // nil without users and a rate, or without a server in this process
	store    *store.Store
	client   *nats.Conn
	conn     *natsdriver.Conn
	routing  *routing
	gateway  *gateway
	webhooks *webhooks
	pruners  *pruners
	recovery *diskRecovery // nil without a server in this process
	web      *webServer

	onReplay func(step string) // for tests: what is to be done next
}

// state says where a broker is in its life, which it goes through once.
type state uint8

const (
	stateNew state = iota
	stateRunning
	stateStopped
)

// ErrStopped says that a broker has been stopped.
var ErrStopped = errors.New("stopped")

// New returns a broker that does nothing yet. What is wrong with the configuration
// is returned as Problems. A nil logger discards what would be logged. The
// configuration must not be changed afterwards.
func New(c *Config, log *slog.Logger) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{log: log}
	b.config.Store(c)
	if len(c.Users) > 0 {
		b.auth = newAuthenticator(c)
	}
	return b, nil
}

// Run starts the broker, waits until ctx ends, and stops it within the StopTimeout
// of its configuration. It returns nil after a stop that left nothing undone.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return b.Stop(context.WithoutCancel(ctx))
}

// Start returns when the broker serves clients and its routes run. If it cannot
// start, Start returns the reason, and nothing of the broker is left running. A
// broker starts once.
func (b *Broker) Start(ctx context.Context) error {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	if b.state != stateNew {
		return errors.New("a broker starts once")
	}
	b.state = stateRunning
	b.started = time.Now()
	c := b.config.Load()
	if err := b.start(ctx, c); err != nil {
		b.state = stateStopped
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.StopTimeout)
		defer cancel()
		return errors.Join(err, b.shut(ctx))
	}
	b.took = time.Since(b.started)
	b.log.Info("started", "messages", b.where(), "routes", len(c.Routes), "took", b.took)
	return nil
}

func (b *Broker) start(ctx context.Context, c *Config) (err error) {
	if b.web, err = listenWeb(b, endpoints()); err != nil {
		return err
	}
	if err := b.connect(ctx, c); err != nil {
		return err
	}
	placed := make(chan struct{})
	ready := sync.OnceFunc(func() { close(placed) })
	defer ready()
	if b.auth != nil && b.store != nil {
		// Clients come as soon as the server listens, and are answered when there is something to say.
		if err := b.conn.ServeLocations(func(user, topic string) *natsdriver.TopicLocation { <-placed; return b.topicLocation(user, topic) }); err != nil {
			return err
		}
	}
	if err := b.firstTopics(ctx, c); err != nil {
		return err
	}
	if b.auth != nil && b.store != nil {
		if err := errors.Join(b.conn.PrepareGroups(ctx), b.conn.PrepareDeadLetters(ctx)); err != nil {
			return err
		}
	}
	ready()
	router, err := NewRouter(c)
	if err != nil {
		return err
	}
	b.routing = newRouting(b.conn, b.log, c.shares())
	routes, err := b.routing.change(ctx, c, router)
	if err != nil {
		return err
	}
	routes.finish(ctx)
	b.gateway = newGateway(b, b.conn)
	b.webhooks = newWebhooks(b.conn, "/"+c.Name, !c.shares(), b.log)
	hooks, err := b.webhooks.change(ctx, c)
	if err != nil {
		return err
	}
	hooks.finish(ctx)
	b.pruners = newPruners(b.conn, b.log)
	prune, _, err := b.pruners.change(ctx, c)
	if err != nil {
		return err
	}
	prune()
	if err := b.letClientsIn(c); err != nil {
		return err
	}
	b.recovery = startDiskRecovery(b)
	b.web.serve()
	return nil
}

// connect starts the server in this process, or finds those beside which the
// broker runs, and connects to them.
func (b *Broker) connect(ctx context.Context, c *Config) (err error) {
	source, waiting := natsdriver.Source("/"+c.Name), natsdriver.MaxWaiting(liveSize, allLiveSize)
	if c.Engine != "" {
		if b.conn, err = natsdriver.Open(ctx, c.Engine, natsdriver.Attributes(), waiting, source); err == nil {
			b.client = b.conn.Client()
		}
		return err
	}
	if b.auth != nil || c.Limits.Rate > 0 {
		if b.proxy, err = listenProxy(c, b.log); err != nil {
			return err
		}
	}
	if b.auth != nil {
		b.auth.proxy = b.proxy
	}
	if b.store, err = startServer(c, b.auth, b.proxy, serverLog{b.log.With("part", "server"), b.proxy}); err != nil {
		return err
	}
	if b.client, err = connect(b.store, b.auth); err != nil {
		return fmt.Errorf("connect to the server in this process: %w", err)
	}
	if b.proxy != nil && !c.listensLate() {
		b.proxy.serve(b.store.InProcessConn, b.MQTTAddr)
	}
	if err := b.awaitCluster(ctx, c); err != nil {
		return err
	}
	b.conn, err = natsdriver.New(ctx, b.client, natsdriver.SyncAlways(), natsdriver.Listened(b.store.Listened), natsdriver.Attributes(), waiting, source,
		natsdriver.Engine("hark", c.Listen), natsdriver.Replicas(int(c.Cluster.Replicas)))
	return err
}

// where says to whom clients speak.
func (b *Broker) where() string {
	if b.store == nil {
		return b.conn.Info().Address
	}
	return b.Addr().String()
}

// Stop ends the routes once they are done with the messages they have taken, and
// then the server. It takes at most the StopTimeout of the configuration, and
// returns what could not be finished. It is idempotent, and does nothing to a
// broker that was not started.
func (b *Broker) Stop(ctx context.Context) error {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	if b.state != stateRunning {
		b.state = stateStopped
		return nil
	}
	b.state = stateStopped
	within := b.config.Load().StopTimeout
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	b.log.Info("stopping", "within", within)
	err := b.shut(ctx)
	if err != nil {
		b.log.Error("stopped before all work was done", "err", err)
	} else {
		b.log.Info("stopped")
	}
	return err
}

// shut ends what has been started, in the opposite order.
func (b *Broker) shut(ctx context.Context) (err error) {
	b.recovery.stop()
	if b.web != nil {
		err = b.web.close(ctx)
	}
	if b.gateway != nil {
		b.gateway.close()
	}
	if b.pruners != nil {
		b.pruners.stop(ctx)
	}
	if b.webhooks != nil {
		err = errors.Join(err, b.webhooks.stop(ctx))
	}
	if b.routing != nil {
		err = errors.Join(err, b.routing.stop(ctx))
	}
	if b.conn != nil {
		err = errors.Join(err, b.conn.Close(ctx))
	}
	if b.client != nil && b.store != nil { // otherwise conn has closed it
		b.client.Close()
	}
	if b.proxy != nil {
		err = errors.Join(err, b.proxy.stopAccepting())
		defer b.proxy.close()
	}
	if b.store == nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- b.store.Close() }()
	select {
	case closeErr := <-done:
		return errors.Join(err, closeErr)
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("the server did not stop within %v (stop_timeout); what was acknowledged is stored", b.config.Load().StopTimeout))
	}
}

// Addr returns where clients connect, nil before Start has returned.
func (b *Broker) Addr() net.Addr {
	switch {
	case b.proxy != nil:
		return b.proxy.listener.Addr()
	case b.store == nil:
		return nil
	}
	return b.store.Addr()
}

// MQTTAddr returns where clients of MQTT connect as HOST:PORT, empty if they cannot.
func (b *Broker) MQTTAddr() string {
	c := b.config.Load()
	v := b.serverState()
	if c.MQTT.Listen == off || v == nil {
		return ""
	}
	return net.JoinHostPort(v.MQTT.Host, strconv.Itoa(v.MQTT.Port))
}

// WebSocketAddr returns where NATS clients connect over WebSockets as HOST:PORT,
// empty if they cannot.
func (b *Broker) WebSocketAddr() string {
	if b.proxy != nil && b.proxy.web != nil {
		return b.proxy.web.listener.Addr().String()
	}
	c := b.config.Load()
	v := b.serverState()
	if c.WebSocket.Listen == off || v == nil {
		return ""
	}
	return net.JoinHostPort(v.Websocket.Host, strconv.Itoa(v.Websocket.Port))
}

// serverState asks the server how it is; nil if it does not run.
func (b *Broker) serverState() *natsserver.Varz {
	if b.store == nil {
		return nil
	}
	v, err := b.store.Server().Varz(nil)
	if err != nil {
		return nil
	}
	return v
}

// HTTPAddr returns where HTTP is served, nil if it is not.
func (b *Broker) HTTPAddr() net.Addr {
	if b.web == nil || b.web.listener == nil {
		return nil
	}
	return b.web.listener.Addr()
}
