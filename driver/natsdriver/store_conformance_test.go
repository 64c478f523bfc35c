package natsdriver

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformanceInStores runs the clauses about topics on buses that keep stored
// topics in stores. Each store has one topic, because limits, and sequences without
// gaps, are per store.
func TestConformanceInStores(t *testing.T) {
	t.Parallel()
	open := func(tb testing.TB, url string) *hark.Bus {
		tb.Helper()
		conn, err := Open(tb.Context(), url)
		if err != nil {
			tb.Fatal(err)
		}
		return hark.Over(storing{conn})
	}
	// The other clauses have nothing to do with stored topics.
	about := []string{"BAT", "BUF", "CLS", "DED", "DLQ", "DLY", "FLT", "GRP", "ITR", "KEY", "ORD", "PAT", "PUB", "RTY", "STA", "STO", "SUB", "TTL", "TYP"}
	for _, c := range drivertest.Clauses() {
		area, _, _ := strings.Cut(c.ID, "-")
		if !slices.Contains(about, area) || c.ID == "STO-10" { // the exact number of missed messages is not known: see TestStoreLag
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			c.Test(t, func(tb testing.TB) *hark.Bus { return open(tb, startServer(tb.(*testing.T), withJetStream).url()) })
		})
	}
}

// storing is a connection that creates a store for each stored topic.
type storing struct{ *Conn }

// OpenTopic implements driver.Conn.
func (c storing) OpenTopic(ctx context.Context, t driver.TopicConfig) (driver.Topic, error) {
	if t.Stored == nil {
		return c.Conn.OpenTopic(ctx, t)
	}
	return c.OpenStore(ctx, StoreConfig{Pattern: t.Name, StoredConfig: *t.Stored})
}
