package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

const (
	// handshakeTimeout is how long a client has for the TLS handshake.
	handshakeTimeout = 5 * time.Second
	// clientTimeout is how long a client has to read pending output before it is
	// cut off. It is the server's own limit for clients of its listener.
	clientTimeout = natsserver.DEFAULT_FLUSH_DEADLINE
	// outputBufferSize is the buffer size of a connection for output of the server when there is little,
	// and largeBufferSize that of each direction that has much to carry, in bytes.
	outputBufferSize, largeBufferSize = 1 << 10, 64 << 10
)

// busyChecking tells a client to try again.
const busyChecking = "-ERR 'Too many passwords are being checked, try again in a moment'\r\n"

var largeBuffers = sync.Pool{New: func() any { return new([largeBufferSize]byte) }}

// proxyConn is a NATS client, and its connection to the server.
type proxyConn struct {
	proxy   *proxy
	id      uint64      // the server's number of the connection
	address string      // address of the client
	client  net.Conn    // the TLS connection once there is one
	server  net.Conn    // in this process
	secure  *tls.Config // nil without TLS, and over WebSockets, which begin it themselves
	web     bool        // the client speaks over WebSockets
	// admitted receives the rule of the user once the server has accepted the
	// client.
	admitted chan *replyRule
	limiter  *publishLimiter // of the relay; nil for no limit
	over     chan struct{}   // closed when nothing more comes from the server
	// authBusy says that the broker had no time to authenticate the client.
	authBusy atomic.Bool
}

// serve relays between the client and the server until one of them ends the
// connection.
func (c *proxyConn) serve(info natsserver.Info) {
	if err := c.sendInfo(info); err != nil {
		c.proxy.log.Debug("the client disconnected before it logged in", "address", c.address, "err", err)
		return
	}
	var down sync.WaitGroup
	down.Go(func() {
		out := outputRelay{write: c.write, info: c.clientInfo}
		c.copyOutput(out.forward)
		c.closeWrite()
		close(c.over)
	})
	r := newRelay(c.client, c.server, c.rule)
	if c.proxy.open { // clients need not log in
		r.rule, _ = c.rule()
	}
	if c.proxy.rates != nil {
		c.limiter = &publishLimiter{rates: c.proxy.rates, who: senderOf("", c.address), over: c.over}
		r.limiter = c.limiter
	}
	err := r.run()
	if errors.Is(err, errRefused) {
		<-c.over // the server sends the reason, and ends the connection
	}
	_ = c.server.Close()
	down.Wait()
	_, _ = io.Copy(io.Discard, c.client) // for as long as closeWrite allows
}

// closeWrite lets the client read the server's last output, and then the end. If a
// connection is closed while the client is still sending, it is reset, and unread
// output is lost.
func (c *proxyConn) closeWrite() {
	half, ok := c.client.(interface{ CloseWrite() error })
	if !ok || c.proxy.isClosed() || half.CloseWrite() != nil || c.client.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		_ = c.client.Close()
	}
}

// readInfo returns the server's first message.
func (c *proxyConn) readInfo() (info natsserver.Info, err error) {
	buf := largeBuffers.Get().(*[largeBufferSize]byte)
	defer largeBuffers.Put(buf)
	n := 0
	for n == 0 || buf[n-1] != '\n' { // it sends nothing else for now
		got, err := c.server.Read(buf[n:])
		if err != nil || got == 0 {
			return info, fmt.Errorf("got %q, want INFO: %w", buf[:min(n, 64)], cmp.Or(err, io.ErrShortBuffer))
		}
		n += got
	}
	return parseInfo(buf[:n])
}

// sendInfo passes on the first message of the server, and starts TLS.
func (c *proxyConn) sendInfo(info natsserver.Info) error {
	text, err := c.clientInfo(info)
	if err != nil {
		return err
	}
	if err := c.write(text); err != nil || c.secure == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.proxy.done, handshakeTimeout)
	defer cancel()
	over := tls.Server(c.client, c.secure)
	c.client = over
	return over.HandshakeContext(ctx)
}

// clientInfo returns the INFO for the client: that of the server, with what differs.
func (c *proxyConn) clientInfo(info natsserver.Info) ([]byte, error) {
	info.TLSAvailable, info.TLSRequired = false, c.secure != nil
	info.TLSVerify = c.secure != nil && c.proxy.verifies()
	if host, _, err := net.SplitHostPort(c.address); err == nil {
		info.ClientIP = host
	}
	if c.web {
		info.ClientConnectURLs = info.WSConnectURLs
	}
	text, err := json.Marshal(info)
	return fmt.Appendf(nil, "INFO %s\r\n", text), err
}

// close ends the connection on both sides.
func (c *proxyConn) close() {
	_ = c.client.Close() // either may already be closed
	_ = c.server.Close()
}

// rule returns the rule of the user as whom the server has accepted the client.
func (c *proxyConn) rule() (*replyRule, error) {
	if c.proxy.open {
		return &replyRule{everything: true}, nil
	}
	select {
	case r := <-c.admitted:
		if c.limiter != nil {
			c.limiter.who = senderOf(r.user, c.address)
		}
		return r, nil
	case <-c.over:
		return nil, errRefused
	}
}

// copyOutput gives the output of the server to forward, until the server ends the
// connection or forward fails, because the client does not read.
func (c *proxyConn) copyOutput(forward func([]byte) error) {
	smallBuf := make([]byte, outputBufferSize)
	var largeBuf *[largeBufferSize]byte
	for buf := smallBuf; ; {
		n, err := c.server.Read(buf)
		if n > 0 && c.authBusy.Load() {
			_ = c.write([]byte(busyChecking)) // if it fails, the client is gone
			return
		}
		if n > 0 && forward(buf[:n]) != nil || err != nil {
			return
		}
		switch {
		case largeBuf == nil && n == outputBufferSize:
			largeBuf = largeBuffers.Get().(*[largeBufferSize]byte)
			buf = largeBuf[:]
		case largeBuf != nil && n < outputBufferSize:
			largeBuffers.Put(largeBuf)
			largeBuf, buf = nil, smallBuf
		}
	}
}

func (c *proxyConn) write(text []byte) error {
	if err := c.client.SetWriteDeadline(time.Now().Add(clientTimeout)); err != nil {
		return err
	}
	_, err := c.client.Write(text)
	return err
}
