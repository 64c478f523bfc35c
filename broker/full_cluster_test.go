package broker

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/tempfs"
)

// TestFullClusterDisk fills the disk of one broker of a cluster from outside. The
// others continue without it.
func TestFullClusterDisk(t *testing.T) { fullDisks(t, 1) }

// TestFullClusterDisks fills the disks of all brokers of a cluster from outside.
func TestFullClusterDisks(t *testing.T) { fullDisks(t, 3) }

// fullDisks starts a cluster of three brokers and fills the disks of some of them. When
// there is room again, all brokers must accept messages by themselves, and have every
// acknowledged message.
func fullDisks(t *testing.T, full int) {
	t.Parallel()
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	texts, others := make([]string, 3), make([]string, 3)
	for i := range texts {
		option := "size=128m"
		if i < full {
			option = "size=36m"
		}
		dir := tempfs.Mount(t, option)
		others[i] = filepath.Join(dir, "others")
		if err := os.WriteFile(others[i], make([]byte, 18<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		texts[i] = fmt.Sprintf("name: hark-%d\nlisten: 127.0.0.1:0\ndata: %s\nlimits: {disk: 1GiB}\ntopics: [{name: orders}]\ncluster: {listen: %s, routes: ['%s'], user: node, password: secret-node, replicas: 3}\n",
			i, filepath.Join(dir, "data"), addresses[i], strings.Join(addresses, "', '"))
	}
	bs := startAll(t, texts...)
	c := dial(t, bs[2], "")
	orders := openStored(t, bs[2], "orders")
	acknowledged := fillCluster(t, bs[:full], orders)
	for i, b := range bs {
		if code, body := get(t, b, "/readyz"); (code != http.StatusOK) != (i < full) {
			t.Errorf("/readyz of broker %d: got %d %v", i, code, body)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // leaders have to be found
	defer cancel()
	put := func(n int) {
		t.Helper()
		if err := orders.Publish(ctx, []*driver.Message{large(n)}); err != nil {
			t.Fatal(err)
		}
		acknowledged[n] = true
	}
	if full == 1 {
		put(1000)
	}

	for _, file := range others[:full] {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range bs {
		for code := 0; code != http.StatusOK; code, _ = get(t, b, "/readyz") {
			if !sleep(ctx, 20*time.Millisecond) {
				t.Fatalf("broker %d does not become ready", i)
			}
		}
	}
	put(1001)
	js := jetStreamOf(t, c.Client())
	for current := false; !current; { // all have everything
		info, err := js.StreamInfo("hark-topic-orders")
		if current = err == nil && info.Cluster != nil && len(info.Cluster.Replicas) == 2; current {
			for _, p := range info.Cluster.Replicas {
				current = current && p.Current && !p.Offline
			}
		}
		if !current && !sleep(ctx, 20*time.Millisecond) {
			t.Fatalf("got %+v, %v, want three that have all", info, err)
		}
	}
	sub, err := storedTopic(t, c, "orders").Subscribe(ctx, driver.SubscribeConfig{From: driver.FromStart, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for !seen[1001] {
		ms, err := sub.Receive(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			var n int
			if _, err := fmt.Sscanf(m.ID, "id-%d", &n); err != nil || seen[n] {
				t.Errorf("got %s, which was there before: %v", m.ID, seen[n])
			}
			seen[n] = true
		}
	}
	for n := range acknowledged {
		if !seen[n] {
			t.Errorf("message %d was acknowledged, and is gone", n)
		}
	}
	t.Logf("%d messages of 100 kB were acknowledged, and are there", len(acknowledged))
}

// large is a message of 100 kB.
func large(n int) *driver.Message {
	id := fmt.Sprint("id-", n)
	return &driver.Message{ID: id, DedupID: id, Data: make([]byte, 100_000)}
}

// fillCluster publishes until the disks of some brokers are full, and returns the
// acknowledged messages.
func fillCluster(t *testing.T, full []*Broker, topic driver.Topic) map[int]bool {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var watch sync.WaitGroup
	watch.Go(func() {
		defer cancel()
		for _, b := range full {
			for !b.store.Faulty() && sleep(ctx, 10*time.Millisecond) {
			}
		}
	})
	defer watch.Wait()
	defer cancel()
	acknowledged := map[int]bool{}
	for n := 0; ctx.Err() == nil; n++ {
		if topic.Publish(ctx, []*driver.Message{large(n)}) == nil {
			acknowledged[n] = true
		}
	}
	for i, b := range full {
		if !b.store.Faulty() {
			t.Fatalf("the disk of broker %d does not get full", i)
		}
	}
	if len(acknowledged) < 50 {
		t.Errorf("%d messages were acknowledged, want more", len(acknowledged))
	}
	return acknowledged
}
