package natsdriver

import (
	"hash/maphash"
	"strings"
)

// maxArrivals is how many messages are remembered, and up to as many before them. They
// take up to 2.5 MB.
const maxArrivals = 1 << 15

// arrivals remembers the messages on their way to streams that have come to a
// subscription. Such a message is sent again when its answer is missing; the stream
// recognises that, but those who are subscribed to its subject receive it both times.
type arrivals struct {
	seed          maphash.Seed
	recent, older map[uint64]struct{} // hashes of the reply subjects
}

// repeats reports whether the message with this reply subject has come before.
func (a *arrivals) repeats(reply string) bool {
	if reply == "" || strings.HasSuffix(reply, burstSuffix) {
		return false
	}
	first, again := firstReply(reply)
	if a.recent == nil {
		a.seed, a.recent = maphash.MakeSeed(), map[uint64]struct{}{}
	}
	sum := maphash.String(a.seed, first)
	if again {
		_, recent := a.recent[sum]
		_, older := a.older[sum]
		if recent || older {
			return true
		}
	}
	if len(a.recent) == maxArrivals {
		a.older, a.recent = a.recent, make(map[uint64]struct{}, maxArrivals)
	}
	a.recent[sum] = struct{}{}
	return false
}
