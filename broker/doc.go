// Package broker is the hark broker as a library; hark serve is a thin program
// around it. A Broker runs a NATS server with JetStream in the process, so that
// every NATS client is a client of it, and adds to it what the configuration
// says: topics that are stored, by name or pattern, users with permissions, and routes that copy or
// move messages from topics to others by what is in them.
//
//	cfg, err := broker.Load(broker.Source{File: "hark.yaml", Getenv: os.Getenv})
//	b, err := broker.New(cfg, slog.Default())
//	err = b.Run(ctx) // until ctx ends
//
// # Configuration
//
// Load reads a file, the environment and flags: a flag comes before an
// environment variable, that before the file, and that before the default.
// Everything is checked before anything starts, and every fault is reported, with
// its place in the file. docs/configuration.md has all keys.
//
// # Routes
//
// A route takes messages from a topic, or from those that match a pattern,
// filters them, and publishes them to other topics. One from a topic that the
// configuration declares is durable: a group on the topic reads it and
// acknowledges each message once its targets have stored it, with an ID by which
// targets recognise repeats. One from other topics sees what is published while
// the broker runs, at most once. Messages of a topic keep their order. Circles of
// routes are refused when they are loaded; a header counts how often a message
// has been routed, in case one leads through another program.
//
// # Several brokers
//
// With an Engine the broker runs beside servers that are there; with a Cluster its
// server is one of several. Brokers with the same configuration share the routes.
//
// # Safety
//
// Addresses that other machines reach are refused unless there are users and TLS.
// A user's permissions hold for every NATS client: see UserConfig.
package broker
