package memdriver_test

import (
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/driver/memdriver"
	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(testing.TB) *hark.Bus { return hark.Over(memdriver.New().Connect()) })
}

func TestConformanceAcross(t *testing.T) {
	drivertest.RunAcross(t, func(testing.TB) drivertest.Connector {
		e := memdriver.New()
		return func() *hark.Bus { return hark.Over(e.Connect()) }
	})
}
