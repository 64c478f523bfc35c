package broker

import (
	"log/slog"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/lease"
)

// keepLeases extends the leases of what a subscription to a stored topic has, until stop
// is called.
func keepLeases(conn engineConn, sub driver.Subscription, log *slog.Logger) (stop func()) {
	return lease.Keep(sub, conn.Info().Lease, func(err error) {
		log.Warn("messages in flight may be delivered again", "err", err)
	})
}
