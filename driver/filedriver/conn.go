package filedriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/disk"
)

func init() {
	driver.Register("file", func(ctx context.Context, url string) (driver.Conn, error) {
		dir, opts, err := parseURL(url)
		if err != nil {
			return nil, err
		}
		return Open(ctx, dir, opts...)
	})
}

// Conn is a connection to a directory. It can do what one to NATS can.
type Conn struct {
	*natsdriver.Conn
	dir    string
	lock   *lock
	server *server
	client *nats.Conn
	disk   *disk.Streams
	sound  bool // the files are as they should be

	closing sync.Once
	err     error // of closing
}

// Open opens a directory and makes it if need be. It is ErrInUse if another
// process, or another Conn of this one, has it. The options are those of
// natsdriver that matter for every server: Source and Lease.
func Open(ctx context.Context, dir string, opts ...natsdriver.Option) (*Conn, error) {
	c, err := open(ctx, dir, opts)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", dir, err)
	}
	return c, nil
}

func open(ctx context.Context, dir string, opts []natsdriver.Option) (_ *Conn, err error) {
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
	c := &Conn{dir: dir, lock: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.shut(ctx))
		}
	}()
	if err := checkFiles(dir); err != nil {
		return nil, err
	}
	if c.server, err = startServer(dir); err != nil {
		return nil, err
	}
	if c.client, err = c.server.connect(); err != nil {
		return nil, err
	}
	c.disk = disk.NewStreams(filepath.Join(dir, streamsDir))
	opts = append(opts, natsdriver.Sync(c.disk.Sync), natsdriver.Alone(), natsdriver.Engine("file", dir))
	if c.Conn, err = natsdriver.New(ctx, c.client, opts...); err != nil {
		return nil, err
	}
	if err := c.checkStreams(ctx); err != nil {
		return nil, err
	}
	c.sound = true
	return c, nil
}

// Close implements driver.Conn.
func (c *Conn) Close(ctx context.Context) error {
	c.closing.Do(func() { c.err = c.shut(ctx) })
	return c.err
}

// shut closes what is open.
func (c *Conn) shut(ctx context.Context) error {
	var err error
	if c.Conn != nil {
		err = c.Conn.Close(ctx)
	}
	if c.client != nil {
		c.client.Close()
	}
	if c.disk != nil {
		c.disk.Close()
	}
	if c.server != nil {
		c.server.stop()
	}
	if c.sound {
		err = errors.Join(err, writeList(c.dir))
	}
	return errors.Join(err, c.lock.release())
}
