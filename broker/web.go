package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"sync"
	"time"
)

// webServer serves the endpoints over HTTP.
type webServer struct {
	broker    *Broker
	listener  net.Listener // nil if HTTP is off
	server    *http.Server
	endpoints []endpoint
	guard     *guard
	rates     *rates
	metrics   *metrics
	running   sync.WaitGroup

	streams   context.Context // ends when streaming calls must end
	endAll    context.CancelFunc
	streaming sync.WaitGroup // the streaming calls

	mu      sync.Mutex         // guards callers
	callers map[*call]struct{} // the streaming calls of users
}

// handler returns the handler of all endpoints.
func (w *webServer) handler() http.Handler {
	mux, known, direct := http.NewServeMux(), http.NewServeMux(), directTable{}
	for i := range w.endpoints {
		e := &w.endpoints[i]
		pattern, serve := e.method+" "+e.path, w.serveEndpoint(e)
		h := func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, "") }
		mux.HandleFunc(pattern, h)
		known.HandleFunc(pattern, h)
		direct.add(e, serve)
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { w.refuseUnknown(rw, r, known) })
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if why := w.guard.check(r); why != nil {
			why.write(rw)
			return
		}
		if w.guard.share(rw, r) {
			return
		}
		if serve, last := direct.find(r); serve != nil {
			serve(rw, r, last)
			return
		}
		mux.ServeHTTP(rw, r)
	})
}

// refuseUnknown answers a request without an endpoint in the form of the API, with
// the status that the mux would answer.
func (w *webServer) refuseUnknown(rw http.ResponseWriter, r *http.Request, known http.Handler) {
	probe := &statusProbe{header: http.Header{}}
	known.ServeHTTP(probe, r)
	w.metrics.observe("none", probe.status, 0)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed {
		rw.Header().Set("Allow", allow)
		refused(probe.status, "%s cannot be asked of %s", r.Method, r.URL.Path).but("it answers %s", allow).write(rw)
		return
	}
	refused(http.StatusNotFound, "there is no endpoint at %s", r.URL.Path).but("/v1/openapi.json lists the endpoints").write(rw)
}

// statusProbe finds out the status with which a handler answers.
type statusProbe struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (p *statusProbe) Header() http.Header { return p.header }

// Write implements http.ResponseWriter.
func (p *statusProbe) Write(text []byte) (int, error) { return len(text), nil }

// WriteHeader implements http.ResponseWriter.
func (p *statusProbe) WriteHeader(status int) { p.status = status }

// listenWeb opens the listener. Nothing is answered before serve.
func listenWeb(b *Broker, es []endpoint) (*webServer, error) {
	c := b.config.Load()
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	w := &webServer{broker: b, endpoints: es, metrics: newMetrics(b, maxLabelled), guard: newGuard(c, tlsConfig), rates: newRates(c.Limits.HTTPRate), callers: map[*call]struct{}{}}
	w.streams, w.endAll = context.WithCancel(context.Background())
	if c.HTTP == off {
		return w, nil
	}
	if w.listener, err = net.Listen("tcp", c.HTTP); err != nil {
		return nil, listenError("http", c.HTTP, err)
	}
	w.listener = newLimitListener(w.listener, int(min(c.Limits.HTTPConnections, 1<<20)))
	if tlsConfig != nil {
		w.listener = tls.NewListener(w.listener, tlsConfig)
	}
	w.server = &http.Server{
		Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ReadTimeout: callTimeout, WriteTimeout: callTimeout + writeTimeout, // for all calls but streams
		ErrorLog: newErrorLog(b.log),
	}
	return w, nil
}

// serve starts to answer requests.
func (w *webServer) serve() {
	if w.server == nil {
		return
	}
	w.running.Go(func() {
		if err := w.server.Serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
			w.broker.log.Error("HTTP ended", "err", err)
		}
	})
}

// close answers requests in progress, ends streams, and returns when all are done.
func (w *webServer) close(ctx context.Context) error {
	w.endAll()
	if w.server == nil {
		return nil
	}
	err := w.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, w.server.Close())
	}
	if closeErr := w.listener.Close(); !errors.Is(closeErr, net.ErrClosed) { // if serve has not been called
		err = errors.Join(err, closeErr)
	}
	w.running.Wait()
	return errors.Join(err, w.streamsEnd(ctx))
}

// streamsEnd waits for the streams, including those that have taken over their
// connection.
func (w *webServer) streamsEnd(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { w.streaming.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a stream over HTTP has not ended: %w", context.Cause(ctx))
	}
}

// admit remembers a streaming call of a user, until leave is called, so that it ends when
// the user is removed or changed. It is refused if that has just happened.
func (w *webServer) admit(c *call) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.broker.auth.users.Load().byName[c.who.user.Name]; now == nil || !reflect.DeepEqual(now.UserConfig, c.who.user.UserConfig) {
		return errUserChanged(c.who)
	}
	w.callers[c] = struct{}{}
	return nil
}

func (w *webServer) leave(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.callers, c)
}

// cut ends the streaming calls of users who do not stay as they are.
func (w *webServer) cut(stays map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.callers {
		if !stays[c.who.user.Name] {
			c.end(errUserChanged(c.who))
		}
	}
}

func errUserChanged(who *principal) error {
	return refused(http.StatusUnauthorized, "user %s was removed or changed during the request", who.who()).but("send it again, with valid credentials")
}
