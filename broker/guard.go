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

// guard decides which HTTP requests the broker answers at all: those that are
// addressed to it, and that were not sent by a browser on behalf of a foreign web
// page.
type guard struct {
	hosts   []string // names by which the broker may be addressed
	origins []string // origins of web pages that may send requests
	cert    *x509.Certificate
	// last is the host that was last accepted, as the request spelled it: nearly
	// always that of the next request too.
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

// maxFields is how many header fields a request may have: many small ones take ten
// times the memory of their text, for as long as the request is answered.
const maxFields = 100

// check returns why a request must not be answered, or nil.
func (g *guard) check(r *http.Request) *refusal {
	if len(r.Header) > maxFields {
		return refused(http.StatusRequestHeaderFieldsTooLarge, "the request has more than %d header fields", maxFields)
	}
	if !g.knowsHost(r.Host) {
		return refused(http.StatusMisdirectedRequest, "the broker does not serve the host name %q", hostname(r.Host)).
			but("use its address or localhost, or add the name to web.hosts")
	}
	if origin := headerValue(r.Header, "Origin"); origin != "" {
		if !g.knowsOrigin(origin, r) {
			return refused(http.StatusForbidden, "web pages of %q may not send requests to this broker", origin).but("add its origin to web.origins")
		}
		return nil
	}
	// A browser that does not send the page's origin says whether it is another
	// site.
	link := r.Method == http.MethodGet && headerValue(r.Header, "Sec-Fetch-Mode") == "navigate"
	if headerValue(r.Header, "Sec-Fetch-Site") == "cross-site" && !link {
		return refused(http.StatusForbidden, "web pages of other sites may not send requests to this broker").but("add its origin to web.origins")
	}
	return nil
}

// headerValue returns the value of a header whose name is in the canonical form. Unlike
// Header.Get it does not bring it into that form for each request.
func headerValue(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// knowsHost reports whether the broker may be addressed by a name. A page can point
// its own name to any address (DNS rebinding), so only names that nobody else can
// have are accepted: addresses, localhost, the names in the certificate, and those
// in the configuration.
func (g *guard) knowsHost(host string) bool {
	if last := g.last.Load(); last != nil && *last == host {
		return true
	}
	if !g.allows(hostname(host)) {
		return false
	}
	accepted := host // a copy, so that host is allocated for this alone
	g.last.Store(&accepted)
	return true
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

// knowsOrigin reports whether pages of an origin may send requests: those served by
// the broker itself, and those in the configuration.
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

// share lets a page of another origin, which check has accepted, read the answer.
// It reports whether it has answered the request itself: browsers first ask whether
// they may send it.
func (g *guard) share(rw http.ResponseWriter, r *http.Request) bool {
	origin := headerValue(r.Header, "Origin")
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

// isOrigin reports whether a text has the form of an origin as browsers send it.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Scheme+"://"+u.Host == s && s == strings.ToLower(s)
}

// limitListener limits how many connections are open at once; further ones wait.
type limitListener struct {
	net.Listener
	room chan struct{}
	done context.Context // ends when the listener is closed
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

// limitConn makes room for another connection when it is closed.
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
