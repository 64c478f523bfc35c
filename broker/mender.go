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
	// mendPause is how often the mender looks, and mendPauseMost how long it waits at most
	// after it has started the server, twice as long each time unless all was well for as
	// long as that.
	mendPause     = 2 * time.Second
	mendPauseMost = time.Minute
)

// startMender watches the server in this process. One of a cluster gets what it has missed
// from the others when it is started again.
func startMender(b *Broker) *mender {
	if b.store == nil {
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
	last := time.Time{}
	for pause := mendPause; sleep(ctx, pause); {
		s := m.broker.store
		if !s.Faulty() {
			if time.Since(last) > mendPauseMost {
				pause = mendPause
			}
			continue
		}
		if s.HasRoom() != nil || !m.broker.reloading.TryLock() { // whoever has it may be about to stop everything
			continue
		}
		log.Warn("there is room on the disk again: the server is started again, and clients connect again")
		began := time.Now()
		err := s.Revive()
		m.broker.reloading.Unlock()
		if err == nil && !s.Faulty() {
			log.Info("stored topics take messages again", "took", time.Since(began))
		} else {
			log.Error("stored topics do not take messages again", "err", err, "again_in", pause)
		}
		last, pause = time.Now(), min(2*pause, mendPauseMost) // it may fill up again at once
	}
}
