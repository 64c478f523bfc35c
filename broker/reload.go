package broker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// Reload applies another configuration: its topics, routes, webhooks and users. If
// Reload returns nil all of it is in force; otherwise nothing has changed. Other
// keys, and whether there are users at all, cannot change while the broker runs;
// Reload returns an error that names them. Routes finish the messages that they
// have in flight; if a target accepts nothing, they go where the new routes say. Clients of
// users that were removed or changed are disconnected; other users get what has changed
// for them, such as new topics, when they connect again.
func (b *Broker) Reload(ctx context.Context, c *Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b.reloading.Lock()
	defer b.reloading.Unlock()
	if b.state != stateRunning {
		return fmt.Errorf("reload: %w", ErrStopped)
	}
	before := b.config.Load()
	if before.file != "" && c.file == "" {
		return fmt.Errorf("reload: the file %s does not exist any more", before.file)
	}
	if err := c.fixed(before); err != nil {
		return err
	}
	router, err := NewRouter(c)
	if err != nil {
		return err
	}
	alter, back, err := b.makeTopics(ctx, before, c)
	if err != nil {
		return err
	}
	hooks, err := b.webhooks.change(ctx, c)
	if err != nil {
		return errors.Join(err, back.run(ctx))
	}
	prune, leave, err := b.pruners.change(ctx, c)
	if err != nil {
		return errors.Join(err, hooks.undo(ctx), back.run(ctx))
	}
	routes, err := b.routing.change(ctx, c, router)
	if err != nil {
		return errors.Join(err, leave(), hooks.undo(ctx), back.run(ctx))
	}
	if err := b.alterTopics(ctx, c, alter); err != nil {
		return errors.Join(err, routes.undo(ctx), leave(), hooks.undo(ctx), back.run(ctx))
	}
	routes.finish(ctx)
	prune()
	hooks.finish(ctx)
	if b.auth != nil {
		b.auth.set(c)
	}
	b.config.Store(c)
	b.dropChanged(before, c)
	b.log.Info("reloaded", "topics", len(c.Topics), "routes", len(c.Routes), "users", len(c.Users))
	return nil
}

// lastly returns a context for what has to be brought to an end, or taken back, although
// ctx may have ended: nobody else would.
func lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*stopTimeout)
}

// dropChanged cuts off the clients of users that were removed or changed, so that a
// revoked permission ends at once.
func (b *Broker) dropChanged(before, now *Config) {
	if b.auth == nil {
		return
	}
	stays := map[string]bool{internalUser: true}
	for _, was := range before.Users {
		stays[was.Name] = slices.ContainsFunc(now.Users, func(u UserConfig) bool { return reflect.DeepEqual(u, was) })
	}
	b.web.cut(stays)
	if b.store == nil {
		return
	}
	all, err := b.connections(&natsserver.ConnzOptions{Username: true, Limit: 1 << 30})
	if err != nil {
		b.log.Error("clients of changed users could not be disconnected", "err", err)
		return
	}
	for _, c := range all {
		if !stays[c.AuthorizedUser] {
			_ = b.store.Server().DisconnectClientByID(c.Cid) // the client may be gone
		}
	}
}

// fixed returns an error that names the changed keys that cannot change while a
// broker runs.
func (c *Config) fixed(old *Config) error {
	var ps Problems
	differ := func(key string, was, is any) {
		if !reflect.DeepEqual(was, is) {
			ps = append(ps, c.problem(key, "cannot change while the broker runs: restart it"))
		}
	}
	differ("listen", old.Listen, c.Listen)
	differ("http", old.HTTP, c.HTTP)
	differ("data", old.Data, c.Data)
	differ("name", old.Name, c.Name)
	differ("insecure", old.Insecure, c.Insecure)
	differ("stop_timeout", old.StopTimeout, c.StopTimeout)
	differ("log", old.Log, c.Log)
	differ("tls", old.TLS, c.TLS)
	differ("engine", old.Engine, c.Engine)
	differ("cluster", old.Cluster, c.Cluster)
	differ("web", old.Web, c.Web)
	differ("limits", old.Limits, c.Limits)
	differ("mqtt.listen", old.MQTT, c.MQTT)
	differ("websocket.listen", old.WebSocket, c.WebSocket)
	if (len(old.Users) > 0) != (len(c.Users) > 0) {
		ps = append(ps, c.problem("users", "whether there are users cannot change while the broker runs: restart it"))
	}
	return ps.asError()
}
