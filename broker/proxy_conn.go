package broker

import (
	"bytes"
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
	// handshakePatience is how long a client may take for TLS.
	handshakePatience = 5 * time.Second
	// clientPatience is how long a client may take to read what the server has for it
	// before it is cut off, as the server has it for clients of its own listener.
	clientPatience = natsserver.DEFAULT_FLUSH_DEADLINE
	// quietRoom is the room of a connection for what the server says when it says little,
	// and loudRoom that for each direction in which much is said, in bytes.
	quietRoom, loudRoom = 1 << 10, 64 << 10
)

// busyChecking is what a client is told that is to try again.
const busyChecking = "-ERR 'Too many passwords are being checked, try again in a moment'\r\n"

var loudRooms = sync.Pool{New: func() any { return new([loudRoom]byte) }}

// proxyConn is a client of NATS, and its connection to the server.
type proxyConn struct {
	proxy   *proxy
	id      uint64   // that of the connection to the server
	address string   // of the client
	client  net.Conn // over TLS when that is there
	server  net.Conn // in this process
	// admitted has the rule of the user when the server has let the client in.
	admitted chan *replyRule
	pace     *pace         // that of the relay; nil for any
	over     chan struct{} // closed when nothing more comes from the server
	// turnedAway says that the broker has no time to find out who the client is.
	turnedAway atomic.Bool
}

// serve speaks with the client until one of both sides ends it.
func (c *proxyConn) serve(info natsserver.Info, secure *tls.Config) {
	if err := c.greet(info, secure); err != nil {
		c.proxy.log.Debug("a client has gone before it said who it is", "address", c.address, "err", err)
		return
	}
	var down sync.WaitGroup
	down.Go(func() {
		c.tell()
		c.leave()
		close(c.over)
	})
	r := newRelay(c.client, c.server, c.rule)
	if c.proxy.open { // clients need not say who they are
		r.rule, _ = c.rule()
	}
	if c.proxy.rates != nil {
		c.pace = &pace{rates: c.proxy.rates, who: senderOf("", c.address), over: c.over}
		r.pace = c.pace
	}
	err := r.run()
	if errors.Is(err, errRefused) {
		<-c.over // the server says why, and ends it
	}
	_ = c.server.Close()
	down.Wait()
	_, _ = io.Copy(io.Discard, c.client) // as long as leave lets it
}

// leave has the client read what the server has said last, and then the end. A connection
// that is closed while the client still speaks is reset, and what it has not read is lost.
func (c *proxyConn) leave() {
	half, ok := c.client.(interface{ CloseWrite() error })
	if !ok || c.proxy.leaves() || half.CloseWrite() != nil || c.client.SetReadDeadline(time.Now().Add(lastWords)) != nil {
		_ = c.client.Close()
	}
}

// hear returns what the server says first.
func (c *proxyConn) hear() (info natsserver.Info, err error) {
	room := loudRooms.Get().(*[loudRoom]byte)
	defer loudRooms.Put(room)
	n := 0
	for n == 0 || room[n-1] != '\n' { // it says nothing more for now
		got, err := c.server.Read(room[n:])
		if err != nil || got == 0 {
			return info, fmt.Errorf("got %q, want INFO: %w", room[:min(n, 64)], cmp.Or(err, io.ErrShortBuffer))
		}
		n += got
	}
	text, ok := bytes.CutPrefix(room[:n], []byte("INFO "))
	if !ok {
		return info, fmt.Errorf("got %q, want INFO", room[:min(n, 64)])
	}
	return info, json.Unmarshal(text, &info)
}

// greet says what the server has said, and what is different for the client, and takes
// it to TLS.
func (c *proxyConn) greet(info natsserver.Info, secure *tls.Config) error {
	info.TLSAvailable, info.TLSRequired = false, secure != nil
	info.TLSVerify = secure != nil && c.proxy.verifies()
	if host, _, err := net.SplitHostPort(c.address); err == nil {
		info.ClientIP = host
	}
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := c.write(fmt.Appendf(nil, "INFO %s\r\n", text)); err != nil || secure == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.proxy.done, handshakePatience)
	defer cancel()
	over := tls.Server(c.client, secure)
	c.client = over
	return over.HandshakeContext(ctx)
}

// cut ends the connection, on both sides.
func (c *proxyConn) cut() {
	_ = c.client.Close() // one of both may be closed
	_ = c.server.Close()
}

// rule returns the rule of the user as whom the server has let the client in.
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

// tell tells the client what the server says, until the server ends the connection or
// the client does not take it.
func (c *proxyConn) tell() {
	quiet := make([]byte, quietRoom)
	var loud *[loudRoom]byte
	for room := quiet; ; {
		n, err := c.server.Read(room)
		if n > 0 && c.turnedAway.Load() {
			_ = c.write([]byte(busyChecking)) // there is nobody to tell that it has not arrived
			return
		}
		if n > 0 && c.write(room[:n]) != nil || err != nil {
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
	if err := c.client.SetWriteDeadline(time.Now().Add(clientPatience)); err != nil {
		return err
	}
	_, err := c.client.Write(text)
	return err
}
