package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// proxy is where clients of NATS connect to a broker with users, or with a rate. It stands
// between them and the server, because the server asks whether a client may publish to a
// subject, and not whether it may have others answer to one, nor how often
// (docs/adr/0008-proxy.md). The server itself lets no client of NATS in but those that come
// from here.
type proxy struct {
	log      *slog.Logger
	open     bool   // there are no users
	rates    *rates // of what clients publish; nil for any
	listener net.Listener
	web      *proxyWeb   // nil without WebSockets
	tls      *tls.Config // nil without TLS
	// dial connects to the server in this process, which has clients of MQTT at mqttAddr.
	dial     func() (net.Conn, error)
	mqttAddr func() string

	accepting sync.WaitGroup
	attended  sync.WaitGroup  // connections
	done      context.Context // ends when connections must
	end       context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[uint64]*proxyConn // by what the server calls them
}

// listenProxy takes the addresses. Nobody is attended to before serve.
func listenProxy(c *Config, log *slog.Logger) (*proxy, error) {
	secure, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	p := &proxy{log: log.With("part", "proxy"), open: len(c.Users) == 0, tls: secure, conns: map[uint64]*proxyConn{}}
	if c.Limits.Rate > 0 {
		p.rates = newRates(c.Limits.Rate)
	}
	p.done, p.end = context.WithCancel(context.Background())
	if p.listener, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, listenError("listen", c.Listen, err)
	}
	if c.WebSocket.Listen != off {
		if p.web, err = listenProxyWeb(p, c); err != nil {
			return nil, errors.Join(err, p.listener.Close())
		}
	}
	return p, nil
}

// verifies reports whether clients must have certificates.
func (p *proxy) verifies() bool {
	return p.tls != nil && p.tls.ClientAuth == tls.RequireAndVerifyClientCert
}

// serve begins to attend to clients, over connections to the server that dial makes.
func (p *proxy) serve(dial func() (net.Conn, error), mqttAddr func() string) {
	p.dial, p.mqttAddr = dial, mqttAddr
	p.accepting.Go(p.accept)
	if p.web != nil {
		p.accepting.Go(p.web.serve)
	}
}

// standBefore has the server listen for no client of NATS, so that none goes round the proxy.
//
// In a cluster the servers tell clients of each other, and a server that does not listen
// tells of nobody: then it listens where nobody outside this machine can connect, to
// finish no handshake, and tells the address of the proxy.
func (p *proxy) standBefore(c *Config, opts *natsserver.Options) {
	if p.tls != nil {
		opts.AuthTimeout += handshakePatience.Seconds() // the server cannot see when it is over
	}
	if c.Cluster.Listen == "" {
		opts.DontListen = true
		return
	}
	opts.Host, opts.Port = "127.0.0.1", natsserver.RANDOM_PORT
	opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, errNotHere
	}}
	opts.TLSTimeout = handshakePatience.Seconds()
	if at := publicAddress(p.listener.Addr()); at != "" {
		opts.ClientAdvertise = at
	} else {
		opts.Cluster.NoAdvertise = true
	}
}

var errNotHere = errors.New("clients connect to the proxy")

// publicAddress returns an address with which other machines can reach one where
// somebody listens, "" if there is none.
func publicAddress(listening net.Addr) string {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return ""
	}
	if at, err := netip.ParseAddr(host); err != nil || !at.IsUnspecified() {
		return listening.String()
	}
	all, _ := net.InterfaceAddrs() // without one there is none
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port)
		}
	}
	return ""
}

// acceptPause is how long nobody is let in when the system has no room for a connection.
const acceptPause = 50 * time.Millisecond

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err == nil {
			p.enter(func() { p.attend(client, p.tls, false) }, func() { _ = client.Close() })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.log.Error("no client of NATS can connect", "err", err)
		select {
		case <-time.After(acceptPause):
		case <-p.done.Done():
			return
		}
	}
}

// enter starts to attend to a client, or turns it away.
func (p *proxy) enter(attend, turnAway func()) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.attended.Go(attend)
	}
	p.mu.Unlock()
	if closed {
		turnAway()
	}
}

// attend stands between a client and the server until one of both ends it.
func (p *proxy) attend(client net.Conn, secure *tls.Config, web bool) {
	defer func() { _ = client.Close() }() // it may be closed
	server, err := p.dial()
	if err != nil {
		p.log.Debug("the server takes nobody", "err", err)
		return
	}
	defer func() { _ = server.Close() }()
	c := &proxyConn{
		proxy: p, address: client.RemoteAddr().String(), client: client, server: server,
		admitted: make(chan *replyRule, 1), over: make(chan struct{}),
	}
	stop := context.AfterFunc(p.done, func() { // greet puts another client in the place of this one
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	info, err := c.hear()
	if err != nil {
		p.log.Debug("the server takes nobody", "err", err)
		return
	}
	if web {
		info.ClientConnectURLs = info.WSConnectURLs
	}
	c.id = info.CID
	p.mu.Lock()
	p.conns[c.id] = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.conns[c.id] == c { // otherwise it is one of a later server
			delete(p.conns, c.id)
		}
	}()
	c.serve(info, secure)
}

// conn returns the connection that the server calls so; nil if there is none.
func (p *proxy) conn(id uint64) *proxyConn {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[id]
}

// admit says as whom the server has let a connection in.
func (p *proxy) admit(id uint64, u *user) {
	c := p.conn(id)
	if c == nil {
		return // it has gone, or speaks MQTT
	}
	select {
	case c.admitted <- newReplyRule(u):
	default: // who says twice who it is is cut off
	}
}

// turnAway has a client be told that it is not known yet who it is, instead of that the
// server does not let it in, which clients take for a wrong password: many give up.
func (p *proxy) turnAway(id uint64) {
	if c := p.conn(id); c != nil {
		c.turnedAway.Store(true)
	}
}

// addressOf returns from where a connection comes, "" if it is none of a client of NATS.
func (p *proxy) addressOf(id uint64) string {
	if c := p.conn(id); c != nil {
		return c.address
	}
	return ""
}

// leaves reports whether nobody is let in any more.
func (p *proxy) leaves() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// shut lets nobody in any more.
func (p *proxy) shut() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	if p.web != nil {
		err = errors.Join(err, p.web.close())
	}
	p.accepting.Wait()
	return err
}

// lastWords is how long clients may take to read what a server says that has ended.
const lastWords = time.Second

// close ends connections, and returns when all have ended. The server must have.
func (p *proxy) close() {
	last := time.AfterFunc(lastWords, p.end)
	p.attended.Wait()
	last.Stop()
	p.end()
}
