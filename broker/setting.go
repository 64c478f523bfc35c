package broker

import (
	"slices"
	"strings"
	"time"
)

// off says that something is not to be there.
const off = "off"

// settings are the keys of the configuration that are a flag and an environment
// variable too.
var settings = slices.Concat(serverSettings, clusterSettings)

// serverSettings are those about this process.
var serverSettings = []field[Config]{
	text("listen", "HOST:PORT", "127.0.0.1:7422", "where clients connect; port 0 picks a free one", func(c *Config) *string { return &c.Listen }),
	text("http", "HOST:PORT or off", "127.0.0.1:7480", "where to serve HTTP", func(c *Config) *string { return &c.HTTP }),
	text("mqtt.listen", "HOST:PORT or off", off, "where MQTT (3.1.1) clients connect; the MQTT topic a/b is a.b", func(c *Config) *string { return &c.MQTT.Listen }),
	text("websocket.listen", "HOST:PORT or off", off, "where NATS clients connect over WebSockets, and MQTT clients at /mqtt", func(c *Config) *string { return &c.WebSocket.Listen }),
	text("data", "directory", "./hark-data", "directory of stored topics, relative to the working directory", func(c *Config) *string { return &c.Data }),
	text("name", "text", "hark", "the name of the server, as clients see it", func(c *Config) *string { return &c.Name }),
	boolean("insecure", "false", "allow addresses that other machines can reach without users and TLS", func(c *Config) *bool { return &c.Insecure }),
	duration("stop_timeout", "10s", "how long stopping may take", func(c *Config) *time.Duration { return &c.StopTimeout }),
	scalar("max_hops", "number", "16", "how often a message may be routed; after that a route does not pass it on, and counts it", func(c *Config, s string) error {
		var n int64
		err := count("", "", "", func(*int64) *int64 { return &n }).set(&n, []string{s})
		c.MaxHops = int(min(n, 1<<20))
		return err
	}),
	choice("log.level", "info", "minimum level of log entries", func(c *Config) *string { return &c.Log.Level }, "debug", "info", "warn", "error"),
	choice("log.format", "text", "format of the log", func(c *Config) *string { return &c.Log.Format }, "text", "json"),
	text("tls.cert", "file", "", "the certificate (PEM) for TLS with clients", func(c *Config) *string { return &c.TLS.Cert }),
	text("tls.key", "file", "", "the private key (PEM) of the certificate in tls.cert", func(c *Config) *string { return &c.TLS.Key }),
	text("tls.client_ca", "file", "", "authorities (PEM); each client must have a certificate from one of them", func(c *Config) *string { return &c.TLS.ClientCA }),
	commas("web.hosts", "names", "host names accepted over HTTP, besides addresses, localhost and those of the certificate; `*` for every name", func(c *Config) *[]string { return &c.Web.Hosts }),
	commas("web.origins", "origins", "origins of web pages accepted over HTTP, such as https://app.example, besides those of the broker itself; `*` for every page", func(c *Config) *[]string { return &c.Web.Origins }),
	size("limits.message", "8MiB", "maximum size of a message with its headers; at most 64MiB", func(c *Config) *int64 { return &c.Limits.Message }),
	count("limits.connections", "65536", "maximum number of connected clients", func(c *Config) *int64 { return &c.Limits.Connections }),
	size("limits.pending", "256MiB", "how much may wait for a client that reads too slowly before it is disconnected", func(c *Config) *int64 { return &c.Limits.Pending }),
	count("limits.subscriptions", "250000", "maximum number of subscriptions of a NATS client", func(c *Config) *int64 { return &c.Limits.Subscriptions }),
	count("limits.rate", "0", "how many messages a second each user may publish over NATS, without users each address, on all connections together; more are held back; 0 for any number", func(c *Config) *int64 { return &c.Limits.Rate }),
	count("limits.http_connections", "16384", "maximum number of open HTTP connections; further ones wait", func(c *Config) *int64 { return &c.Limits.HTTPConnections }),
	count("limits.http_rate", "0", "maximum HTTP requests per second for each user, or without users for each address; 0 for no limit", func(c *Config) *int64 { return &c.Limits.HTTPRate }),
	size("limits.memory", "0", "how much topics may keep in memory; 0 for three quarters of the memory", func(c *Config) *int64 { return &c.Limits.Memory }),
	size("limits.disk", "0", "how much topics may keep on disk; 0 for three quarters of the free space", func(c *Config) *int64 { return &c.Limits.Disk }),
}

// Setting describes a key of the configuration that is a flag and an environment
// variable too.
type Setting struct {
	Key     string // in the file, with a dot for a section: limits.message
	Flag    string // without dashes: limits-message
	Env     string // HARK_LIMITS_MESSAGE
	Value   string // what is to be given, for people
	Default string
	Doc     string
	Bool    bool // the flag needs no value
}

// Settings returns the keys that are flags and environment variables too.
func Settings() []Setting {
	all := make([]Setting, len(settings))
	for i, f := range settings {
		all[i] = Setting{f.key, flagName(f.key), envName(f.key), f.value, f.def, f.doc, f.isBool}
	}
	return all
}

func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

func envName(key string) string {
	return "HARK_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}
