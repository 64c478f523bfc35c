package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// webTimeout is how long a client may take to request a WebSocket, and to read a
// refusal.
const webTimeout = 5 * time.Second

// proxyWeb accepts NATS and MQTT clients over WebSockets.
type proxyWeb struct {
	proxy    *proxy
	listener net.Listener
	server   *http.Server
	origins  *websocket.AcceptOptions
	mqtt     MQTTConfig
}

func listenProxyWeb(p *proxy, c *Config) (*proxyWeb, error) {
	l, err := net.Listen("tcp", c.WebSocket.Listen)
	if err != nil {
		return nil, listenError("websocket.listen", c.WebSocket.Listen, err)
	}
	w := &proxyWeb{proxy: p, listener: l, mqtt: c.MQTT}
	// Pages of the same host may always connect.
	w.origins = &websocket.AcceptOptions{OriginPatterns: c.Web.Origins, InsecureSkipVerify: slices.Contains(c.Web.Origins, "*")}
	w.server = &http.Server{ // its timeouts end where a WebSocket begins
		Handler: w, ReadTimeout: webTimeout, WriteTimeout: webTimeout, MaxHeaderBytes: 64 << 10, ErrorLog: newErrorLog(p.log),
	}
	return w, nil
}

func (w *proxyWeb) serve() {
	l := w.listener
	if w.proxy.tls != nil {
		l = tls.NewListener(l, w.proxy.tls)
	}
	if err := w.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		w.proxy.log.Error("NATS clients cannot connect over WebSockets", "err", err)
	}
}

func (w *proxyWeb) close() error {
	err := w.server.Close()
	if closeErr := w.listener.Close(); !errors.Is(closeErr, net.ErrClosed) { // if serve has not been called
		err = errors.Join(err, closeErr)
	}
	return err
}

// ServeHTTP implements http.Handler. When it returns, the connection has another
// owner.
func (w *proxyWeb) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	handle, opts := func(c net.Conn) { w.proxy.handle(c, nil, true) }, *w.origins
	switch {
	case strings.HasSuffix(r.URL.Path, "/mqtt") && w.mqtt.Listen == off:
		http.Error(rw, "MQTT is off; set mqtt.listen to turn it on", http.StatusNotFound)
		return
	case strings.HasSuffix(r.URL.Path, "/mqtt") && w.proxy.verifies():
		http.Error(rw, "MQTT over WebSockets does not support client certificates, which this broker requires; connect to mqtt.listen instead", http.StatusNotFound)
		return
	case strings.HasSuffix(r.URL.Path, "/mqtt"):
		handle, opts.Subprotocols = w.proxy.handleMQTT, []string{"mqtt"}
	}
	conn, err := websocket.Accept(rw, r, &opts)
	if err != nil {
		return // Accept has sent the reason
	}
	away := func() { _ = conn.Close(websocket.StatusGoingAway, "the broker is stopping") }
	w.proxy.start(func() {
		handle(&webConn{Conn: websocket.NetConn(context.Background(), conn, websocket.MessageBinary), socket: conn, address: r.RemoteAddr})
	}, away)
}

// handleMQTT connects an MQTT client to the listener for MQTT without WebSockets.
// The proxy need not inspect it: nothing in MQTT asks for an answer on a topic.
func (p *proxy) handleMQTT(client net.Conn) {
	defer func() { _ = client.Close() }() // it may already be closed
	var d net.Dialer
	server, err := d.DialContext(p.done, "tcp", p.mqttAddr())
	if err != nil {
		p.log.Debug("cannot connect to the MQTT server in this process", "err", err)
		return
	}
	if p.tls != nil {
		server = tls.Client(server, &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}) // it is in this process
	}
	c := &proxyConn{proxy: p, client: client, server: server}
	stop := context.AfterFunc(p.done, c.close)
	defer stop()
	var down sync.WaitGroup
	down.Go(func() { c.copyOutput(c.write); c.close() })
	_, _ = io.Copy(server, client) // either side may end it
	c.close()
	down.Wait()
}

// webConn is a WebSocket seen as the connection it runs over.
type webConn struct {
	net.Conn
	socket  *websocket.Conn
	address string
}

// Close implements net.Conn. It does not wait for the client.
func (c *webConn) Close() error { return c.socket.CloseNow() }

// RemoteAddr implements net.Conn.
func (c *webConn) RemoteAddr() net.Addr { return webAddr(c.address) }

// webAddr is the address of a client, in the form of package net/http.
type webAddr string

// Network implements net.Addr.
func (webAddr) Network() string { return "websocket" }

func (a webAddr) String() string { return string(a) }
