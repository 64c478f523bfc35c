package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/harkbus/hark/driver"
	_ "github.com/harkbus/hark/driver/filedriver" // for file: URLs
	_ "github.com/harkbus/hark/driver/natsdriver" // for nats:, tls: and hark: URLs
)

// defaultURL is where hark serve listens unless it is told otherwise.
const defaultURL = "nats://127.0.0.1:7422"

const (
	// connectPatience is how long connecting may take, and closing.
	connectPatience = 10 * time.Second
	// askPatience is how long it may take to find out whether a topic is
	// stored. A user who may not know gets no answer.
	askPatience = time.Second
)

// urlFlag declares --url.
func urlFlag(fs *flag.FlagSet) *string {
	return fs.String("url", "", "`URL` of the broker (HARK_URL; "+defaultURL+" without either)")
}

// connect opens a connection to the broker.
func connect(ctx context.Context, url string) (driver.Conn, error) {
	if url == "" {
		url = os.Getenv("HARK_URL")
	}
	if url == "" {
		url = defaultURL
	}
	scheme, _, _ := strings.Cut(url, ":")
	open := driver.Lookup(scheme)
	if open == nil {
		return nil, usageError{fmt.Errorf("%q is no URL of a broker: want one such as %s", url, defaultURL)}
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	conn, err := open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%w; hark serve starts a broker, --url and HARK_URL say where one is", err)
	}
	return conn, nil
}

// closed ends a connection, also when ctx has ended.
func closed(ctx context.Context, conn driver.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectPatience)
	defer cancel()
	return conn.Close(ctx)
}

// openTopic opens a topic as the broker has it: stored or not.
func openTopic(ctx context.Context, conn driver.Conn, name string) (topic driver.Topic, stored bool, err error) {
	cfg := driver.TopicConfig{Name: name}
	if c, ok := conn.(interface {
		HasTopic(ctx context.Context, name string) (bool, error)
	}); ok && has(conn, driver.Stored) {
		ask, cancel := context.WithTimeout(ctx, askPatience)
		stored, err = c.HasTopic(ask, name)
		cancel()
		if err != nil && (ctx.Err() != nil || ask.Err() == nil) {
			return nil, false, err
		}
	}
	if stored {
		cfg.Stored = &driver.StoredConfig{Existing: true, Dedup: time.Minute} // IDs are passed on; the broker knows for how long they count
	}
	topic, err = conn.OpenTopic(ctx, cfg)
	return topic, stored, err
}

func has(conn driver.Conn, c driver.Capability) bool {
	info := conn.Info()
	return info.Has(c)
}
