package broker

import (
	"context"
	"sync"
	"time"
)

// mender has the server take up again what it has given up because the disk was full, when
// there is room. Until then /readyz says that the broker cannot take messages.
type mender struct {
	broker *Broker
	cancel context.CancelFunc
	done   sync.WaitGroup
}

const (
	// mendPause is how often the mender looks, and mendPauseMost how long it waits after
	// it has been in vain: to have the server read all streams again takes as long as to
	// start it.
	mendPause     = 2 * time.Second
	mendPauseMost = time.Minute
)

// startMender watches the server in this process. Servers of a cluster have what is stored
// from each other, and are left alone.
func startMender(b *Broker, c *Config) *mender {
	if b.store == nil || c.Cluster.Listen != "" {
		return nil
	}
	m := &mender{broker: b}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() { m.run(ctx) })
	return m
}

func (m *mender) stop() {
	if m != nil {
		m.cancel()
		m.done.Wait()
	}
}

func (m *mender) run(ctx context.Context) {
	log := m.broker.log.With("part", "store")
	for pause := mendPause; sleep(ctx, pause); {
		s := m.broker.store
		if !s.Faulty() {
			pause = mendPause
			continue
		}
		if s.HasRoom() != nil || !m.broker.reloading.TryLock() { // whoever has it may be about to stop everything
			continue
		}
		log.Warn("there is room on the disk again: what is stored is read again, as at a start")
		began := time.Now()
		err := s.Revive()
		m.broker.reloading.Unlock()
		if err == nil && !s.Faulty() {
			log.Info("stored topics take messages again", "took", time.Since(began))
		} else {
			log.Error("stored topics do not take messages again", "err", err, "again_in", pause)
		}
		pause = min(2*pause, mendPauseMost) // it may fill up again at once
	}
}
