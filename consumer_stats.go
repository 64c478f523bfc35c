package hark

import (
	"sync/atomic"
	"time"
)

// tally counts the outcomes of messages that are not simply delivered; see
// SubscriptionStats.
type tally struct {
	filtered, dropped, dead        atomic.Uint64
	filterErrors                   atomic.Uint64 // part of filtered
	failed, redelivered, overgrown atomic.Uint64
}

var nothing tally

// tallied returns the counters to be read.
func (c *core) tallied() *tally {
	if r := c.rare.Load(); r != nil {
		return &r.tally
	}
	return &nothing
}

// done returns the number of messages that are done.
func (c *core) done() uint64 {
	t := c.tallied()
	return c.delivered.Load() + t.filtered.Load() + t.dropped.Load() + t.dead.Load()
}

// countsLocked returns how many messages wait and how many have been passed to
// workers.
func (c *consumer[T]) countsLocked() (waiting, passed uint64) {
	passed = c.passed
	for src := range c.sources {
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
	for src := range c.sources {
		if c.yields {
			src.overflow()
		}
	}
	t := c.tallied()
	s := SubscriptionStats{
		Name:           c.subscription(),
		Delivered:      c.delivered.Load(),
		Filtered:       t.filtered.Load(),
		FilterErrors:   t.filterErrors.Load(),
		Dropped:        t.dropped.Load(),
		Dead:           t.dead.Load(),
		Failed:         t.failed.Load(),
		Redelivered:    t.redelivered.Load(),
		BufferExceeded: t.overgrown.Load(),
		Retrying:       uint64(c.pending.attempts()),
		Paused:         c.pausedLocked(),
	}
	for range c.members {
		s.Members++
	}
	done := s.Delivered + s.Filtered + s.Dropped + s.Dead
	waiting, passed := c.countsLocked()
	s.Waiting = waiting + uint64(c.pending.len()-c.pending.attempts())
	s.InFlight = passed - done - uint64(c.pending.len())
	if c.kind == KindPattern {
		s.Pattern = c.name
	}
	s.OldestAge = c.oldestLocked()
	return s
}

// pausedLocked reports whether there are members and all of them are paused.
func (c *consumer[T]) pausedLocked() bool {
	for m := range c.members {
		if m.state.Load()&memberPaused == 0 {
			return false
		}
	}
	return c.joined != nil
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
	for src := range c.sources {
		note(src.oldest())
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(oldest))
}
