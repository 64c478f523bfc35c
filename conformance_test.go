package hark_test

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(testing.TB) *hark.Bus { return hark.New() })
}
