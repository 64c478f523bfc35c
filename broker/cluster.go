package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// clusterPoll is how often a broker checks whether the others have joined.
	clusterPoll = 50 * time.Millisecond
	// clusterAnswer is how long the cluster may take to answer.
	clusterAnswer = 2 * time.Second
)

// awaitCluster returns once a majority of the cluster is up; without it nothing can
// be stored.
func (b *Broker) awaitCluster(ctx context.Context, c *Config) error {
	if c.Cluster.Listen == "" {
		return nil
	}
	js, err := b.client.JetStream()
	if err != nil {
		return err
	}
	b.log.Info("waiting for the other servers of the cluster", "cluster", c.Cluster.Name, "listen", b.store.Server().ClusterAddr().String())
	return b.untilCluster(ctx, c, func() error {
		ask, cancel := context.WithTimeout(ctx, clusterAnswer)
		defer cancel()
		_, err := js.AccountInfo(nats.Context(ask))
		return err
	})
}

// firstTopics creates the topics at the start. The cluster may not yet have as many
// servers as are to keep them.
func (b *Broker) firstTopics(ctx context.Context, c *Config) error {
	apply := func() error {
		alter, _, err := b.makeTopics(ctx, nil, c)
		if err != nil {
			return err
		}
		return b.alterTopics(ctx, c, alter)
	}
	if err := apply(); err == nil || c.Cluster.Listen == "" {
		return err
	}
	return b.untilCluster(ctx, c, apply)
}

// untilCluster calls f until it succeeds, fails for a reason other than missing
// servers, or ctx ends.
func (b *Broker) untilCluster(ctx context.Context, c *Config, f func() error) error {
	for {
		err := f()
		if err == nil || !serversMissing(err) {
			return err
		}
		select {
		case <-time.After(clusterPoll):
		case <-ctx.Done():
			return fmt.Errorf("cluster %s: too few of its servers are running: %w (%w)", c.Cluster.Name, context.Cause(ctx), err)
		}
	}
}

// serversMissing reports whether an error may go away once more servers are up.
func serversMissing(err error) bool {
	const noPeers, notAvailable = 10005, 10008
	var api *jetstream.APIError
	var old *nats.APIError
	switch {
	case errors.As(err, &api):
		return api.ErrorCode == noPeers || api.ErrorCode == notAvailable
	case errors.As(err, &old):
		return old.ErrorCode == noPeers || old.ErrorCode == notAvailable
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrJetStreamNotEnabled)
}
