package broker

import (
	"log/slog"
	"time"
)

// Config says what a broker does. Make one with Default or Load: the zero Config
// has limits of 0, which are refused.
type Config struct {
	Name        string        // of the server, as clients see it
	Listen      string        // HOST:PORT for messages; port 0 takes a free one
	HTTP        string        // HOST:PORT for HTTP, or "off"
	Data        string        // directory
	Insecure    bool          // addresses that others reach may be without users and TLS
	StopTimeout time.Duration // how long Run takes at most once its context has ended
	MaxHops     int           // how often a message may be routed
	// Engine is the URL of servers beside which the broker runs, as for hark.Open;
	// empty for a server in this process.
	Engine    string
	Cluster   ClusterConfig
	Log       LogConfig
	TLS       TLSConfig
	Web       WebConfig
	Limits    LimitsConfig
	MQTT      MQTTConfig
	WebSocket WebSocketConfig
	Users     []UserConfig
	Topics    []TopicConfig
	Routes    []RouteConfig
	Webhooks  []WebhookConfig

	file    string              // where it was read from, "" for none
	lines   []string            // of the file
	places  map[string]position // of what is in the file, by path such as routes[0].to
	sources map[string]string   // the flags and variables of settings that are not from the file
}

// LogConfig says what a program around a broker logs. New is given a logger.
type LogConfig struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// SlogLevel returns the level.
func (c LogConfig) SlogLevel() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(c.Level)) != nil {
		return slog.LevelInfo // it is checked in Validate
	}
	return l
}

// TLSConfig names PEM files. Without Cert there is no TLS.
type TLSConfig struct {
	Cert     string
	Key      string
	ClientCA string // clients must have a certificate of one of these
}

// WebConfig says which hosts and web pages the broker answers over HTTP.
type WebConfig struct {
	// Hosts are the names by which it may be asked, besides addresses, localhost
	// and the names of its certificate; * for every name.
	Hosts []string
	// Origins are those of web pages that may ask, such as https://app.example,
	// besides pages of the broker itself; * for every page.
	Origins []string
}

// MQTTConfig says where clients of MQTT connect.
type MQTTConfig struct {
	Listen string // HOST:PORT, or "off"
}

// WebSocketConfig says where NATS clients connect over WebSockets. Web.Origins says
// from which pages.
type WebSocketConfig struct {
	Listen string // HOST:PORT, or "off"
}

// LimitsConfig limits what clients may ask of the broker.
type LimitsConfig struct {
	Message         int64 // bytes of a message with its headers
	Connections     int64 // of NATS clients
	Pending         int64 // bytes that may wait for a client before it is disconnected
	Subscriptions   int64 // of a NATS client
	Rate            int64 // messages a second that a user publishes over NATS, or an address; 0: any number
	HTTPConnections int64 // that are open at once
	HTTPRate        int64 // requests a second of a user, or an address; 0: any number
	Memory          int64 // bytes of topics in memory; 0: the server's choice
	Disk            int64 // bytes of topics on disk; 0: the server's choice
}

// position is a place in a file; lines and columns count from 1.
type position struct{ line, column int }

// Default returns the default configuration.
func Default() *Config {
	c := &Config{places: map[string]position{}, sources: map[string]string{}}
	for _, f := range settings {
		if err := f.set(c, []string{f.def}); err != nil {
			panic(err) // TestDefaults holds the table to it
		}
	}
	return c
}
