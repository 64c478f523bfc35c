package broker

import (
	"net/http"

	"github.com/harkbus/hark/internal/release"
)

// healthEndpoints say whether the process lives, and whether it can take messages.
func healthEndpoints() []endpoint {
	return []endpoint{
		{
			method: http.MethodGet, path: "/healthz", name: "isAlive", summary: "whether the process is alive, and its release of hark", access: anybody,
			answer: jsonAnswer(alive{}),
			handle: func(c *call) error { return c.reply(alive{"ok", release.Version()}) },
		},
		{
			method: http.MethodGet, path: "/readyz", name: "isReady", summary: "whether the broker can take messages", access: anybody,
			answer: jsonAnswer(health{}), also: []int{http.StatusServiceUnavailable},
			handle: func(c *call) error {
				if reason := c.broker.unready(); reason != "" {
					return refused(http.StatusServiceUnavailable, "%s", reason)
				}
				return c.reply(health{"ok"})
			},
		},
	}
}

type alive struct {
	Status  string `json:"status" doc:"ok"`
	Version string `json:"version" doc:"the version of hark, such as v1.2.0; (devel) for a build from source without a version"`
}

type health struct {
	Status string `json:"status" doc:"ok"`
}

// unready says why the broker cannot take messages, "" if it can.
func (b *Broker) unready() string {
	switch {
	case b.store == nil:
		if !b.client.IsConnected() {
			return "the broker is not connected to its engine"
		}
		return ""
	case !b.store.Server().Running():
		return "the server is not running"
	case !b.store.Server().JetStreamEnabled():
		return "the server has disabled its store, perhaps because the disk is full; free some space, and the broker recovers by itself"
	case b.store.WriteFault() != "":
		return "a write to the disk failed (see the log); free some space, and the broker recovers by itself; everything it acknowledged is stored"
	case b.store.Leaderless():
		return "the cluster has no leader, for which more than half of its servers must run: nothing can be stored"
	case !b.client.IsConnected():
		return "the broker is not connected to its server"
	}
	return ""
}
