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
			method: http.MethodGet, path: "/v1/admin/broker", name: "getBroker", summary: "show the broker", access: operator,
			answer: jsonAnswer(brokerView{}), also: []int{http.StatusGatewayTimeout}, handle: getBroker,
		},
		{
			method: http.MethodPost, path: "/v1/admin/reload", name: "reload", summary: "reload the configuration",
			doc: "Either all changes of topics, routes and users are applied, or none. In the second case the answer says what is wrong.", access: operator,
			status: http.StatusNoContent, also: []int{http.StatusUnprocessableEntity, http.StatusNotImplemented, http.StatusGatewayTimeout},
			handle: func(c *call) error {
				load := c.broker.source.Load()
				if load == nil {
					return refused(http.StatusNotImplemented, "a program gave this broker its configuration without a source to reload it from; call Broker.ReloadFrom")
				}
				if err := c.broker.reloadFrom(c.ctx, *load); err != nil {
					c.broker.log.Error("the configuration was not reloaded, and nothing was changed", "err", err)
					return refused(http.StatusUnprocessableEntity, "%s", err).but("nothing was changed; hark serve --check reports the same without a broker")
				}
				return c.reply(nil)
			},
		},
	}
}

// brokerView describes the broker.
type brokerView struct {
	Name     string    `json:"name" doc:"the name"`
	Hark     string    `json:"version" doc:"the version of hark; (devel) for a build from source without a version"`
	Version  string    `json:"server" doc:"the version of the NATS server"`
	Started  time.Time `json:"started" doc:"when the broker was started"`
	Messages string    `json:"messages" doc:"the address for clients"`
	Data     string    `json:"data,omitempty" doc:"the directory of stored topics"`
	File     string    `json:"config,omitempty" doc:"the configuration file"`
	Topics   int       `json:"streams" doc:"the number of NATS streams: those of stored topics and channels, and a few internal ones"`
	Bytes    uint64    `json:"bytes" doc:"bytes that are stored, on disk and in memory"`
	Routes   int       `json:"routes" doc:"the number of routes"`
	Users    int       `json:"users" doc:"the number of users; with 0, everybody may do everything"`
	Ready    bool      `json:"ready" doc:"whether the broker can accept messages"`
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
