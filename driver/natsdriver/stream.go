package natsdriver

import (
	"context"
	"time"

	"github.com/harkbus/hark/driver"
)

// lease is how long a message may be in hand before others of its group get it.
const lease = 30 * time.Second

func (c *Conn) openStored(ctx context.Context, name string, cfg driver.StoredConfig) (driver.Topic, error) {
	return nil, c.refuse(string(driver.Stored))
}
