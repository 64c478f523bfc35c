package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// startTimeout is how long the server may take to read its files.
const startTimeout = time.Minute

// Store is a server and its directory.
type Store struct {
	dir  string
	lock *lock
	log  *serverLog
	opts natsserver.Options
	// server is the running server, or the last one that ran; nil before the
	// first.
	server atomic.Pointer[natsserver.Server]
	sound  bool // the files are as they should be

	closing sync.Once
	err     error // the result of closing
}

// Open starts a server that keeps its files in dir, which is made if need be.
// It adds to opts what a server of this process needs; log may be nil. It is
// ErrInUse if another process, or another Store of this one, has the directory,
// and ErrDamaged if files in it are not as they were written.
func Open(dir string, opts natsserver.Options, log natsserver.Logger) (_ *Store, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	opts.NoSigs, opts.DisableJetStreamBanner, opts.JetStream, opts.StoreDir = true, true, true, dir
	s := &Store{dir: dir, lock: l, log: &serverLog{next: log}, opts: opts}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.sound = true
	return s, nil
}

// start starts a server.
func (s *Store) start() error {
	if err := checkFiles(s.dir); err != nil {
		return err
	}
	opts := s.opts // a copy, because the server changes them
	server, err := natsserver.NewServer(&opts)
	if err != nil {
		return err
	}
	s.server.Store(server)
	server.SetLoggerV2(s.log, false, false, false)
	server.Start()
	if !server.ReadyForConnections(startTimeout) || !server.JetStreamEnabled() {
		return fmt.Errorf("the store does not start: %w", s.log.asError())
	}
	if opts.Cluster.Name == "" { // in a cluster it becomes known later which streams there are
		return s.checkStreams()
	}
	return nil
}

// Server returns the server that runs, or the last one that did. It is another one after
// Revive.
func (s *Store) Server() *natsserver.Server { return s.server.Load() }

// InProcessConn is what nats.InProcessServer asks for: a connection to the server that runs.
func (s *Store) InProcessConn() (net.Conn, error) { return s.Server().InProcessConn() }

// Listen lets clients connect to a server that was started with DontListen.
func (s *Store) Listen() {
	s.opts.DontListen = false // also after Revive
	s.Server().AcceptLoop(make(chan struct{}))
}

// Addr returns where the server listens, nil if it does not.
func (s *Store) Addr() net.Addr { return s.Server().Addr() }

// Dir returns the directory, as an absolute path.
func (s *Store) Dir() string { return s.dir }

// Listened reports whether anything but a given number of subscriptions to the subject
// itself takes what is published to it: a subscription, also one at another server of the
// cluster, or a stream.
func (s *Store) Listened(subject string, own int) bool {
	account := s.Server().GlobalAccount()
	if own == 0 {
		return account.SubscriptionInterest(subject)
	}
	// The server counts subscriptions to patterns and to the subject itself, but may
	// leave some out if there are both. So look for patterns first: a token * in a
	// subject to match is one that only patterns match.
	for from := 0; from <= len(subject); {
		to := from + strings.IndexByte(subject[from:]+".", '.')
		if account.SubscriptionInterest(subject[:from] + "*" + subject[to:]) {
			return true
		}
		from = to + 1
	}
	return account.Interest(subject) != own
}

// WriteFault says which write to the disk has failed, "" if none has. The server
// does not answer publishers of the stream any more, until it is started again;
// what it has acknowledged is there.
func (s *Store) WriteFault() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.writeFault
}

// Leaderless reports whether the server belongs to a cluster that has no leader, as while
// half of its servers or more do not run. Nothing can be stored then.
func (s *Store) Leaderless() bool {
	groups := s.Server().Raftz(&natsserver.RaftzOptions{GroupFilter: "_meta_"}) // of the servers themselves
	if groups == nil {
		return false
	}
	for _, account := range *groups {
		for _, g := range account {
			return g.Leader == ""
		}
	}
	return false // a single server
}

// Faulty reports whether the server does not run, or has given up something for want of a
// disk to write to.
func (s *Store) Faulty() bool {
	server := s.Server()
	return s.WriteFault() != "" || !server.Running() || !server.JetStreamEnabled()
}

// probeSize is how much room there must be before streams are tried again, in
// bytes: the size of a stream's block.
const probeSize = 8 << 20

// HasRoom returns nil if some megabytes can be written to the directory, and otherwise
// why not.
func (s *Store) HasRoom() (err error) {
	f, err := os.CreateTemp(s.dir, "probe-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(make([]byte, probeSize))
	return errors.Join(err, f.Sync(), f.Close())
}

// Revive ends the server and starts another one in its place, with the same addresses: the
// one way to have those streams back that it has given up. Clients connect again. What is in
// memory alone is lost. It must not be called beside Close.
func (s *Store) Revive() error {
	old := s.Server()
	s.keepAddresses(old)
	old.Shutdown()
	old.WaitForShutdown()
	s.log.forget()
	err := s.start()
	if failed := s.Server(); err != nil && failed != old {
		failed.Shutdown()
		failed.WaitForShutdown()
	}
	return err
}

// keepAddresses makes the next server listen where this one does, including on
// ports that this one chose.
func (s *Store) keepAddresses(server *natsserver.Server) {
	v, err := server.Varz(nil)
	if err != nil {
		return
	}
	for at, port := range map[*int]int{&s.opts.Port: v.Port, &s.opts.MQTT.Port: v.MQTT.Port, &s.opts.Websocket.Port: v.Websocket.Port, &s.opts.Cluster.Port: v.Cluster.Port} {
		if *at == natsserver.RANDOM_PORT {
			*at = port
		}
	}
}

// Close ends the server, lists its files and lets others have the directory. It
// is idempotent, and takes some 10 ms for each group of the store.
func (s *Store) Close() error {
	s.closing.Do(func() {
		if server := s.Server(); server != nil {
			server.Shutdown()
			server.WaitForShutdown()
		}
		if s.sound {
			s.err = writeList(s.dir)
		}
		s.err = errors.Join(s.err, s.lock.release())
	})
	return s.err
}

// checkStreams looks for streams that the server has skipped, and for files
// that it could not read.
func (s *Store) checkStreams() error {
	if said := s.log.about("corrupt record"); said != "" {
		return fmt.Errorf("a file of the store is %w, and what follows the damage in it is lost: %s; opening the store again continues with the rest", ErrDamaged, said)
	}
	dir := filepath.Join(s.dir, StreamsDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := s.Server().Jsz(&natsserver.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			known[stream.Name] = true
		}
	}
	for _, e := range entries {
		if e.IsDir() && !known[e.Name()] && !isLeftover(e.Name()) {
			return fmt.Errorf("%s is %w: %w", filepath.Join(dir, e.Name()), ErrDamaged, s.log.asError())
		}
	}
	return nil
}
