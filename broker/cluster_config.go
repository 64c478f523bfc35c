package broker

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// ClusterConfig makes the server in this process a member of a NATS cluster.
// Without Listen there is no cluster.
type ClusterConfig struct {
	Name     string   // of the cluster, the same for all its servers
	Listen   string   // HOST:PORT for the other servers; port 0 takes a free one
	Routes   []string // HOST:PORT of other servers; they report the rest
	User     string   // servers log in to each other with User and Password
	Password string
	Replicas int64 // how many servers keep each stored topic
	TLS      TLSConfig
}

// clusterSettings are the keys about several servers.
var clusterSettings = []field[Config]{
	text("engine", "nats://… or hark://…", "", "run routes and HTTP beside these servers instead of one in this process; several brokers with the same configuration share the work. Parameters as for hark.Open: sync=always if the servers sync always, replicas=N", func(c *Config) *string { return &c.Engine }),
	text("cluster.name", "text", "hark", "the name of the cluster that the server in this process joins", func(c *Config) *string { return &c.Cluster.Name }),
	text("cluster.listen", "HOST:PORT", "", "where the other servers of the cluster connect; without it there is no cluster", func(c *Config) *string { return &c.Cluster.Listen }),
	commas("cluster.routes", "HOST:PORT", "servers of the cluster to connect to; they report the others", func(c *Config) *[]string { return &c.Cluster.Routes }),
	text("cluster.user", "text", "", "the user name with which servers connect to each other", func(c *Config) *string { return &c.Cluster.User }),
	text("cluster.password", "text", "", "the password of cluster.user, the same on all servers; the variable keeps it out of the configuration file and of the list of processes", func(c *Config) *string { return &c.Cluster.Password }),
	count("cluster.replicas", "1", "how many servers of the cluster keep each new stored topic, 1 to 5", func(c *Config) *int64 { return &c.Cluster.Replicas }),
	text("cluster.cert", "file", "", "the certificate (PEM) for TLS between servers", func(c *Config) *string { return &c.Cluster.TLS.Cert }),
	text("cluster.key", "file", "", "the private key (PEM) of the certificate in cluster.cert", func(c *Config) *string { return &c.Cluster.TLS.Key }),
	text("cluster.ca", "file", "", "authorities (PEM); each server must have a certificate from one of them", func(c *Config) *string { return &c.Cluster.TLS.ClientCA }),
}

// ofServer are the settings of the server in this process, which have no meaning
// beside an engine.
var ofServer = []string{
	"listen", "data", "mqtt.listen", "websocket.listen", "limits.connections", "limits.rate", "limits.pending", "limits.memory", "limits.disk", "limits.subscriptions",
	"cluster.listen", "cluster.routes", "cluster.user", "cluster.password", "cluster.replicas", "cluster.cert", "cluster.key", "cluster.ca",
}

// shares reports whether other brokers may do the same work.
func (c *Config) shares() bool { return c.Engine != "" || c.Cluster.Listen != "" }

// validateCluster checks what is said about other servers.
func (c *Config) validateCluster(bad report) {
	if c.Engine != "" {
		if err := natsdriver.CheckURL(c.Engine); err != nil {
			bad("engine", "%s", err)
		} else {
			c.validateStrict(bad)
		}
		for _, key := range ofServer {
			_, written := c.places[key]
			if _, given := c.sources[key]; written || given {
				bad(key, "configures the server in this process, and with an engine there is none; remove it")
			}
		}
		return
	}
	k := &c.Cluster
	if k.Listen == "" {
		for key, given := range map[string]bool{
			"cluster.routes": len(k.Routes) > 0, "cluster.user": k.User != "", "cluster.password": k.Password != "", "cluster.replicas": k.Replicas != 1,
			"cluster.cert": k.TLS.Cert != "", "cluster.key": k.TLS.Key != "", "cluster.ca": k.TLS.ClientCA != "",
		} {
			if given {
				bad(key, "configures a cluster, which needs cluster.listen")
			}
		}
		return
	}
	host, _, err := splitAddress(k.Listen)
	if err != nil {
		bad("cluster.listen", "%s", err)
	} else if !loopback(host) && !c.Insecure && (k.Password == "" || k.TLS.Cert == "") {
		bad("cluster.listen", exposed+" %s; add cluster.user and cluster.password, and cluster.cert, cluster.key and cluster.ca, or say --insecure", k.Listen)
	}
	if c.Name == "hark" {
		bad("name", "each server of a cluster needs its own name, such as hark-1")
	}
	if k.Name == "" || strings.ContainsAny(k.Name, " \t\r\n") {
		bad("cluster.name", "want text without white space")
	}
	if k.Replicas < 1 || k.Replicas > 5 {
		bad("cluster.replicas", "must be between 1 and 5")
	}
	if (k.User == "") != (k.Password == "") {
		bad("cluster.user", "cluster.user and cluster.password must be set together")
	}
	for i, r := range k.Routes {
		if _, _, err := splitAddress(r); err != nil {
			bad(fmt.Sprintf("cluster.routes[%d]", i), "%s", err)
		}
	}
	switch {
	case k.TLS.Cert == "" && (k.TLS.Key != "" || k.TLS.ClientCA != ""):
		bad("cluster.cert", "is missing")
	case k.TLS.Cert != "" && (k.TLS.Key == "" || k.TLS.ClientCA == ""):
		bad("cluster.cert", "needs cluster.key and cluster.ca, by which the servers authenticate each other")
	case k.TLS.Cert != "":
		if _, err := k.TLS.load(); err != nil {
			bad("cluster.cert", "%s", err)
		}
	}
}

// validateStrict refuses strict topics on an engine of which it is not said that it syncs
// each message: servers do not tell.
func (c *Config) validateStrict(bad report) {
	if natsdriver.URLSyncsAlways(c.Engine) {
		return
	}
	for i, t := range c.Topics {
		if t.Durability != "" && durabilities[t.Durability] != driver.DurableStrict {
			continue
		}
		bad(fmt.Sprintf("topics[%d]", i), "%s is strict, which needs servers that sync each message to disk before they acknowledge it, and the broker cannot detect whether they do: "+
			"if they do, like hark serve, use a hark:// URL under engine, and like NATS with sync_interval: always, add sync=always to it; if not, set durability: relaxed", t.Name)
		return // the others have the same cause
	}
}

// join adds what makes a server one of a cluster.
func (k *ClusterConfig) join(opts *natsserver.Options) error {
	if k.Listen == "" {
		return nil
	}
	host, port, err := splitAddress(k.Listen)
	if err != nil {
		return err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return err
	}
	if number == 0 {
		number = natsserver.RANDOM_PORT
	}
	if host == "" {
		host = "0.0.0.0"
	}
	opts.Cluster = natsserver.ClusterOpts{Name: k.Name, Host: host, Port: number, Username: k.User, Password: k.Password, AuthTimeout: 5}
	if opts.Cluster.TLSConfig, err = k.TLS.load(); err != nil {
		return err
	}
	if t := opts.Cluster.TLSConfig; t != nil {
		t.RootCAs = t.ClientCAs // servers are clients of each other
		opts.Cluster.TLSTimeout = 5
	}
	for _, r := range k.Routes {
		u := &url.URL{Scheme: "nats-route", Host: r}
		if k.User != "" {
			u.User = url.UserPassword(k.User, k.Password)
		}
		opts.Routes = append(opts.Routes, u)
	}
	return nil
}
