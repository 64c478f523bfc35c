package hark_test

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

func TestConformance(t *testing.T) {
	for _, c := range drivertest.Clauses() {
		t.Run(c.ID, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Skipped() {
					t.Error("the engine in this process can do everything")
				}
			})
			c.Test(t, func(testing.TB) *hark.Bus { return hark.New() })
		})
	}
}
