package natsdriver

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between a client and a server. It can cut the connection, or hold
// back what the server sends.
type proxy struct {
	t        *testing.T
	to       string
	listener net.Listener
	tasks    sync.WaitGroup

	held sync.RWMutex // locked while data from the server is held back

	mu    sync.Mutex // guards the fields below
	conns map[net.Conn]struct{}
	isCut bool
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
		p.tasks.Go(func() { carry(out, in) })
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
	p.isCut = false
}
