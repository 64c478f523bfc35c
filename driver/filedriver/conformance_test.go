package filedriver

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformance holds a bus over a directory to the clauses.
func TestConformance(t *testing.T) {
	report := drivertest.Run(t, func(tb testing.TB) *hark.Bus {
		conn, err := Open(tb.Context(), tb.TempDir())
		if err != nil {
			tb.Fatal(err)
		}
		return hark.Over(conn)
	})
	report.Compare(t, "../../docs/drivers.md", "`file:`")
}
