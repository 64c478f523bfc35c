package hark

import (
	"sync/atomic"
	"time"
)

// tally counts the outcomes of messages; see SubscriptionStats.
type tally struct {
	delivered, filtered, dropped, dead atomic.Uint64
	filterErrors                       atomic.Uint64 // part of filtered
	failed, redelivered, overgrown     atomic.Uint64
}

// done returns the number of messages that are done.
func (t *tally) done() uint64 {
	return t.delivered.Load() + t.filtered.Load() + t.dropped.Load() + t.dead.Load()
}

// countsLocked returns how many messages wait and how many have been passed to
// workers.
func (c *consumer[T]) countsLocked() (waiting, passed uint64) {
	passed = c.passed
	for _, src := range c.sources {
		w, p := src.lag()
		waiting, passed = waiting+w, passed+p
	}
	return waiting, passed
}

// stats returns the statistics of the consumer.
func (c *consumer[T]) stats() SubscriptionStats {
	c.mu.Lock()
	s := c.statsLocked()
	c.mu.Unlock()
	c.report()
	return s
}

func (c *consumer[T]) statsLocked() SubscriptionStats {
	for _, src := range c.sources {
		if c.yields {
			src.overflow()
		}
	}
	s := SubscriptionStats{
		Name:           c.name,
		Members:        len(c.members),
		Delivered:      c.tally.delivered.Load(),
		Filtered:       c.tally.filtered.Load(),
		FilterErrors:   c.tally.filterErrors.Load(),
		Dropped:        c.tally.dropped.Load(),
		Dead:           c.tally.dead.Load(),
		Failed:         c.tally.failed.Load(),
		Redelivered:    c.tally.redelivered.Load(),
		BufferExceeded: c.tally.overgrown.Load(),
		Retrying:       uint64(c.pending.attempts()),
		Paused:         c.pausedLocked(),
	}
	done := s.Delivered + s.Filtered + s.Dropped + s.Dead
	waiting, passed := c.countsLocked()
	s.Waiting = waiting + uint64(c.pending.len()-c.pending.attempts())
	s.InFlight = passed - done - uint64(c.pending.len())
	if c.kind == KindPattern {
		s.Pattern = c.topic
	}
	s.OldestAge = c.oldestLocked()
	return s
}

// pausedLocked reports whether there are members and all of them are paused.
func (c *consumer[T]) pausedLocked() bool {
	for _, m := range c.members {
		if m.state.Load()&memberPaused == 0 {
			return false
		}
	}
	return len(c.members) > 0
}

// oldestLocked returns the age of the oldest waiting message whose time is
// known.
func (c *consumer[T]) oldestLocked() time.Duration {
	var oldest time.Time
	note := func(m *meta) {
		if m != nil && (oldest.IsZero() || m.entered().Before(oldest)) {
			oldest = m.entered()
		}
	}
	if p := c.pending; p != nil {
		for _, h := range p.retries {
			note(h.meta)
		}
		for _, h := range p.runnable.items[p.runnable.head:] {
			note(h.meta)
		}
	}
	if !c.sole {
		for _, src := range c.sources {
			note(src.oldest())
		}
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(oldest))
}
