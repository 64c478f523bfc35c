package natsdriver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
)

// Option configures a connection.
type Option func(*options) error

type options struct {
	source                  string // source attribute of CloudEvents
	syncAlways              bool
	sync                    func(ctx context.Context, stream string) error
	listened                func(subject string, own int) bool
	waitingEach, waitingAll int
	replicas                int
	domain                  string
	lease                   time.Duration
	alone                   bool
	engine                  string
	attributes              bool
	address                 string
	nats                    []nats.Option
}

// defaultLease is the lease without the option Lease.
const defaultLease = 30 * time.Second

func makeOptions(opts []Option) (options, error) {
	o := options{source: "/" + filepath.Base(os.Args[0]), replicas: 1, engine: "nats", lease: defaultLease}
	for _, opt := range opts {
		if opt == nil {
			continue
		}
		if err := opt(&o); err != nil {
			return o, err
		}
	}
	return o, nil
}

// Source sets the source attribute of published CloudEvents, a non-empty URI
// reference. The default is a slash and the name of the program.
func Source(uri string) Option {
	return func(o *options) error {
		if uri == "" {
			return fmt.Errorf("option Source: want a URI reference that is not empty")
		}
		o.source = uri
		return nil
	}
}

// SyncAlways says that the servers have each stored message on disk before they
// acknowledge it (sync_interval: always in their configuration), which a client
// cannot find out by asking. It makes the connection promise the durability Strict.
func SyncAlways() Option {
	return func(o *options) error {
		o.syncAlways = true
		return nil
	}
}

// Sync provides a way to force writes to disk: f returns once everything that the
// servers have acknowledged for a stream is on disk. It is called by many
// goroutines concurrently. It makes the connection promise the durability Strict
// for streams that servers do not sync by themselves; with SyncAlways it is not
// needed.
func Sync(f func(ctx context.Context, stream string) error) Option {
	return func(o *options) error {
		o.sync = f
		return nil
	}
}

// Listened provides a way to find out, without asking a server, whether anything but
// this connection receives what is published to a subject: f reports false only if own
// subscriptions to the subject itself are all that the servers know of that takes it,
// patterns, groups and streams included. own is how many there are of this connection,
// or 0. A message to an ephemeral topic is then checked, and handed to them in the
// process instead of being sent. f is called for each message, by many goroutines
// concurrently. The user of the connection must be permitted to publish to all topics.
func Listened(f func(subject string, own int) bool) Option {
	return func(o *options) error {
		o.listened = f
		return nil
	}
}

// MaxWaiting bounds the messages of topics that are not stored that have come and wait to
// be received: how many bytes those of each subscription may take, and those of all
// together, of which each then has the same share. What finds no room is dropped and
// counted, as what is beyond the window of the subscription; one message always has room.
// What a subscription of a hark.Bus has received and not handled may take as much, unless
// it drops messages by itself (hark.Overflow) or gathers them (hark.Batch). Without this
// option only the windows count.
func MaxWaiting(each, all int) Option {
	return func(o *options) error {
		if each < 1 || all < each {
			return fmt.Errorf("option MaxWaiting: got %d bytes of %d, want at least 1 of at least as many", each, all)
		}
		o.waitingEach, o.waitingAll = each, all
		return nil
	}
}

// Replicas sets how many servers of a cluster keep each stored topic, 1 to 5; the
// default is 1. It takes effect when a topic is created.
func Replicas(n int) Option {
	return func(o *options) error {
		if n < 1 || n > 5 {
			return fmt.Errorf("option Replicas: got %d, want 1 to 5", n)
		}
		o.replicas = n
		return nil
	}
}

// Lease sets how long a message may be in flight before others in its group get it,
// unless it is extended, as hark does. It is at least 1 s; the default is 30 s. All
// members of a group must use the same lease. When the process or connection of a
// member ends without notice, the others wait this long for its messages.
func Lease(d time.Duration) Option {
	return func(o *options) error {
		if d < time.Second {
			return fmt.Errorf("option Lease: got %v, want at least 1s", d)
		}
		o.lease = d
		return nil
	}
}

// Alone says that nobody but this connection uses what the server keeps, and that
// earlier users are gone: a group does not wait for the leases of former members.
func Alone() Option {
	return func(o *options) error {
		o.alone = true
		return nil
	}
}

// Domain sets the JetStream domain, for a server behind a leaf node.
func Domain(name string) Option {
	return func(o *options) error {
		o.domain = name
		return nil
	}
}

// NATS adds client options to those with which Open connects. They come last. New
// does not connect, and refuses them.
func NATS(opts ...nats.Option) Option {
	return func(o *options) error {
		o.nats = append(o.nats, opts...)
		return nil
	}
}

// Engine sets the name and address of the engine in Info, for engines built on this
// one. The defaults are nats and the host of the server.
func Engine(name, address string) Option {
	return func(o *options) error {
		o.engine, o.address = name, address
		return nil
	}
}

// Attributes makes the type and source of events available among the headers of
// received messages, as ce-type and ce-source, even where the type is the topic. It
// is for programs that pass messages on. Published messages with these headers keep
// them.
func Attributes() Option {
	return func(o *options) error {
		o.attributes = true
		return nil
	}
}
