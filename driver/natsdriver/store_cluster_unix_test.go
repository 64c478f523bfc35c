//go:build unix

package natsdriver

import (
	"bytes"
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// TestCountOnCluster counts the messages of a topic in a store while one of the servers
// has not got them all: it has stood still, and catches up.
func TestCountOnCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it takes some seconds")
	}
	cluster := startCluster(t, "")
	c := cluster.open(t)
	store, err := c.OpenStore(longContext(t), StoreConfig{Pattern: "s.>", StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}})
	if err != nil {
		t.Fatal(err)
	}
	topic := openTopic(t, c, "s.a", relaxed())
	cluster.settle(c)
	info, err := store.(*stored).info(longContext(t))
	if err != nil {
		t.Fatal(err)
	}
	late := cluster.nodes[slices.IndexFunc(cluster.nodes, func(n *process) bool { return n.name == info.Cluster.Replicas[0].Name })]
	if late.address() == c.nc.ConnectedAddr() {
		late = cluster.nodes[slices.IndexFunc(cluster.nodes, func(n *process) bool { return n.name == info.Cluster.Replicas[1].Name })]
	}
	if err := late.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const batches, batch = 40, 500
	ms := make([]*driver.Message, batch)
	for i := range ms {
		ms[i] = &driver.Message{Bare: true, Data: bytes.Repeat([]byte("x"), 2000)}
	}
	for range batches {
		if err := topic.Publish(longContext(t), ms); err != nil {
			t.Fatal(err)
		}
	}
	if err := late.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	counted := 0
	for behind := true; behind; counted++ {
		n, err := topic.(*stored).countFrom(longContext(t), 1)
		if err != nil || n != batches*batch {
			t.Fatalf("count %d is %d (%v), want %d", counted, n, err, batches*batch)
		}
		behind = slices.ContainsFunc(peers(t, store.(*stored)), func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline })
	}
	t.Logf("counted %d times", counted)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if first, err := topic.(*stored).newest(ctx, 3); err != nil || first != batches*batch-2 {
		t.Errorf("the third newest is %d (%v)", first, err)
	}
}

func peers(t *testing.T, s *stored) []*jetstream.PeerInfo {
	t.Helper()
	info, err := s.info(longContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return info.Cluster.Replicas
}
