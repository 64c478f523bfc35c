package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoLeader says that the servers of a cluster, or those that keep a topic, have no
// leader: half of them or more do not run or cannot be reached, or they are electing one,
// which takes some seconds.
var ErrNoLeader = errors.New("the cluster has no leader, for which more than half of its servers must run")

// leaderless says what the server means by an error, if that is the lack of a leader.
func leaderless(err error) error {
	if apiCode(err) != notAvailable || errors.Is(err, ErrNoLeader) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoLeader, err)
}

// led is JetStream without what servers say about a stream that has no leader. While a
// cluster elects one, every server with a copy answers, and may be far behind: what
// others have stored would be missing, or a topic seem empty. Asking for such a stream
// fails as it does while the servers have no leader themselves, and is tried again.
type led struct{ jetstream.JetStream }

func (js led) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := js.JetStream.Stream(ctx, name)
	if err == nil {
		err = hasLeader(s.CachedInfo())
	}
	if err != nil {
		return nil, err
	}
	return ledStream{s}, nil
}

type ledStream struct{ jetstream.Stream }

func (s ledStream) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	info, err := s.Stream.Info(ctx, opts...)
	if err == nil {
		err = hasLeader(info)
	}
	if err != nil {
		return nil, err
	}
	return info, nil
}

// hasLeader returns an error if the servers that keep a stream have no leader. A single
// server leads, or says nothing about a cluster.
func hasLeader(info *jetstream.StreamInfo) error {
	if info.Cluster == nil || info.Cluster.Leader != "" {
		return nil
	}
	return &jetstream.APIError{
		Code: http.StatusServiceUnavailable, ErrorCode: notAvailable,
		Description: fmt.Sprintf("the servers that keep stream %s have no leader", info.Config.Name),
	}
}

// leaderOf returns the name of the server that leads, or "" if there is no cluster.
func leaderOf(c *jetstream.ClusterInfo) string {
	if c == nil {
		return ""
	}
	return c.Leader
}

// notAvailable is the server's code for a cluster that has no leader (JSClusterNotAvailErr
// in its errors.json).
const notAvailable = 10008
