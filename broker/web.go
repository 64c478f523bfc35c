package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// webServer serves HTTP. What it serves is in a file of its own for each noun,
// and mounted by handler.
type webServer struct {
	broker   *Broker
	listener net.Listener // nil if there is to be none
	server   *http.Server
	running  sync.WaitGroup
}

// handler returns all that is served.
func (w *webServer) handler() http.Handler {
	mux := http.NewServeMux()
	w.mountHealth(mux)
	return mux
}

// listenWeb takes the address. Nothing is answered before serve.
func listenWeb(b *Broker) (*webServer, error) {
	w := &webServer{broker: b}
	c := b.config
	if c.HTTP == off {
		return w, nil
	}
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	if w.listener, err = net.Listen("tcp", c.HTTP); err != nil {
		return nil, listenError("http", c.HTTP, err)
	}
	if tlsConfig != nil {
		w.listener = tls.NewListener(w.listener, tlsConfig)
	}
	w.server = &http.Server{
		Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: newErrorLog(b.log),
	}
	return w, nil
}

// serve begins to answer.
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

// close answers what has been asked, and ends.
func (w *webServer) close(ctx context.Context) error {
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
	return err
}
