package filedriver

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// startPatience is how long the server may take to read its files.
	startPatience = time.Minute
	// maxPayload is how large a message may be, with its headers.
	maxPayload = 8 << 20
	// syncInterval is how long the server leaves to the operating system what
	// nobody waits for to be on the disk.
	syncInterval = time.Second
)

// server is a NATS server in this process.
type server struct {
	*natsserver.Server
	log *complaints
}

// startServer starts a server that keeps its files in dir.
func startServer(dir string) (*server, error) {
	s, err := natsserver.NewServer(&natsserver.Options{
		ServerName: "hark", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: dir, SyncInterval: syncInterval, MaxPayload: maxPayload, MaxPending: 256 << 20,
	})
	if err != nil {
		return nil, err
	}
	log := &complaints{}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	srv := &server{s, log}
	if !s.ReadyForConnections(startPatience) || !s.JetStreamEnabled() {
		srv.stop()
		return nil, fmt.Errorf("the store does not start: %w", log.asError())
	}
	return srv, nil
}

// stop ends the server.
func (s *server) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// connect returns a client in this process.
func (s *server) connect() (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s), nats.Name("hark"), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// complaints are what the server logs of trouble. It implements the server's
// Logger.
type complaints struct {
	mu   sync.Mutex // guards said
	said []string
}

// maxComplaints bounds what is kept.
const maxComplaints = 20

func (c *complaints) add(format string, v ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) < maxComplaints {
		c.said = append(c.said, strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

// about returns what was said with these words in it, or "".
func (c *complaints) about(words string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, said := range c.said {
		if strings.Contains(said, words) {
			return said
		}
	}
	return ""
}

// asError returns what was said.
func (c *complaints) asError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) == 0 {
		return errors.New("the server does not say why")
	}
	return errors.New(strings.Join(c.said, "; "))
}

func (c *complaints) Noticef(string, ...any)         {}
func (c *complaints) Debugf(string, ...any)          {}
func (c *complaints) Tracef(string, ...any)          {}
func (c *complaints) Warnf(format string, v ...any)  { c.add(format, v...) }
func (c *complaints) Errorf(format string, v ...any) { c.add(format, v...) }
func (c *complaints) Fatalf(format string, v ...any) { c.add(format, v...) }
