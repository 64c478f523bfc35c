package natsdriver

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformance holds a bus over a server without JetStream to the clauses.
func TestConformance(t *testing.T) {
	drivertest.Run(t, func(tb testing.TB) *hark.Bus {
		s := startServer(tb.(*testing.T))
		conn, err := Open(tb.Context(), s.url())
		if err != nil {
			tb.Fatal(err)
		}
		return hark.Over(conn)
	})
}
