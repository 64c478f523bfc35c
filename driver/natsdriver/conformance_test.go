package natsdriver

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformance holds buses over NATS to the clauses: over a server without
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

// suite runs all clauses over servers, or those of some kinds. start returns the
// URL of one that holds nothing yet.
func suite(t *testing.T, start func(t *testing.T) (url string), kinds ...string) *drivertest.Report {
	return suiteOn(t, start, func(*hark.Bus) {}, kinds...)
}

// suiteOn is suite, and opened is told of each bus that has a server of its own.
func suiteOn(t *testing.T, start func(t *testing.T) (url string), opened func(*hark.Bus), kinds ...string) *drivertest.Report {
	report := drivertest.Run(t, func(tb testing.TB) *hark.Bus {
		bus := openURL(tb, start(tb.(*testing.T)))
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
	conn, err := Open(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	return hark.Over(conn)
}
