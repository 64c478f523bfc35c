package broker

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// rates limits how many HTTP requests each user sends, or without users each
// address, or how many messages over NATS: a number per second, and as many at
// once.
type rates struct {
	most float64 // per second; 0 for no limit, and then nothing is counted
	now  func() time.Time
	// after returns a channel that receives once a duration has passed.
	after func(time.Duration) <-chan time.Time

	mu      sync.Mutex // guards the fields below
	buckets map[string]*bucket
	// held counts the messages that had to wait, by sender: by at most maxLabelled of
	// them, and under "" those of all others.
	held map[string]uint64
}

// bucket holds how much a sender may still send; below 0, how much has to wait.
type bucket struct {
	left float64
	at   time.Time // when that was computed
}

// maxBuckets is how many are remembered. Full ones carry no information.
const maxBuckets = 65536

func newRates(most int64) *rates {
	return &rates{most: float64(most), now: time.Now, after: time.After, buckets: map[string]*bucket{}, held: map[string]uint64{}}
}

// take counts a request. If it is one too many it returns how long to wait before
// the next.
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

// reserve counts a message, and returns how long it has to wait. Messages of one
// sender that wait at the same time are released in the order of their calls.
func (r *rates) reserve(who string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucketLocked(who)
	b.left--
	wait := r.until(-b.left)
	if wait > 0 {
		if _, known := r.held[who]; !known && len(r.held) >= maxLabelled {
			who = ""
		}
		r.held[who]++
	}
	return wait
}

// heldBack returns how many messages of each sender had to wait; see held.
func (r *rates) heldBack() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.held)
}

// giveBack takes back what was reserved for a message that is not sent. Otherwise
// clients that come, are held back and go would make their user wait ever longer.
func (r *rates) giveBack(who string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bucketLocked(who).left++ // what is too much goes with the next update
}

// until returns how long it takes until more messages may be sent; 0 if they may be
// already.
func (r *rates) until(more float64) time.Duration {
	return time.Duration(max(more, 0) / r.most * float64(time.Second))
}

// bucketLocked returns the bucket of a sender, updated to the present.
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

// forgetLocked forgets full buckets, or all of them.
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

// sender returns under which name a request is counted: a user, or an address.
func sender(p *principal, r *http.Request) string {
	return senderOf(p.who(), r.RemoteAddr)
}

// senderOf returns the name under which a user is counted, or without users that
// of an address, which is given with its port.
func senderOf(user, address string) string {
	if user != "" {
		return userPrefix + user
	}
	return hostOf(address)
}

// userPrefix begins the names under which users are counted.
const userPrefix = "user "

// hostOf returns an address without its port. For IPv6 it returns the network,
// because whoever has one of its addresses mostly has all of them.
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

// publishLimiter holds the messages of a NATS client to the rate of its sender.
type publishLimiter struct {
	rates *rates
	who   string
	over  <-chan struct{} // closed when waiting must end
}

// pongEvery is how often the server hears from a client that is held back for long,
// because the client's own answers to its pings are queued behind what is held
// back. It is longer than the server waits before it pings, so that a client that
// has gone meanwhile is noticed.
const pongEvery = 3 * time.Minute

// await returns when the client may publish one more message, or errRefused when
// the connection is over. It calls flush before it waits, and then alive from time
// to time.
func (p *publishLimiter) await(flush, alive func() error) (err error) {
	if p == nil {
		return nil
	}
	wait := p.rates.reserve(p.who)
	if wait == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			p.rates.giveBack(p.who)
		}
	}()
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
