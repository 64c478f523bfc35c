// Package lease keeps the leases of received messages.
package lease

import (
	"context"
	"sync"
	"time"

	"github.com/harkbus/hark/driver"
)

// Keep extends the leases of the messages that a subscription has received, and of those
// that wait to be received, so that they are not delivered to others, until stop is called.
// lease is driver.Info.Lease. failed is called with the error when leases could not be
// extended; it is tried again.
func Keep(sub driver.Subscription, lease time.Duration, failed func(error)) (stop func()) {
	if lease == 0 { // they have none
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() {
		tick := time.NewTicker(lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := sub.Extend(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	})
	return func() {
		cancel()
		keeping.Wait()
	}
}
