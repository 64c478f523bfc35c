package broker

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/internal/store"
)

// startServer starts the NATS server.
func startServer(c *Config, auth *authenticator, before *proxy, log natsserver.Logger) (*store.Store, error) {
	opts := natsserver.Options{
		ServerName: c.Name, SyncAlways: true,
		MaxPayload: int32(c.Limits.Message), MaxPending: c.Limits.Pending, MaxConn: int(min(c.Limits.Connections, 1<<30)), MaxSubs: int(min(c.Limits.Subscriptions, 1<<30)),
		JetStreamMaxMemory: c.Limits.Memory, JetStreamMaxStore: c.Limits.Disk, AuthTimeout: 5,
	}
	if opts.JetStreamMaxMemory == 0 {
		opts.JetStreamMaxMemory = -1
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = -1
	}
	if err := c.Cluster.join(&opts); err != nil {
		return nil, err
	}
	if auth != nil {
		opts.CustomClientAuthentication = auth
		// Two seconds after a client has logged in the server would ping it, and
		// checking a password may take longer when many clients come at once.
		// Clients expect to hear first whether they are let in.
		opts.DisableShortFirstPing = true
	}
	if before != nil {
		before.hideServer(c, &opts)
	} else if err := c.setListeners(&opts); err != nil {
		return nil, err
	}
	opts.DontListen = opts.DontListen || c.listensLate()
	if c.MQTT.Listen != off { // these connect to the server itself, which applies users and permissions
		host, port, err := listenAt("mqtt.listen", c.MQTT.Listen)
		if err != nil {
			return nil, err
		}
		secure, err := c.TLS.load()
		if err != nil {
			return nil, err
		}
		opts.MQTT = natsserver.MQTTOpts{Host: host, Port: port, TLSConfig: secure, TLSTimeout: 5, AuthTimeout: 5}
	}
	s, err := store.Open(c.Data, opts, log)
	if err != nil {
		return nil, fmt.Errorf("data in %s: %w", c.Data, err)
	}
	if s.Addr() == nil && !opts.DontListen {
		return nil, errors.Join(c.notListening(), s.Close())
	}
	return s, nil
}

// listensLate says that clients of NATS can connect only once the topics of the
// configuration are there: what somebody published to one of them before would not be
// stored. Servers of a cluster need each other before that. Where there are users, their
// programs ask the broker where topics are, and wait for the answer.
func (c *Config) listensLate() bool { return c.Cluster.Listen == "" && len(c.Users) == 0 }

// letClientsIn lets clients of NATS connect that could not so far.
func (b *Broker) letClientsIn(c *Config) error {
	switch {
	case b.store == nil || !c.listensLate():
	case b.proxy != nil:
		b.proxy.serve(b.store.InProcessConn, b.MQTTAddr)
	default:
		if b.store.Listen(); b.store.Addr() == nil {
			return c.notListening()
		}
	}
	return nil
}

func (c *Config) notListening() error {
	return fmt.Errorf("listen on %s: the address is in use", c.Listen)
}

// setListeners adds the listeners for NATS clients, for a server without a proxy.
func (c *Config) setListeners(opts *natsserver.Options) (err error) {
	if opts.TLSConfig, err = c.TLS.load(); err != nil {
		return err
	}
	opts.TLSVerify, opts.TLSTimeout = opts.TLSConfig != nil && c.TLS.ClientCA != "", 5
	if opts.Host, opts.Port, err = listenAt("listen", c.Listen); err != nil {
		return err
	}
	if c.WebSocket.Listen == off {
		return nil
	}
	host, port, err := listenAt("websocket.listen", c.WebSocket.Listen)
	if err != nil {
		return err
	}
	opts.Websocket = natsserver.WebsocketOpts{
		Host: host, Port: port, TLSConfig: opts.TLSConfig, NoTLS: opts.TLSConfig == nil, HandshakeTimeout: 5 * time.Second, AuthTimeout: 5,
	}
	switch {
	case len(c.Web.Origins) == 0:
		opts.Websocket.SameOrigin = true
	case !slices.Contains(c.Web.Origins, "*"):
		opts.Websocket.AllowedOrigins = c.Web.Origins
	}
	return nil
}

// listenAt returns an address in the form that the server takes.
func listenAt(key, address string) (host string, port int, err error) {
	host, name, err := splitAddress(address)
	if err != nil {
		return "", 0, err
	}
	if port, err = net.LookupPort("tcp", name); err != nil {
		return "", 0, err
	}
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, portIsFree(key, address)
}

// portIsFree returns an error with advice if an address is in use.
func portIsFree(key, address string) error {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l.Close()
	}
	return listenError(key, address, err)
}

func listenError(key, address string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	_, port, _ := net.SplitHostPort(address)
	return fmt.Errorf("listen on %s: another program has the port, perhaps another hark serve (lsof -i :%s tells); stop it, or choose another one with --%s", address, port, flagName(key))
}

// connect connects the broker's own client, in this process.
func connect(s *store.Store, auth *authenticator) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.InProcessServer(s), nats.Name("hark broker"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	if auth != nil {
		opts = append(opts, nats.UserInfo(internalUser, auth.secret))
	}
	return nats.Connect("", opts...)
}
