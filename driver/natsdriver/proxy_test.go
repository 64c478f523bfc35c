package natsdriver

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between a client and a server. It can cut the connection, hold back
// what either of them sends, or lose what the client sends.
type proxy struct {
	t        *testing.T
	to       string
	listener net.Listener
	tasks    sync.WaitGroup

	held         sync.RWMutex // locked while data from the server is held back
	heldRequests sync.RWMutex // locked while data from the client is held back

	mu    sync.Mutex // guards the fields below
	conns map[net.Conn]struct{}
	isCut bool
	loses bool // everything from the client after left bytes
	left  int
	lost  int // bytes
}

// proxyAnswers is the direction from the server to the client.
type proxyAnswers struct {
	p  *proxy
	to net.Conn
}

func (a proxyAnswers) Write(b []byte) (int, error) {
	a.p.held.RLock()
	defer a.p.held.RUnlock()
	return a.to.Write(b)
}

// hold holds back data from the server until the returned function is called.
func (p *proxy) hold() (release func()) {
	p.held.Lock()
	return sync.OnceFunc(p.held.Unlock)
}

// proxyRequests is the direction from the client to the server.
type proxyRequests struct {
	p  *proxy
	to net.Conn
}

func (r proxyRequests) Write(b []byte) (int, error) {
	r.p.heldRequests.RLock()
	defer r.p.heldRequests.RUnlock()
	r.p.mu.Lock()
	n := len(b)
	if r.p.loses {
		n = min(n, r.p.left)
		r.p.left -= n
		r.p.lost += len(b) - n
	}
	r.p.mu.Unlock()
	if _, err := r.to.Write(b[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

// holdRequests holds back data from the client until the returned function is
// called.
func (p *proxy) holdRequests() (release func()) {
	p.heldRequests.Lock()
	return sync.OnceFunc(p.heldRequests.Unlock)
}

// loseAfter loses all data from the client after the next n bytes, until mend.
func (p *proxy) loseAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loses, p.left = true, n
}

// awaitLoss returns when something has been lost.
func (p *proxy) awaitLoss(t *testing.T) {
	t.Helper()
	eventually(t, "something is lost", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.lost > 0
	})
}

// startProxy returns a proxy for the server, which stops when the test ends.
func (s *testServer) startProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, to: s.srv.Addr().String(), listener: l, conns: map[net.Conn]struct{}{}}
	p.tasks.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close() // ends serve
		p.cut()
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close() // the server may be down
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = struct{}{}, struct{}{}
		if p.isCut {
			p.closeLocked()
		}
		p.mu.Unlock()
		carry := func(to io.Writer, from net.Conn) {
			_, _ = io.Copy(to, from) // until one of them is closed
			_, _ = in.Close(), out.Close()
		}
		p.tasks.Go(func() { carry(proxyRequests{p, out}, in) })
		p.tasks.Go(func() { carry(proxyAnswers{p, in}, out) })
	}
}

func (p *proxy) closeLocked() {
	for c := range p.conns {
		_ = c.Close() // it may be closed already
	}
	clear(p.conns)
}

// cut closes all connections, and every new one until mend.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	p.closeLocked()
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut, p.loses = false, false
}
