package broker

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// rates bounds how many requests over HTTP each user sends, or without users each
// address: so many a second, and as many at once.
type rates struct {
	most float64 // a second; 0 for any number, and then nothing is counted
	now  func() time.Time

	mu      sync.Mutex // guards what follows
	buckets map[string]*bucket
}

// bucket has what somebody may still send.
type bucket struct {
	left float64
	at   time.Time // when that was
}

// maxBuckets is how many are remembered. Those that are full say nothing.
const maxBuckets = 65536

func newRates(most int64) *rates {
	return &rates{most: float64(most), now: time.Now, buckets: map[string]*bucket{}}
}

// take counts a request, and returns how long to wait before the next one if this
// one is too many.
func (r *rates) take(who string) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	b := r.buckets[who]
	if b == nil {
		if len(r.buckets) >= maxBuckets {
			r.forgetLocked(now)
		}
		b = &bucket{r.most, now}
		r.buckets[who] = b
	}
	b.left = min(r.most, b.left+r.most*max(now.Sub(b.at).Seconds(), 0))
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / r.most * float64(time.Second)), false
	}
	b.left--
	return 0, true
}

// forgetLocked forgets those who have not sent anything for a second, or all.
func (r *rates) forgetLocked(now time.Time) {
	for who, b := range r.buckets {
		if now.Sub(b.at) > time.Second {
			delete(r.buckets, who)
		}
	}
	if len(r.buckets) >= maxBuckets {
		clear(r.buckets)
	}
}

// sender returns whose requests are counted together: a user, or an address.
func sender(p *principal, r *http.Request) string {
	if who := p.who(); who != "" {
		return "user " + who
	}
	return hostOf(r.RemoteAddr)
}

// hostOf returns an address without its port. Of one of IPv6 it is the network, because
// who has one of its addresses mostly has all of them.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if at, err := netip.ParseAddr(host); err == nil && at.Unmap().Is6() {
		return netip.PrefixFrom(at.WithZone(""), 64).Masked().String()
	}
	return host
}
