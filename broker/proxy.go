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

// proxy accepts the NATS clients of a broker with users, or with a rate limit. It
// stands between them and the server, because the server checks whether a client
// may publish to a subject, but neither whether it may direct replies there, nor
// how often it publishes (docs/adr/0008-proxy.md). The server itself accepts only
// those NATS clients that come through the proxy.
type proxy struct {
	log      *slog.Logger
	open     bool   // there are no users
	rates    *rates // limits what clients publish; nil for no limit
	listener net.Listener
	web      *proxyWeb   // nil without WebSockets
	tls      *tls.Config // nil without TLS
	// dial connects to the server in this process, which accepts MQTT clients at
	// mqttAddr.
	dial     func() (net.Conn, error)
	mqttAddr func() string

	accepting sync.WaitGroup
	active    sync.WaitGroup  // connections
	done      context.Context // ends when connections must end
	end       context.CancelFunc

	mu     sync.Mutex // guards the fields below
	closed bool
	conns  map[uint64]*proxyConn // by the server's number for them
}

// listenProxy opens the listeners. Clients are not served before serve.
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

// serve starts to serve clients, over connections to the server made by dial.
func (p *proxy) serve(dial func() (net.Conn, error), mqttAddr func() string) {
	p.dial, p.mqttAddr = dial, mqttAddr
	p.accepting.Go(p.accept)
	if p.web != nil {
		p.accepting.Go(p.web.serve)
	}
}

// hideServer keeps the server from listening for NATS clients, so that none can
// bypass the proxy.
//
// In a cluster the servers tell clients about each other, and a server that does
// not listen announces nothing. There, the server listens where nothing outside
// this machine can connect, completes no handshake, and announces the address of
// the proxy.
func (p *proxy) hideServer(c *Config, opts *natsserver.Options) {
	if p.tls != nil {
		opts.AuthTimeout += handshakeTimeout.Seconds() // the server cannot see when the TLS handshake is over
	}
	if c.Cluster.Listen == "" {
		opts.DontListen = true
		return
	}
	opts.Host, opts.Port = "127.0.0.1", natsserver.RANDOM_PORT
	opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, errNotHere
	}}
	opts.TLSTimeout = handshakeTimeout.Seconds()
	if at := publicAddress(p.listener.Addr()); at != "" {
		opts.ClientAdvertise = at
	} else {
		opts.Cluster.NoAdvertise = true
	}
}

var errNotHere = errors.New("clients connect to the proxy")

// publicAddress returns an address at which other machines can reach a listener, or
// "" if there is none.
func publicAddress(listening net.Addr) string {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return ""
	}
	if at, err := netip.ParseAddr(host); err != nil || !at.IsUnspecified() {
		return listening.String()
	}
	all, _ := net.InterfaceAddrs() // if it fails there is none
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port)
		}
	}
	return ""
}

// acceptPause is how long to accept nothing when the system has no room for a
// connection.
const acceptPause = 50 * time.Millisecond

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err == nil {
			p.start(func() { p.handle(client, p.tls, false) }, func() { _ = client.Close() })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.log.Error("NATS clients cannot connect", "err", err)
		select {
		case <-time.After(acceptPause):
		case <-p.done.Done():
			return
		}
	}
}

// start starts to handle a client; once the proxy is closed it calls refuse instead.
func (p *proxy) start(handle, refuse func()) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.active.Go(handle)
	}
	p.mu.Unlock()
	if closed {
		refuse()
	}
}

// handle relays between a client and the server until one of them ends the
// connection.
func (p *proxy) handle(client net.Conn, secure *tls.Config, web bool) {
	defer func() { _ = client.Close() }() // it may already be closed
	server, err := p.dial()
	if err != nil {
		p.log.Debug("cannot connect to the NATS server in this process", "err", err)
		return
	}
	defer func() { _ = server.Close() }()
	c := &proxyConn{
		proxy: p, address: client.RemoteAddr().String(), client: client, server: server, secure: secure, web: web,
		admitted: make(chan *replyRule, 1), over: make(chan struct{}),
	}
	stop := context.AfterFunc(p.done, func() { // not c.client, which sendInfo replaces
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	info, err := c.readInfo()
	if err != nil {
		p.log.Debug("cannot connect to the NATS server in this process", "err", err)
		return
	}
	c.id = info.CID
	p.mu.Lock()
	p.conns[c.id] = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.conns[c.id] == c { // otherwise a later server uses the number
			delete(p.conns, c.id)
		}
	}()
	c.serve(info)
}

// conn returns the connection with the server's number, or nil if there is none.
func (p *proxy) conn(id uint64) *proxyConn {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[id]
}

// admit records the user as whom the server has accepted a connection.
func (p *proxy) admit(id uint64, u *user) {
	c := p.conn(id)
	if c == nil {
		return // the client is gone, or speaks MQTT
	}
	select {
	case c.admitted <- newReplyRule(u):
	default: // a client that logs in twice is cut off
	}
}

// tellBusy tells a client that its login could not be checked yet, rather than
// that the server refuses it. Clients take a refusal for a wrong password, and many
// give up.
func (p *proxy) tellBusy(id uint64) {
	if c := p.conn(id); c != nil {
		c.authBusy.Store(true)
	}
}

// addressOf returns the address of a connection's client, or "" if it is not one of
// a NATS client.
func (p *proxy) addressOf(id uint64) string {
	if c := p.conn(id); c != nil {
		return c.address
	}
	return ""
}

// isClosed reports whether no more clients are accepted.
func (p *proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// stopAccepting stops accepting clients.
func (p *proxy) stopAccepting() error {
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

// lingerTimeout is how long clients have to read the last output of a server that has
// ended.
const lingerTimeout = time.Second

// close ends the connections, and returns when all have ended. The server must have
// ended.
func (p *proxy) close() {
	last := time.AfterFunc(lingerTimeout, p.end)
	p.active.Wait()
	last.Stop()
	p.end()
}
