package natsdriver

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformanceAcross holds buses over one server to the clauses about several
// processes.
func TestConformanceAcross(t *testing.T) {
	for name, opts := range map[string][]serverOption{"core": nil, "jetstream": {withJetStream}} {
		t.Run(name, func(t *testing.T) {
			drivertest.RunAcross(t, func(tb testing.TB) drivertest.Connector {
				s := startServer(tb.(*testing.T), opts...)
				return func() *hark.Bus {
					conn, err := Open(tb.Context(), s.url())
					if err != nil {
						tb.Fatal(err)
					}
					return hark.Over(conn)
				}
			})
		})
	}
}

// TestConformance holds a bus over NATS to the clauses: over a server without
// JetStream, and over one with it.
func TestConformance(t *testing.T) {
	for name, opts := range map[string][]serverOption{"core": nil, "jetstream": {withJetStream}} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(tb testing.TB) *hark.Bus {
				conn, err := Open(tb.Context(), startServer(tb.(*testing.T), opts...).url())
				if err != nil {
					tb.Fatal(err)
				}
				return hark.Over(conn)
			})
		})
	}
}
