package natsdriver

import (
	"context"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/internal/names"
)

// TestConformance runs the clauses on buses over NATS: over a server without
// JetStream, and over one with it.
func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name, column string
		opts         []serverOption
	}{
		{"core", "NATS core", nil},
		{"jetstream", "NATS JetStream", []serverOption{withJetStream}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report := suite(t, func(t *testing.T) string { return startServer(t, tt.opts...).url() })
			report.Compare(t, "../../docs/drivers.md", tt.column)
		})
	}
}

// suite runs all clauses, or those of some kinds. start returns the URL of a server
// that holds nothing yet.
func suite(t *testing.T, start func(t *testing.T) (url string), kinds ...string) *drivertest.Report {
	return suiteOn(t, start, func(*hark.Bus) {}, kinds...)
}

// suiteOn is suite; it also passes each bus that has a server of its own to opened.
func suiteOn(t *testing.T, start func(t *testing.T) (url string), opened func(*hark.Bus), kinds ...string) *drivertest.Report {
	report := drivertest.Run(t, func(tb testing.TB) *hark.Bus {
		bus := hark.Over(keeping{connect(tb, start(tb.(*testing.T)))})
		opened(bus)
		return bus
	}, kinds...)
	report.Add(drivertest.RunAcross(t, func(tb testing.TB) drivertest.Connector {
		url := start(tb.(*testing.T))
		return func() *hark.Bus { return openURL(tb, url) }
	}, kinds...))
	return report
}

// openURL opens a bus.
func openURL(tb testing.TB, url string) *hark.Bus {
	tb.Helper()
	return hark.Over(connect(tb, url))
}

func connect(tb testing.TB, url string) *Conn {
	tb.Helper()
	conn, err := Open(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// keeping is a connection that creates the store for the topics of
// drivertest.KeptPattern when it is first needed.
type keeping struct{ *Conn }

// OpenTopic implements driver.Conn.
func (c keeping) OpenTopic(ctx context.Context, t driver.TopicConfig) (driver.Topic, error) {
	if t.Stored != nil && names.Covers(drivertest.KeptPattern, t.Name) && c.info.Has(driver.StoredPatterns) {
		cfg := StoreConfig{Pattern: drivertest.KeptPattern, StoredConfig: driver.StoredConfig{Durability: driver.DurableRelaxed}}
		if c.info.Has(driver.Strict) {
			cfg.Durability = driver.DurableStrict
		}
		if _, err := c.OpenStore(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return c.Conn.OpenTopic(ctx, t)
}
