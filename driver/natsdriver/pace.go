package natsdriver

import (
	"sync/atomic"
	"time"
)

const (
	// A member of a group has as many messages on their way as it has lately handled in
	// aheadTime, at most maxAhead, so that they do not wait here for long while other
	// members have none.
	aheadTime = 10 * time.Millisecond
	maxAhead  = 512
	// paceTime is how long it counts for that.
	paceTime = 2 * time.Millisecond
	// paceExpires is how long a request for messages ahead stands.
	paceExpires = time.Second
)

// pace is how fast a member handles messages.
type pace struct {
	since   time.Time
	handled atomic.Int64 // since then
	depth   int          // in aheadTime
}

// ahead returns how many messages may be on their way.
func (p *pace) ahead(now time.Time) int {
	if spent := now.Sub(p.since); spent >= paceTime {
		p.depth = int(min(time.Duration(p.handled.Swap(0))*aheadTime/spent, maxAhead))
		p.since = now
	}
	return p.depth
}
