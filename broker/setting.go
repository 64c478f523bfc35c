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
	text("listen", "HOST:PORT", "127.0.0.1:7422", "where clients connect; port 0 takes a free one", func(c *Config) *string { return &c.Listen }),
	text("http", "HOST:PORT or off", "127.0.0.1:7480", "where HTTP is served", func(c *Config) *string { return &c.HTTP }),
	text("mqtt.listen", "HOST:PORT or off", off, "where MQTT clients connect (3.1.1); the topic a/b of MQTT is a.b", func(c *Config) *string { return &c.MQTT.Listen }),
	text("websocket.listen", "HOST:PORT or off", off, "where NATS clients connect over WebSockets, and those of MQTT at /mqtt", func(c *Config) *string { return &c.WebSocket.Listen }),
	text("data", "directory", "./hark-data", "where stored topics are kept; relative to the working directory", func(c *Config) *string { return &c.Data }),
	text("name", "text", "hark", "the name of the server, as clients see it", func(c *Config) *string { return &c.Name }),
	boolean("insecure", "false", "allow addresses that other machines reach without users and TLS", func(c *Config) *bool { return &c.Insecure }),
	duration("stop_timeout", "10s", "how long stopping may take", func(c *Config) *time.Duration { return &c.StopTimeout }),
	scalar("max_hops", "number", "16", "how often one message may be routed before it is dropped", func(c *Config, s string) error {
		var n int64
		err := count("", "", "", func(*int64) *int64 { return &n }).set(&n, []string{s})
		c.MaxHops = int(min(n, 1<<20))
		return err
	}),
	choice("log.level", "info", "what is logged", func(c *Config) *string { return &c.Log.Level }, "debug", "info", "warn", "error"),
	choice("log.format", "text", "how it is logged", func(c *Config) *string { return &c.Log.Format }, "text", "json"),
	text("tls.cert", "file", "", "the certificate (PEM) with which clients are spoken to over TLS", func(c *Config) *string { return &c.TLS.Cert }),
	text("tls.key", "file", "", "its key (PEM)", func(c *Config) *string { return &c.TLS.Key }),
	text("tls.client_ca", "file", "", "authorities (PEM) of which each client must have a certificate", func(c *Config) *string { return &c.TLS.ClientCA }),
	commas("web.hosts", "names", "names by which HTTP may be asked, besides addresses, localhost and those of the certificate; `*` for every name", func(c *Config) *[]string { return &c.Web.Hosts }),
	commas("web.origins", "origins", "origins such as https://app.example of web pages that may ask over HTTP, besides those of the broker itself; `*` for every page", func(c *Config) *[]string { return &c.Web.Origins }),
	size("limits.message", "8MiB", "how large a message may be with its headers; at most 64MiB", func(c *Config) *int64 { return &c.Limits.Message }),
	count("limits.connections", "65536", "how many clients may be connected", func(c *Config) *int64 { return &c.Limits.Connections }),
	size("limits.pending", "256MiB", "how much may wait for a client that reads too slowly, before it is cut off", func(c *Config) *int64 { return &c.Limits.Pending }),
	count("limits.subscriptions", "250000", "how many subscriptions a NATS client may have", func(c *Config) *int64 { return &c.Limits.Subscriptions }),
	count("limits.rate", "0", "how many messages a second each user may publish over NATS, without users each address, on all connections together; more are held back; 0 for any number", func(c *Config) *int64 { return &c.Limits.Rate }),
	count("limits.http_connections", "16384", "how many connections may be open over HTTP; further ones wait", func(c *Config) *int64 { return &c.Limits.HTTPConnections }),
	count("limits.http_rate", "0", "how many requests a second each user may send over HTTP, without users each address; 0 for any number", func(c *Config) *int64 { return &c.Limits.HTTPRate }),
	size("limits.memory", "0", "how much topics may keep in memory; 0 for three quarters of what there is", func(c *Config) *int64 { return &c.Limits.Memory }),
	size("limits.disk", "0", "how much topics may keep on disk; 0 for three quarters of what is free", func(c *Config) *int64 { return &c.Limits.Disk }),
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
