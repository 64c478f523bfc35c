package broker

import (
	"encoding/json"
	"net/http"
)

// mountHealth adds /healthz, which says that the process works, and /readyz, which
// says whether it can take messages.
func (w *webServer) mountHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		answer(rw, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if reason := w.broker.unready(); reason != "" {
			answer(rw, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": reason})
			return
		}
		answer(rw, http.StatusOK, map[string]string{"status": "ok"})
	})
}

// unready says why the broker cannot take messages, "" if it can.
func (b *Broker) unready() string {
	switch {
	case !b.store.Running():
		return "the server does not run"
	case !b.store.JetStreamEnabled():
		return "the store has been switched off, perhaps because the disk is full"
	case !b.client.IsConnected():
		return "the broker is not connected to its server"
	}
	return ""
}

// answer writes JSON.
func answer(rw http.ResponseWriter, status int, v any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(v) // the client may have gone
}
