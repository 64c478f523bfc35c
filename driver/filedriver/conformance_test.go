package filedriver

import (
	"context"
	"strings"
	"testing"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/drivertest"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestConformance runs the suite on a bus over a directory.
func TestConformance(t *testing.T) {
	report := drivertest.Run(t, func(tb testing.TB) *hark.Bus {
		conn, err := Open(tb.Context(), tb.TempDir())
		if err != nil {
			tb.Fatal(err)
		}
		return hark.Over(keeping{conn})
	})
	report.Compare(t, "../../docs/drivers.md", "`file:`")
}

// keeping is a connection that creates the store for the topics of
// drivertest.KeptPattern when it is first needed.
type keeping struct{ *Conn }

// OpenTopic implements driver.Conn.
func (c keeping) OpenTopic(ctx context.Context, t driver.TopicConfig) (driver.Topic, error) {
	if t.Stored != nil && strings.HasPrefix(t.Name, strings.TrimSuffix(drivertest.KeptPattern, ">")) {
		if _, err := c.OpenStore(ctx, natsdriver.StoreConfig{Pattern: drivertest.KeptPattern}); err != nil {
			return nil, err
		}
	}
	return c.Conn.OpenTopic(ctx, t)
}
