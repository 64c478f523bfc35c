package broker

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// rates bounds how many requests over HTTP each user sends, or without users each
// address, or how many messages over NATS: so many a second, and as many at once.
type rates struct {
	most float64 // a second; 0 for any number, and then nothing is counted
	now  func() time.Time
	// after sends when a time is over.
	after func(time.Duration) <-chan time.Time

	mu      sync.Mutex // guards what follows
	buckets map[string]*bucket
}

// bucket has what somebody may still send, below 0 what is to wait.
type bucket struct {
	left float64
	at   time.Time // when that was
}

// maxBuckets is how many are remembered. Those that are full say nothing.
const maxBuckets = 65536

func newRates(most int64) *rates {
	return &rates{most: float64(most), now: time.Now, after: time.After, buckets: map[string]*bucket{}}
}

// take counts a request, and returns how long to wait before the next one if this
// one is too many.
func (r *rates) take(who string) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucketLocked(who)
	if b.left < 1 {
		return r.until(1 - b.left), false
	}
	b.left--
	return 0, true
}

// reserve counts a message, and returns how long it has to wait. Those of one sender
// that wait at the same time do so in the order of their calls.
func (r *rates) reserve(who string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucketLocked(who)
	b.left--
	return r.until(-b.left)
}

// until returns how long it takes until so many more may be sent, 0 if that is now.
func (r *rates) until(more float64) time.Duration {
	return time.Duration(max(more, 0) / r.most * float64(time.Second))
}

// bucketLocked returns the bucket of somebody, with what may be sent now.
func (r *rates) bucketLocked(who string) *bucket {
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
	return b
}

// forgetLocked forgets those who may send as much as anybody, or all.
func (r *rates) forgetLocked(now time.Time) {
	for who, b := range r.buckets {
		if b.left+r.most*now.Sub(b.at).Seconds() >= r.most {
			delete(r.buckets, who)
		}
	}
	if len(r.buckets) >= maxBuckets {
		clear(r.buckets)
	}
}

// sender returns whose requests are counted together: a user, or an address.
func sender(p *principal, r *http.Request) string {
	return senderOf(p.who(), r.RemoteAddr)
}

// senderOf returns as whom a user is counted, or without users an address with its port.
func senderOf(user, address string) string {
	if user != "" {
		return "user " + user
	}
	return hostOf(address)
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

// pace holds what a client of NATS publishes to the rate of its sender.
type pace struct {
	rates *rates
	who   string
	over  <-chan struct{} // closed when nobody waits any more
}

// pongEvery is how often the server hears from a client that is held back for long, because
// what the client answers to its pings stands behind what is held back. It is longer than
// the server waits before it asks, so that a client is noticed that has gone meanwhile.
const pongEvery = 3 * time.Minute

// await returns when the client may publish one more message, or errRefused when the
// connection is over. Before it waits it calls flush, and then from time to time alive.
func (p *pace) await(flush, alive func() error) error {
	if p == nil {
		return nil
	}
	wait := p.rates.reserve(p.who)
	if wait == 0 {
		return nil
	}
	if err := flush(); err != nil {
		return err
	}
	for ; ; wait -= pongEvery {
		select {
		case <-p.rates.after(min(wait, pongEvery)):
		case <-p.over:
			return errRefused
		}
		if wait <= pongEvery {
			return nil
		}
		if err := alive(); err != nil {
			return err
		}
	}
}
