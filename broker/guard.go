package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
)

// guard decides for which requests over HTTP the broker answers at all: those that
// are meant for it, and that no foreign web page has made a browser send.
type guard struct {
	hosts   []string // names by which it may be asked
	origins []string // of web pages that may ask
	cert    *x509.Certificate
	// last is the host that was known last, as it was asked for: nearly always that
	// of the next request.
	last atomic.Pointer[string]
}

// newGuard returns the guard of a configuration.
func newGuard(c *Config, t *tls.Config) *guard {
	g := &guard{hosts: c.Web.Hosts, origins: c.Web.Origins}
	if t != nil {
		g.cert = t.Certificates[0].Leaf
	}
	return g
}

// check returns why a request is not answered, nil if it may be.
func (g *guard) check(r *http.Request) *refusal {
	if !g.knowsHost(r.Host) {
		return refused(http.StatusMisdirectedRequest, "the broker is not called %q", hostname(r.Host)).
			but("ask it by its address or localhost, or add the name to web.hosts")
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if !g.knowsOrigin(origin, r) {
			return refused(http.StatusForbidden, "a web page of %q may not ask this broker", origin).but("add its origin to web.origins")
		}
		return nil
	}
	// A browser that does not say where a page is from says whether it is another
	// site.
	link := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && !link {
		return refused(http.StatusForbidden, "a web page of another site may not ask this broker").but("add its origin to web.origins")
	}
	return nil
}

// knowsHost reports whether the broker may be asked by a name. A page can have its
// own name lead to any address (DNS rebinding), so a name counts that nobody else
// can have: an address, localhost, what the certificate is for, and what the
// configuration says.
func (g *guard) knowsHost(host string) bool {
	if last := g.last.Load(); last != nil && *last == host {
		return true
	}
	known := g.allows(hostname(host))
	if known {
		g.last.Store(&host)
	}
	return known
}

// allows is knowsHost for a name without a port.
func (g *guard) allows(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || g.cert != nil && g.cert.VerifyHostname(name) == nil ||
		slices.Contains(g.hosts, "*") || slices.Contains(g.hosts, name)
}

// hostname returns a host without its port, and without the brackets of IPv6.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// knowsOrigin reports whether pages of an origin may ask: those that the broker
// itself has served, and those of the configuration.
func (g *guard) knowsOrigin(origin string, r *http.Request) bool {
	if slices.Contains(g.origins, "*") || slices.Contains(g.origins, strings.ToLower(origin)) {
		return true
	}
	u, err := url.Parse(origin)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return err == nil && u.Scheme == scheme && strings.EqualFold(u.Host, r.Host)
}

// share lets a page of another origin, which check has let through, read the answer.
// It reports whether it has answered: browsers ask first whether they may ask.
func (g *guard) share(rw http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	h := rw.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	h.Set("Access-Control-Max-Age", "600")
	rw.WriteHeader(http.StatusNoContent)
	return true
}

// isOrigin reports whether a text is what a browser calls an origin.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Scheme+"://"+u.Host == s && s == strings.ToLower(s)
}

// limitListener lets so many connections be open; further ones wait.
type limitListener struct {
	net.Listener
	room chan struct{}
	done context.Context // ends with the listener
	end  context.CancelFunc
}

func newLimitListener(l net.Listener, most int) *limitListener {
	done, end := context.WithCancel(context.Background())
	return &limitListener{l, make(chan struct{}, most), done, end}
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.done.Done():
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	c := &limitConn{Conn: conn}
	c.closed, c.release = context.WithCancel(context.Background())
	context.AfterFunc(c.closed, func() { <-l.room })
	return c, nil
}

// Close implements net.Listener.
func (l *limitListener) Close() error {
	l.end()
	return l.Listener.Close()
}

// limitConn makes room for another one when it is closed.
type limitConn struct {
	net.Conn
	closed  context.Context
	release context.CancelFunc
}

// Close implements net.Conn.
func (c *limitConn) Close() error {
	c.release()
	return c.Conn.Close()
}
