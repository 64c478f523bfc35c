package filedriver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/disk"
	"github.com/harkbus/hark/internal/store"
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

// The kinds of errors of opening a directory, for errors.Is.
var (
	// ErrInUse says that another process has the directory.
	ErrInUse = store.ErrInUse
	// ErrDamaged says that files of the directory are not as they were written.
	ErrDamaged = store.ErrDamaged
)

// Conn is a connection to a directory. It can do what one to NATS can.
type Conn struct {
	*natsdriver.Conn
	store  *store.Store
	client *nats.Conn
	disk   *disk.Streams

	closing sync.Once
	err     error // the result of closing
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
	s, err := startServer(dir)
	if err != nil {
		return nil, err
	}
	c := &Conn{store: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.shut(ctx))
		}
	}()
	if c.client, err = connect(s); err != nil {
		return nil, err
	}
	c.disk = disk.NewStreams(filepath.Join(s.Dir(), store.StreamsDir))
	opts = append(opts, natsdriver.Sync(c.disk.Sync), natsdriver.Listened(s.Listened), natsdriver.Alone(), natsdriver.Engine("file", s.Dir()))
	if c.Conn, err = natsdriver.New(ctx, c.client, opts...); err != nil {
		return nil, err
	}
	return c, nil
}

// Close implements driver.Conn.
func (c *Conn) Close(ctx context.Context) error {
	c.closing.Do(func() { c.err = c.shut(ctx) })
	return c.err
}

// shut closes everything that is open.
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
	return errors.Join(err, c.store.Close())
}
