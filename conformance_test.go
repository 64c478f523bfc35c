package hark_test

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

func TestConformance(t *testing.T) {
	report := drivertest.Run(t, func(testing.TB) *hark.Bus { return hark.New() })
	for id, reason := range report.Refused {
		t.Errorf("%s was refused (%s): the engine in this process can do everything", id, reason)
	}
	report.Compare(t, "docs/drivers.md", "`mem:`")
}
