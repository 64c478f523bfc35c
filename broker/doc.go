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
// Load reads a file, the environment and flags: a flag overrides an environment
// variable, which overrides the file, which overrides the default. Everything is
// checked before anything starts, and every mistake is reported with its place
// in the file. docs/configuration.md has all keys.
//
// # Routes
//
// A route takes messages from a topic, or from all topics that match a pattern,
// filters them, and publishes them to other topics. A route from a topic that
// the configuration declares is durable: a group on the topic reads it and
// acknowledges each message once its targets have stored it, with an ID by which
// the targets recognise repeats. A route from other topics sees what is
// published while the broker runs, at most once. Messages of a topic keep their
// order. Loops of routes are refused when the configuration is loaded; a header
// counts how often a message has been routed, in case a loop leads through
// another program.
//
// # Several brokers
//
// With an Engine the broker runs beside existing servers; with a Cluster its
// server is one of several. Brokers with the same configuration share the
// routes.
//
// # Safety
//
// Addresses that other machines can reach are refused unless there are users and
// TLS. A user's permissions hold for every NATS client: see UserConfig.
package broker
