package broker

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/harkbus/hark/internal/release"
)

// brokerEndpoints are about the broker as a whole.
func brokerEndpoints() []endpoint {
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/broker", name: "getBroker", summary: "the broker", access: operator,
			answer: jsonAnswer(brokerView{}), also: []int{http.StatusGatewayTimeout}, handle: getBroker,
		},
		{
			method: http.MethodPost, path: "/v1/admin/reload", name: "reload", summary: "read the configuration again",
			doc: "Topics, routes and users change all together, or not at all: then the answer says what is wrong, and everything is as it was.", access: operator,
			status: http.StatusNoContent, also: []int{http.StatusUnprocessableEntity, http.StatusNotImplemented, http.StatusGatewayTimeout},
			handle: func(c *call) error {
				load := c.broker.source.Load()
				if load == nil {
					return refused(http.StatusNotImplemented, "this broker was given its configuration by a program, and not told where to read it again")
				}
				if err := c.broker.reloadFrom(c.ctx, *load); err != nil {
					c.broker.log.Error("the configuration was not reloaded, everything is as it was", "err", err)
					return refused(http.StatusUnprocessableEntity, "%s", err).but("nothing has changed; hark serve --check says the same without a broker")
				}
				return c.reply(nil)
			},
		},
	}
}

// brokerView describes the broker.
type brokerView struct {
	Name     string    `json:"name" doc:"its name"`
	Hark     string    `json:"version" doc:"the version of hark; (devel) if it was built from source without one"`
	Version  string    `json:"server" doc:"the version of the NATS server"`
	Started  time.Time `json:"started" doc:"when it was started"`
	Messages string    `json:"messages" doc:"where clients connect"`
	Data     string    `json:"data,omitempty" doc:"the directory of stored topics"`
	File     string    `json:"config,omitempty" doc:"the file of its configuration"`
	Topics   int       `json:"streams" doc:"streams of NATS: stored topics, channels, and a few of hark itself"`
	Bytes    uint64    `json:"bytes" doc:"what is stored, on disk and in memory"`
	Routes   int       `json:"routes" doc:"how many routes there are"`
	Users    int       `json:"users" doc:"how many users there are; with 0 everybody may do everything"`
	Ready    bool      `json:"ready" doc:"whether it can take messages"`
}

func getBroker(c *call) error {
	b, cfg := c.broker, c.broker.config.Load()
	usage, err := b.conn.Usage(c.ctx)
	if err != nil {
		return err
	}
	v := brokerView{
		Name: cfg.Name, Hark: release.Version(), Version: b.conn.Info().Server, Started: b.started, Messages: b.conn.Info().Address, File: cfg.file,
		Topics: usage.Streams, Bytes: usage.Bytes, Routes: len(cfg.Routes), Users: len(cfg.Users), Ready: b.unready() == "",
	}
	if b.store != nil {
		v.Data, v.Messages = b.store.Dir(), b.Addr().String()
	}
	return c.reply(v)
}

// ReloadFrom sets the function that loads the configuration when a reload is
// requested over HTTP.
func (b *Broker) ReloadFrom(load func() (*Config, error)) { b.source.Store(&load) }

func (b *Broker) reloadFrom(ctx context.Context, load func() (*Config, error)) error {
	next, err := load()
	if err == nil {
		err = b.Reload(ctx, next)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = ctx.Err()
	}
	return err
}
