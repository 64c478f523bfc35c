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
	// quietRoom is the buffer size of a connection for a server that says little,
	// and loudRoom that of each direction that carries much, in bytes.
	quietRoom, loudRoom = 1 << 10, 64 << 10
)

// busyChecking tells a client to try again.
const busyChecking = "-ERR 'Too many passwords are being checked, try again in a moment'\r\n"

var loudRooms = sync.Pool{New: func() any { return new([loudRoom]byte) }}

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
	pace     *pace         // the relay's pace; nil for no limit
	over     chan struct{} // closed when nothing more comes from the server
	// turnedAway says that the broker had no time to authenticate the client.
	turnedAway atomic.Bool
}

// serve relays between the client and the server until one of them ends the
// connection.
func (c *proxyConn) serve(info natsserver.Info) {
	if err := c.greet(info); err != nil {
		c.proxy.log.Debug("a client has gone before it said who it is", "address", c.address, "err", err)
		return
	}
	var down sync.WaitGroup
	down.Go(func() {
		words := serverWords{write: c.write, present: c.present}
		c.tell(words.pass)
		c.leave()
		close(c.over)
	})
	r := newRelay(c.client, c.server, c.rule)
	if c.proxy.open { // clients need not log in
		r.rule, _ = c.rule()
	}
	if c.proxy.rates != nil {
		c.pace = &pace{rates: c.proxy.rates, who: senderOf("", c.address), over: c.over}
		r.pace = c.pace
	}
	err := r.run()
	if errors.Is(err, errRefused) {
		<-c.over // the server sends the reason, and ends the connection
	}
	_ = c.server.Close()
	down.Wait()
	_, _ = io.Copy(io.Discard, c.client) // for as long as leave allows
}

// leave lets the client read the server's last output, and then the end. If a
// connection is closed while the client is still sending, it is reset, and unread
// output is lost.
func (c *proxyConn) leave() {
	half, ok := c.client.(interface{ CloseWrite() error })
	if !ok || c.proxy.leaves() || half.CloseWrite() != nil || c.client.SetReadDeadline(time.Now().Add(lastWords)) != nil {
		_ = c.client.Close()
	}
}

// hear returns the server's first message.
func (c *proxyConn) hear() (info natsserver.Info, err error) {
	room := loudRooms.Get().(*[loudRoom]byte)
	defer loudRooms.Put(room)
	n := 0
	for n == 0 || room[n-1] != '\n' { // it sends nothing else for now
		got, err := c.server.Read(room[n:])
		if err != nil || got == 0 {
			return info, fmt.Errorf("got %q, want INFO: %w", room[:min(n, 64)], cmp.Or(err, io.ErrShortBuffer))
		}
		n += got
	}
	return parseInfo(room[:n])
}

// greet passes on the server's first message, and starts TLS.
func (c *proxyConn) greet(info natsserver.Info) error {
	text, err := c.present(info)
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

// present returns an INFO of the server with what differs for the client.
func (c *proxyConn) present(info natsserver.Info) ([]byte, error) {
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

// cut ends the connection on both sides.
func (c *proxyConn) cut() {
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
		if c.pace != nil {
			c.pace.who = senderOf(r.user, c.address)
		}
		return r, nil
	case <-c.over:
		return nil, errRefused
	}
}

// tell gives the server's output to pass, until the server ends the connection or
// pass fails, because the client does not read.
func (c *proxyConn) tell(pass func([]byte) error) {
	quiet := make([]byte, quietRoom)
	var loud *[loudRoom]byte
	for room := quiet; ; {
		n, err := c.server.Read(room)
		if n > 0 && c.turnedAway.Load() {
			_ = c.write([]byte(busyChecking)) // if it fails, nobody is there to be told
			return
		}
		if n > 0 && pass(room[:n]) != nil || err != nil {
			return
		}
		switch {
		case loud == nil && n == quietRoom:
			loud = loudRooms.Get().(*[loudRoom]byte)
			room = loud[:]
		case loud != nil && n < quietRoom:
			loudRooms.Put(loud)
			loud, room = nil, quiet
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
