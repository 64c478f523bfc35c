package broker

import (
	"context"
	"sync"
	"time"
)

// diskRecovery starts the server again when there is room on a disk that was full, so that it
// takes up the streams that it has given up. Until then /readyz says that the broker cannot
// take messages.
type diskRecovery struct {
	broker *Broker
	cancel context.CancelFunc
	done   sync.WaitGroup
}

const (
	// recoveryPause is how often diskRecovery looks at the disk. After each start of the server
	// the pause is doubled, up to maxRecoveryPause; it is reset when the server has had no
	// fault for maxRecoveryPause.
	recoveryPause    = 2 * time.Second
	maxRecoveryPause = time.Minute
)

// startDiskRecovery watches the server in this process; without one it returns nil. A server
// of a cluster that is started again gets what it has missed from the others.
func startDiskRecovery(b *Broker) *diskRecovery {
	if b.store == nil {
		return nil
	}
	r := &diskRecovery{broker: b}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() { r.run(ctx) })
	return r
}

func (r *diskRecovery) stop() {
	if r != nil {
		r.cancel()
		r.done.Wait()
	}
}

func (r *diskRecovery) run(ctx context.Context) {
	log := r.broker.log.With("part", "store")
	last := time.Time{}
	for pause := recoveryPause; sleep(ctx, pause); {
		s := r.broker.store
		if !s.Faulty() {
			if time.Since(last) > maxRecoveryPause {
				pause = recoveryPause
			}
			continue
		}
		if s.HasRoom() != nil || !r.broker.reloading.TryLock() { // the holder of the lock may be stopping the broker
			continue
		}
		log.Warn("the disk has room again: restarting the server; clients will reconnect")
		began := time.Now()
		err := s.Revive()
		r.broker.reloading.Unlock()
		if err == nil && !s.Faulty() {
			log.Info("stored topics accept messages again", "took", time.Since(began))
		} else {
			log.Error("stored topics still do not accept messages", "err", err, "retry_in", pause)
		}
		last, pause = time.Now(), min(2*pause, maxRecoveryPause) // the disk may fill up again at once
	}
}
