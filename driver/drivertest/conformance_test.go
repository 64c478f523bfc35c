package drivertest_test

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

// TestConformance runs the clauses on buses in this process. It is not a test of package
// hark, because the suite would have to be compiled once more for those.
func TestConformance(t *testing.T) {
	report := drivertest.Run(t, func(testing.TB) *hark.Bus { return hark.New() })
	for id, reason := range report.Refused {
		t.Errorf("%s was refused (%s): the engine in this process can do everything", id, reason)
	}
	report.Compare(t, "../../docs/drivers.md", "`mem:`")
}
