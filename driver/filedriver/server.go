package filedriver

import (
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/internal/store"
)

const (
	// maxPayload is the largest size of a message in bytes, including its
	// headers.
	maxPayload = 8 << 20
	// syncInterval is how often the server syncs what no one waits for.
	syncInterval = time.Second
)

// startServer starts a server that keeps its files in dir and listens nowhere.
func startServer(dir string) (*store.Store, error) {
	return store.Open(dir, natsserver.Options{
		ServerName: "hark", DontListen: true, SyncInterval: syncInterval, MaxPayload: maxPayload, MaxPending: 256 << 20,
	}, nil)
}

// connect returns an in-process client.
func connect(s *store.Store) (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s), nats.Name("hark"), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}
